"""Secondary captures of what was found, for viewers that show neither SEG nor SR.

Each is one frame of the source with contours, names and the marker burned in: a plain colour image
(PS3.3 A.8, Secondary Capture) that everything shows. It measures nothing and replaces nothing: the
SEG is the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.objects.encoding import new_object
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.pixels import PixelValues
from dicom_node.objects.provenance import (
    AlgorithmIdentity,
    NodeIdentity,
    complete_header,
    marker,
)
from dicom_node.objects.references import FrameReference, frame_references
from dicom_node.objects.rendering import display_limits, draw_frame
from dicom_node.objects.segments import Segment
from dicom_node.objects.series import Source
from inference.findings import Interpretation

KIND: Final = "secondary_capture"
MOST_CAPTURES: Final = 64
_SOURCE_IMAGE: Final = Code("121322", "DCM", "Source image for image processing operation")


def captured_frames(segments: Sequence[Segment], most: int = MOST_CAPTURES) -> list[int]:
    """Return the frames to capture: those with a mask, at most so many, key frames always."""
    if not segments:
        return []
    touched = np.logical_or.reduce([segment.mask.any(axis=(1, 2)) for segment in segments])
    frames = [int(index) for index in np.flatnonzero(touched)]
    keys = {segment.finding.key_frame or 0 for segment in segments}
    if len(frames) > most:
        spread = np.linspace(0, len(frames) - 1, max(1, most - len(keys))).round().astype(int)
        frames = sorted({*(frames[index] for index in spread.tolist()), *keys})
    return frames


def build_captures(
    source: Source,
    pixels: PixelValues,
    segments: Sequence[Segment],
    interpretation: Interpretation,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
) -> list[Dataset]:
    """Build the captures of a job, in the order of the source; none where nothing was found."""
    algorithm = AlgorithmIdentity.of(interpretation, node)
    references = frame_references(source)
    limits = display_limits(pixels)
    captures = []
    for number, frame in enumerate(captured_frames(segments), start=1):
        reference = references[frame]
        picture = draw_frame(
            source,
            pixels,
            segments,
            frame,
            heading=f"image {reference.image_number}  ·  {algorithm.name} {algorithm.version}",
            footer=marker(node),
            limits=limits,
        )
        dataset = _capture(np.asarray(picture, np.uint8), source, reference)
        complete_header(
            dataset,
            source.headers[0],
            kind=KIND,
            pair=identifiers.further(KIND, number),
            identifiers=identifiers,
            node=node,
            algorithm=algorithm,
        )
        dataset.InstanceNumber = number
        if "Laterality" not in dataset and "BodyPartExamined" not in dataset:
            dataset.Laterality = ""  # type 2C: nobody said whether the part is a paired one
        captures.append(dataset)
    return captures


def _capture(picture: np.ndarray, source: Source, reference: FrameReference) -> Dataset:
    """Return SC Equipment, General Image, Image Pixel and SC Image (PS3.3 C.8.6, C.7.6)."""
    dataset = new_object(SecondaryCaptureImageStorage, "OT")
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = ""
    dataset.DerivationDescription = "Contours and names of findings burned in; see SEG and SR"
    # Nothing in the picture tells whose it is.
    dataset.BurnedInAnnotation = "NO"
    lossy = any(header.get("LossyImageCompression") == "01" for header in source.headers)
    if lossy:
        dataset.LossyImageCompression = "01"
    item = reference.item()
    item.PurposeOfReferenceCodeSequence = DicomSequence([_purpose()])
    dataset.SourceImageSequence = DicomSequence([item])
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    data = picture.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
    return dataset


def _purpose() -> Dataset:
    item = Dataset()
    item.CodeValue = _SOURCE_IMAGE.value
    item.CodingSchemeDesignator = _SOURCE_IMAGE.scheme_designator
    item.CodeMeaning = _SOURCE_IMAGE.meaning
    return item
