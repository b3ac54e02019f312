r"""Segmentation objects: PS3.3 A.51 (SEG) and A.90 (label map), as every viewer reads them.

The mask's grid is the source's grid. Each frame names its source frame (Derivation Image), empty
frames are left out, and Pixel Measures and Plane Orientation always stand in the shared functional
groups, also where the source has no place in the patient's space: without them OHIF shows a black
page or never loads the object. The orientation is then the nominal ``1\0\0\0\1\0``.

highdicom refuses several of the sources that this node takes (multi-frame images without a frame of
reference, several of them), so the frames are assembled here; its building blocks are used for the
coded macros, and its reader checks the results in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import (
    RLELossless,
    SegmentationStorage,
)

from dicom_node.objects.encoding import new_object
from dicom_node.objects.identifiers import (
    ResultIdentifiers,
    derived_uid,
    tracking_identifier,
)
from dicom_node.objects.provenance import (
    LONG_STRING,
    RESEARCH_USE,
    AlgorithmIdentity,
    NodeIdentity,
    complete_header,
    copied,
    single_line,
)
from dicom_node.objects.references import FrameReference, frame_references, referenced_series
from dicom_node.objects.segment_masks import (
    PackedMask,
    bit_stream,
    filled_frames,
    label_map,
    overlapping,
)
from dicom_node.objects.segmentation_encoding import (
    LABEL_MAP_SEGMENTATION_STORAGE,
    Encoding,
)
from dicom_node.objects.segmentation_frames import (
    SegmentFrame,
    dimension_organization,
    per_frame_groups,
    plane_of,
    shared_groups,
)
from dicom_node.objects.segments import Segment, SegmentationError, segments_of
from dicom_node.objects.series import Source
from dicom_node.objects.terminology import Codes, Concept
from inference.findings import Interpretation


def build_segmentation(
    source: Source,
    interpretation: Interpretation,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
    *,
    encoding: Encoding = "binary",
    compressed: bool = True,
    codes: Codes = Codes.ALL,
) -> Dataset | None:
    """Build the SEG of a source's findings.

    Parameters
    ----------
    source
        What was looked at; its headers are not changed.
    interpretation
        Findings; those with a mask become segments 1..k in their order.
    identifiers
        Drawn once for the job; the same ones give the same bytes again.
    encoding
        ``"binary"`` (uncompressed), ``"labelmap"`` (without an item for the background) or
        ``"fractional"``: the probabilities of the findings, on the frames where one is above 0.
    compressed
        Whether a label map is RLE Lossless; the others are never compressed.

    Returns
    -------
    Dataset or None
        ``None`` when nothing was found: an empty SEG says nothing that the report does not say.

    Raises
    ------
    SegmentationError
        When a mask has another shape than the source, segments of a label map overlap, or a
        finding has no probabilities where they are to be written.
    """
    segments = segments_of(interpretation, codes)
    if not segments:
        return None
    references = frame_references(source)
    _check_shapes(source, segments, len(references))
    masks = [PackedMask.of(segment.mask) for segment in segments]
    overlap = overlapping(masks)
    if encoding == "fractional":
        masks = [PackedMask.of(_probabilities(segment) > 0) for segment in segments]
    if encoding == "labelmap" and overlap:
        raise SegmentationError(
            "the segments overlap, which a label map cannot hold: encode them as BINARY"
        )
    algorithm = AlgorithmIdentity.of(interpretation, node)
    dataset = _start(encoding)
    _write_image_attributes(dataset, source, overlap=overlap)
    dataset.SegmentSequence = DicomSequence(
        [_description(segment, identifiers, algorithm) for segment in segments]
    )
    _write_frames(dataset, source, masks, references, identifiers, encoding)
    complete_header(
        dataset,
        source.headers[0],
        kind="segmentation",
        pair=identifiers.segmentation,
        identifiers=identifiers,
        node=node,
        algorithm=algorithm,
    )
    _write_pixels(dataset, segments, masks, encoding, compressed)
    return dataset


def _start(encoding: Encoding) -> Dataset:
    label_map = encoding == "labelmap"
    sop_class = LABEL_MAP_SEGMENTATION_STORAGE if label_map else SegmentationStorage
    dataset = new_object(sop_class, "SEG")
    dataset.SegmentationType = encoding.upper()
    if encoding == "fractional":
        dataset.SegmentationFractionalType = "PROBABILITY"
        dataset.MaximumFractionalValue = 255
    return dataset


def _check_shapes(source: Source, segments: Sequence[Segment], frames: int) -> None:
    header = source.headers[0]
    expected = (frames, int(header.Rows), int(header.Columns))
    for segment in segments:
        if segment.mask.shape != expected:
            raise SegmentationError(
                f"the mask of finding {segment.index + 1} has the shape {segment.mask.shape}, the "
                f"source {expected}: (frames, rows, columns) must agree"
            )


def _write_image_attributes(dataset: Dataset, source: Source, *, overlap: bool) -> None:
    """Write General Image, Image Pixel and Segmentation Image (PS3.3 C.7.6.1, C.8.20.2)."""
    header = source.headers[0]
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.PixelRepresentation = 0
    dataset.Rows, dataset.Columns = int(header.Rows), int(header.Columns)
    dataset.SegmentsOverlap = "YES" if overlap else "NO"
    dataset.ContentLabel = "SEGMENTATION"
    dataset.ContentDescription = single_line(RESEARCH_USE, LONG_STRING)
    dataset.ContentCreatorName = ""
    dataset.BurnedInAnnotation = "NO"
    dataset.ReferencedSeriesSequence = referenced_series(source)
    _inherit_lossy_compression(dataset, source.headers)
    plane = plane_of(source)
    if plane.frame_of_reference_uid is not None:
        dataset.FrameOfReferenceUID = plane.frame_of_reference_uid
        dataset.PositionReferenceIndicator = ""
        if header.get("PositionReferenceIndicator"):
            dataset.add(copied(header["PositionReferenceIndicator"]))
    if not plane.positions:
        # Type 2C where no plane orientation says where the patient lies (PS3.3 C.7.6.1).
        dataset.PatientOrientation = ""
        if header.get("PatientOrientation"):
            dataset.add(copied(header["PatientOrientation"]))
    if plane.tiles:
        _write_slide(dataset, header)


def _write_slide(dataset: Dataset, header: Dataset) -> None:
    """Write what places tiles on a slide, and whose tissue it is (PS3.3 C.8.12.4, C.7.6.22)."""
    dataset.DimensionOrganizationType = "TILED_SPARSE"
    for keyword in (
        "TotalPixelMatrixRows",
        "TotalPixelMatrixColumns",
        "TotalPixelMatrixOriginSequence",
        "TotalPixelMatrixFocalPlanes",
        "ImageOrientationSlide",
        "ContainerIdentifier",
        "IssuerOfTheContainerIdentifierSequence",
        "ContainerTypeCodeSequence",
        "SpecimenDescriptionSequence",
    ):
        if keyword in header:
            dataset.add(copied(header[keyword]))


def _inherit_lossy_compression(dataset: Dataset, headers: Sequence[Dataset]) -> None:
    """Say that a source was compressed with loss, once for always (PS3.3 C.7.6.1.1.5)."""
    lossy = [header for header in headers if header.get("LossyImageCompression") == "01"]
    dataset.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if lossy[0].get(keyword) not in (None, ""):
                dataset.add(copied(lossy[0][keyword]))


def _description(
    segment: Segment, identifiers: ResultIdentifiers, algorithm: AlgorithmIdentity
) -> Dataset:
    """Return the segment's item (PS3.3 C.8.20.4)."""
    term, finding = segment.term, segment.finding
    regions = [] if term.region is None else [term.region.coded()]
    item = SegmentDescription(
        segment_number=segment.number,
        segment_label=single_line(finding.target, LONG_STRING) or f"Segment {segment.number}",
        segmented_property_category=term.category.coded(),
        segmented_property_type=term.type.coded(),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm.identification(
            [algorithm.parameters, f"prompt: {single_line(finding.prompt, 512)}"]
        ),
        tracking_uid=identifiers.tracking_uid(segment.index),
        tracking_id=tracking_identifier(segment.index),
        anatomic_regions=regions or None,
        display_color=CIELabColor.from_rgb(*term.colour),
    )
    item.SegmentDescription = single_line(finding.text, 1024)
    _add_modifiers(
        item.SegmentedPropertyTypeCodeSequence[0],
        "SegmentedPropertyTypeModifierCodeSequence",
        term.type_modifiers,
    )
    if regions:
        _add_modifiers(
            item.AnatomicRegionSequence[0],
            "AnatomicRegionModifierSequence",
            term.region_modifiers,
        )
    return item


def _add_modifiers(item: Dataset, keyword: str, modifiers: Sequence[Concept]) -> None:
    if modifiers:
        setattr(item, keyword, DicomSequence([modifier.coded() for modifier in modifiers]))


def _write_frames(
    dataset: Dataset,
    source: Source,
    masks: Sequence[PackedMask],
    references: Sequence[FrameReference],
    identifiers: ResultIdentifiers,
    encoding: Encoding,
) -> None:
    """Write Multi-frame Functional Groups and Dimension (PS3.3 C.7.6.16, C.7.6.17)."""
    plane = plane_of(source)
    frames = _frames(masks, encoding)
    organization_uid = derived_uid(identifiers.segmentation.instance_uid, "dimensions")
    organization, index = dimension_organization(
        organization_uid,
        segments=encoding != "labelmap",
        plane=plane,
        stacked=len(references) > 1 or encoding == "labelmap",
    )
    dataset.DimensionOrganizationSequence = organization
    dataset.DimensionIndexSequence = index
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared_groups(source, plane)])
    dataset[Tag("PerFrameFunctionalGroupsSequence")] = per_frame_groups(frames, references, plane)
    dataset.NumberOfFrames = len(frames)


def _frames(masks: Sequence[PackedMask], encoding: Encoding) -> list[SegmentFrame]:
    """Return the frames to write: those of each segment in turn, or those of the label map."""
    if encoding == "labelmap":
        return [SegmentFrame(None, frame) for frame in filled_frames(masks)]
    return [
        SegmentFrame(number, frame)
        for number, mask in enumerate(masks, start=1)
        for frame in mask.frames.tolist()
    ]


def _probabilities(segment: Segment) -> NDArray[np.uint8]:
    """Return the probabilities of a segment, (frames, rows, columns)."""
    if segment.finding.probabilities is None:
        raise SegmentationError(
            f"finding {segment.index + 1} has no probabilities: encode its mask as BINARY"
        )
    return segment.finding.probabilities


def _write_pixels(
    dataset: Dataset,
    segments: Sequence[Segment],
    masks: Sequence[PackedMask],
    encoding: Encoding,
    compressed: bool,
) -> None:
    if encoding == "binary":
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
        dataset.PixelData = bit_stream(masks, dataset.Rows * dataset.Columns)
        dataset["PixelData"].VR = "OB"
        return
    if encoding == "fractional":
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        _write_plainly(
            dataset,
            b"".join(
                _probabilities(segment)[mask.frames].tobytes()
                for segment, mask in zip(segments, masks, strict=True)
            ),
        )
        return
    labels = label_map([segment.mask for segment in segments], masks)
    bits = labels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelPaddingValue = 0
    dataset["PixelPaddingValue"].VR = "US"
    if not compressed:
        _write_plainly(dataset, labels.astype(labels.dtype.newbyteorder("<")).tobytes())
        return
    frames = labels if len(labels) > 1 else labels[0]
    # Named, because gdcm would be asked first and aborts the process on odd widths.
    dataset.compress(RLELossless, frames, encoding_plugin="pylibjpeg", generate_instance_uid=False)


def _write_plainly(dataset: Dataset, data: bytes) -> None:
    """Write Pixel Data as it is, padded to even length (PS3.5 8.1.1, A.2)."""
    dataset.PixelData = data + b"\x00" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
