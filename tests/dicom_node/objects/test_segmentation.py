"""Segmentations: what the standard's validator and other readers make of them."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import highdicom
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from dicom_node.objects import conformance, conformance_tools
from dicom_node.objects.encoding import encode
from dicom_node.objects.geometry import Geometry
from dicom_node.objects.segmentation import build_segmentation
from dicom_node.objects.segmentation_encoding import Encoding, choose_encoding, is_aligned
from dicom_node.objects.segmentation_reading import read_segmentation
from dicom_node.objects.segments import SegmentationError, segments_of
from dicom_node.objects.series import Source, read_sources
from inference.findings import Interpretation
from tests.dicom_node.objects.example_results import (
    IDENTIFIERS,
    NODE,
    example,
    finding,
    interpretation,
    make_source,
    run,
    two_masks,
)
from tests.factories import (
    EIGHT_ORIENTATIONS,
    plane_positions,
    write_cine,
    write_enhanced,
    write_mr_series,
)

ENCODINGS: tuple[Encoding, ...] = ("binary", "labelmap")


def segmentation(
    source: Source, given: Interpretation | None = None, encoding: Encoding = "binary"
) -> Dataset:
    """Return the SEG of some findings as a receiver reads it."""
    built = build_segmentation(
        source, given or example(source), IDENTIFIERS, NODE, encoding=encoding
    )
    assert built is not None
    return dcmread(BytesIO(encode(built)))


def masks_of(given: Interpretation) -> list[NDArray[np.bool_]]:
    return [segment.mask for segment in segments_of(given)]


def read_back(dataset: Dataset, source: Source) -> NDArray[np.bool_]:
    """Return highdicom's view of the masks: (segments, frames, rows, columns)."""
    reader = highdicom.seg.Segmentation.from_dataset(dataset)
    if source.frame_numbers:
        values = reader.get_pixels_by_source_frame(
            source.sop_instance_uids[0],
            source.frame_numbers,
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )
    else:
        values = reader.get_pixels_by_source_instance(
            source.sop_instance_uids,
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )
    return np.moveaxis(np.asarray(values, dtype=np.bool_), -1, 0)


def test_nothing_found_makes_no_object(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    nothing = interpretation([finding("polyp", None)])
    assert build_segmentation(source, nothing, IDENTIFIERS, NODE) is None


def test_segments_are_described_in_full(tmp_path: Path) -> None:
    dataset = segmentation(make_source("CT", tmp_path))
    hippocampus, cyst = dataset.SegmentSequence
    assert [hippocampus.SegmentNumber, cyst.SegmentNumber] == [1, 2]
    assert hippocampus.SegmentLabel == "anterior hippocampus"
    assert hippocampus.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    kind = hippocampus.SegmentedPropertyTypeCodeSequence[0]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "255549009"
    region = cyst.AnatomicRegionSequence[0]
    assert region.CodeValue == "64033007"
    assert region.AnatomicRegionModifierSequence[0].CodeValue == "7771000"
    # The absent finding between them keeps its number: F1 and F3.
    assert [item.TrackingID for item in dataset.SegmentSequence] == ["F1", "F3"]
    assert [item.TrackingUID for item in dataset.SegmentSequence] == [
        IDENTIFIERS.tracking_uid(0),
        IDENTIFIERS.tracking_uid(2),
    ]
    for item in dataset.SegmentSequence:
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert len(item.RecommendedDisplayCIELabValue) == 3
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert "ab" * 32 in algorithm.AlgorithmParameters


def test_a_long_name_is_cut_and_a_backslash_does_not_part_it(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    name = "left\\right " + "very long name of a thing " * 5
    mask, _ = two_masks(source.shape)
    dataset = segmentation(source, interpretation([finding(name, mask)]))
    label = dataset.SegmentSequence[0].SegmentLabel
    assert len(label) <= 64 and label.startswith("left/right very long")


def test_empty_frames_are_left_out_and_each_frame_names_its_source(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    given = example(source)
    dataset = segmentation(source, given)
    filled = [
        (number, index)
        for number, mask in enumerate(masks_of(given), start=1)
        for index in np.flatnonzero(mask.any(axis=(1, 2)))
    ]
    assert dataset.NumberOfFrames == len(filled)
    assert source.geometry is not None
    frames = zip(dataset.PerFrameFunctionalGroupsSequence, filled, strict=True)
    for frame, (number, index) in frames:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.sop_instance_uids[index]
        assert image.SpatialLocationsPreserved == "YES"
        assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
        position = [float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
        assert np.allclose(position, source.geometry.positions[index], atol=1e-3)
    listed = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert [item.ReferencedSOPInstanceUID for item in listed] == list(source.sop_instance_uids)


@pytest.mark.parametrize("kind", ["CT", "CR", "US"])
def test_the_shared_groups_are_never_empty(kind: str, tmp_path: Path) -> None:
    source = make_source(kind, tmp_path)
    dataset = segmentation(source)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    measures = shared.PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) > 0
    if kind == "CT":
        assert list(measures.PixelSpacing) == [1.0, 1.0]
        assert dataset.FrameOfReferenceUID == source.headers[0].FrameOfReferenceUID
    else:
        assert [float(v) for v in orientation] == [1, 0, 0, 0, 1, 0]
        assert "FrameOfReferenceUID" not in dataset
        assert "PatientOrientation" in dataset
        assert "PlanePositionSequence" not in dataset.PerFrameFunctionalGroupsSequence[0]


@pytest.mark.parametrize(
    ("kind", "spacing"), [("CR", (0.2, 0.3)), ("US", (0.5, 0.5)), ("XC", (0.1, 0.1))]
)
def test_pixel_measures_take_the_best_calibration(
    kind: str, spacing: tuple[float, float], tmp_path: Path
) -> None:
    dataset = segmentation(make_source(kind, tmp_path, spacing=spacing))
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(value) for value in measures.PixelSpacing] == pytest.approx(spacing)


def test_a_label_map_has_no_item_for_the_background(tmp_path: Path) -> None:
    dataset = segmentation(make_source("CT", tmp_path), encoding="labelmap")
    assert dataset.SegmentationType == "LABELMAP"
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5"
    assert [item.SegmentNumber for item in dataset.SegmentSequence] == [1, 2]
    assert dataset.PixelPaddingValue == 0


@pytest.mark.parametrize("many", [2, 300])
def test_a_label_map_that_is_not_compressed_holds_the_same(many: int, tmp_path: Path) -> None:
    """With 300 segments its values take 16 bits."""
    source = make_source("CT", tmp_path, shape=(2, 33, 37))
    masks = np.zeros((many, *source.shape), np.bool_)
    for number, mask in enumerate(masks):
        mask.reshape(-1)[number * 8 : number * 8 + 5] = True
    found = interpretation([finding("liver", mask) for mask in masks], len(source.headers))
    built = [
        build_segmentation(
            source, found, IDENTIFIERS, NODE, encoding="labelmap", compressed=compressed
        )
        for compressed in (True, False)
    ]
    assert built[0] is not None and built[1] is not None
    assert built[1].file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert len(built[1].PixelData) % 2 == 0
    again = [dcmread(BytesIO(encode(one))).pixel_array for one in built if one]
    assert np.array_equal(again[0], again[1])
    assert len(np.unique(again[1])) == many + 1
    assert not [one for one in conformance.check([built[1]], source.headers)
                if one.severity == "error"]  # fmt: skip


def test_overlapping_segments_are_kept_apart(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    first, second = two_masks(source.shape)
    given = interpretation([finding("liver", first | second), finding("tumor", second)])
    dataset = segmentation(source, given)
    assert dataset.SegmentsOverlap == "YES"
    assert np.array_equal(read_back(dataset, source), masks_of(given))
    with pytest.raises(SegmentationError, match="overlap"):
        build_segmentation(source, given, IDENTIFIERS, NODE, encoding="labelmap")


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    mask = np.ones((6, 32, 39), np.bool_)
    with pytest.raises(SegmentationError, match="32, 39"):
        build_segmentation(source, interpretation([finding("liver", mask)]), IDENTIFIERS, NODE)


def test_loss_in_any_source_image_is_inherited(tmp_path: Path) -> None:
    lossy = ["00", "00", "01", "00", "00", "00"]
    source = make_source(
        "CT",
        tmp_path,
        per_frame={"LossyImageCompression": lossy},
        attributes={
            "LossyImageCompressionRatio": "12.5",
            "LossyImageCompressionMethod": "ISO_10918_1",
        },
    )
    dataset = segmentation(source)
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionRatio == 12.5


@pytest.mark.parametrize(
    ("shape", "setting", "garbles", "expected"),
    [
        ((6, 32, 40), "auto", True, "binary"),
        ((6, 33, 37), "auto", False, "binary"),
        ((6, 33, 37), "auto", True, "labelmap"),
        ((6, 33, 37), "binary", True, "binary"),
        ((6, 32, 40), "labelmap", False, "labelmap"),
    ],
)
def test_the_encoding_suits_the_destination(
    shape: tuple[int, int, int], setting: Any, garbles: bool, expected: str, tmp_path: Path
) -> None:
    source = make_source("CT", tmp_path, shape=shape)
    encoding, sentence = choose_encoding(
        setting, source, example(source), garbles_unaligned=garbles
    )
    assert encoding == expected
    assert sentence.startswith(expected.upper()) and sentence.endswith(".")


def test_overlap_rules_a_label_map_out(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path, shape=(6, 33, 37))
    first, second = two_masks(source.shape)
    given = interpretation([finding("liver", first | second), finding("tumor", second)])
    wishes: tuple[Literal["auto", "labelmap"], ...] = ("auto", "labelmap")
    for wish in wishes:
        encoding, sentence = choose_encoding(wish, source, given, garbles_unaligned=True)
        assert encoding == "binary" and "overlap" in sentence


def with_probabilities(given: Interpretation) -> Interpretation:
    """Give each mask probabilities: a slope that is above one half just inside of it."""
    findings = []
    for one in given.findings:
        if one.mask is not None:
            slope = np.indices(one.mask.shape).sum(axis=0) % 100
            values = np.where(one.mask, 128 + slope, slope).astype(np.uint8)
            one = dataclasses.replace(one, probabilities=values)
        findings.append(one)
    return dataclasses.replace(given, findings=tuple(findings))


@pytest.mark.parametrize("shape", [(6, 32, 40), (3, 33, 35)])
def test_probabilities_are_written_where_they_are_asked_for(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    source = make_source("CT", tmp_path, shape=shape)
    given = with_probabilities(example(source))
    encoding, why = choose_encoding("fractional", source, given)
    assert (encoding, why[:24]) == ("fractional", "FRACTIONAL probabilities")
    dataset = segmentation(source, given, encoding)
    file = tmp_path / "seg.dcm"
    file.write_bytes(encode(dataset))
    assert conformance_tools.validate(file, "seg") == []
    reader = highdicom.seg.Segmentation.from_dataset(dataset)
    read = reader.get_pixels_by_source_instance(
        source.sop_instance_uids, assert_missing_frames_are_empty=True, rescale_fractional=False
    )
    expected = [one.probabilities for one in given.findings if one.probabilities is not None]
    assert np.array_equal(np.moveaxis(read, -1, 0), expected)
    # A reader of masks sees the masks.
    masks = np.zeros((2, *source.shape), np.bool_)
    for one in read_segmentation(file).masks():
        masks[one.segment - 1, source.sop_instance_uids.index(one.sop_instance_uid)] = one.mask
    assert np.array_equal(masks, masks_of(given))


def test_without_probabilities_the_mask_is_written(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    encoding, why = choose_encoding("fractional", source, example(source))
    assert encoding == "binary" and "all destinations of a job ask" in why
    with pytest.raises(SegmentationError, match="has no probabilities"):
        segmentation(source, encoding="fractional")


@pytest.mark.parametrize(
    ("rows", "columns", "frames", "safe"),
    [(512, 512, 3, True), (178, 197, 2, False), (180, 198, 9, False), (180, 198, 8, True)],
)
def test_alignment_is_what_ohif_was_seen_to_need(
    rows: int, columns: int, frames: int, safe: bool
) -> None:
    # The last of the refused ones has whole bytes, but an odd number of them.
    assert is_aligned(rows, columns, frames) is (safe and rows * columns % 8 == 0)


def dcmqi(file: Path, folder: Path) -> list[SimpleITK.Image]:
    """Return the images that dcmqi makes of a SEG; an exit code of 0 alone says nothing."""
    program = Path(sys.executable).parent / "segimage2itkimage"
    if not program.exists():
        pytest.skip("needs the dcmqi wheel")
    folder.mkdir()
    run(program, "--inputDICOM", file, "--outputDirectory", folder, "-t", "nrrd", "-p", "seg")
    files = sorted(folder.glob("seg-*.nrrd"))
    assert files, "dcmqi wrote no image"
    return [SimpleITK.ReadImage(str(path)) for path in files]


def points(mask: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.float64]:
    """Return the place of each voxel of a mask in the patient, mm, (voxels, 3)."""
    frames, rows, columns = np.nonzero(mask)
    along_row = np.array(geometry.orientation[:3]) * geometry.spacing[1]
    along_column = np.array(geometry.orientation[3:]) * geometry.spacing[0]
    return np.asarray(
        geometry.positions[frames] + columns[:, None] * along_row + rows[:, None] * along_column
    )


def places_in(image: SimpleITK.Image, number: int) -> NDArray[np.float64]:
    """Return the place of each voxel of an image that has a value, mm, (voxels, 3)."""
    indices = np.argwhere(SimpleITK.GetArrayViewFromImage(image) == number)[:, ::-1]
    axes = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    return np.asarray(np.array(image.GetOrigin()) + indices @ axes.T)


def assert_same_in_patient_space(
    images: Sequence[SimpleITK.Image], given: Interpretation, source: Source
) -> None:
    """Hold that dcmqi's voxels are the masks' voxels, in patient space."""
    assert source.geometry is not None
    for number, mask in enumerate(masks_of(given), start=1):
        expected = points(mask, source.geometry)
        got = np.concatenate([places_in(image, number) for image in images])
        assert got.shape == expected.shape
        # In whatever order: each place has its like among the others.
        for some, others in ((expected, got), (got, expected)):
            distances, _ = cKDTree(others).query(some, distance_upper_bound=0.02)
            assert np.isfinite(distances).all()


@pytest.mark.parametrize("orientation", EIGHT_ORIENTATIONS)
def test_dcmqi_finds_the_voxels_in_patient_space(
    orientation: tuple[float, ...], tmp_path: Path
) -> None:
    source = make_source(
        "CT",
        tmp_path / "source",
        shape=(5, 16, 18),
        orientation=orientation,
        spacing=(0.7, 0.9),
        slice_spacing=2.5,
    )
    given = example(source)
    file = tmp_path / "seg.dcm"
    file.write_bytes(encode(segmentation(source, given)))
    assert_same_in_patient_space(dcmqi(file, tmp_path / "out"), given, source)


def test_dcmqi_reads_label_maps_and_missing_slices(tmp_path: Path) -> None:
    whole = make_source("CT", tmp_path / "whole")
    gaps = make_source("CT", tmp_path / "gaps", skip={2})
    for name, source, encoding in (("a", whole, ENCODINGS[1]), ("b", gaps, ENCODINGS[0])):
        given = example(source)
        file = tmp_path / f"{name}.dcm"
        file.write_bytes(encode(segmentation(source, given, encoding)))
        assert_same_in_patient_space(dcmqi(file, tmp_path / name), given, source)


def test_a_tilted_gantry_keeps_its_positions(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path, tilt_degrees=15.0)
    given = example(source)
    assert np.array_equal(read_back(segmentation(source, given), source), masks_of(given))


def test_a_volume_without_a_frame_of_reference_is_told_by_its_images(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    assert source.geometry is not None
    geometry = dataclasses.replace(source.geometry, frame_of_reference_uid=None)
    loose = dataclasses.replace(source, geometry=geometry)
    given = example(loose)
    for encoding in ENCODINGS:
        dataset = segmentation(loose, given, encoding)
        file = tmp_path / f"{encoding}.dcm"
        file.write_bytes(encode(dataset))
        assert conformance_tools.validate(file, encoding) == []
        assert np.array_equal(read_back(dataset, loose), masks_of(given))


def test_a_frame_of_reference_without_positions_is_left_out(tmp_path: Path) -> None:
    source = make_source("DX", tmp_path, attributes={"FrameOfReferenceUID": "2.25.77"})
    dataset = segmentation(source)
    assert "FrameOfReferenceUID" not in dataset
    file = tmp_path / "seg.dcm"
    file.write_bytes(encode(dataset))
    assert [p for p in conformance.check([file], source.headers) if p.severity == "error"] == []


@pytest.mark.filterwarnings("ignore")
def test_numbers_longer_than_a_decimal_string_are_rounded(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "oct.dcm", np.zeros((3, 16, 16), np.uint8), kind="OCT")
    header = dcmread(path)
    measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    # As devices write them: 18 characters where 16 are allowed.
    measures.PixelSpacing = ["0.6000000000000001", "0.3333333333333333"]
    header.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = [
        "-10.00000000000001", "20", "32.00000000000001",
    ]  # fmt: skip
    header.save_as(path)
    (source,), _ = read_sources([path])
    dataset = segmentation(source)
    file = tmp_path / "seg.dcm"
    file.write_bytes(encode(dataset))
    assert conformance_tools.validate(file, "seg") == []
    spacing = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert [float(value) for value in spacing] == pytest.approx([0.6, 1 / 3])


def test_one_frame_of_a_single_frame_class_is_not_referred_to_by_number(tmp_path: Path) -> None:
    source = make_source("SC", tmp_path, attributes={"NumberOfFrames": 1})
    dataset = segmentation(source)
    image = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert "ReferencedFrameNumber" not in image.SourceImageSequence[0]
    fundus = segmentation(make_source("OP", tmp_path / "fundus"))
    image = fundus.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert image.SourceImageSequence[0].ReferencedFrameNumber == 1


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_cine_without_geometry_is_told_by_its_frames(encoding: Encoding, tmp_path: Path) -> None:
    path = write_cine(tmp_path / "cine.dcm", np.zeros((6, 32, 40), np.uint8))
    (source,), _ = read_sources([path])
    first, second = two_masks((6, 32, 40))
    given = interpretation([finding("left ventricle", first), finding("mass", second)])
    dataset = segmentation(source, given, encoding)
    file = tmp_path / "seg.dcm"
    file.write_bytes(encode(dataset))
    assert conformance_tools.validate(file, "seg") == []
    assert np.array_equal(read_back(dataset, source), masks_of(given))


SHAPES = hypothesis_numpy.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)


@settings(max_examples=12, deadline=None)
@given(data=st.data(), shape=SHAPES)
def test_random_masks_survive_writing_and_reading(
    data: st.DataObject, shape: tuple[int, int, int]
) -> None:
    strategy = hypothesis_numpy.arrays(np.bool_, shape).filter(lambda mask: bool(mask.any()))
    masks = data.draw(st.lists(strategy, min_size=1, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        source = make_source("MR", Path(folder), shape=shape)
        given = interpretation([finding(f"thing {n}", mask) for n, mask in enumerate(masks)])
        assert np.array_equal(read_back(segmentation(source, given), source), masks)
        if np.sum(masks, axis=0).max() == 1:
            label_map = segmentation(source, given, "labelmap")
            assert np.array_equal(read_back(label_map, source), masks)


DrawnStack = tuple[tuple[float, ...], NDArray[np.float64], tuple[float, float]]


@st.composite
def stacks(draw: st.DrawFn) -> DrawnStack:
    """Draw an orientation, positions that may be tilted and uneven, and a spacing."""
    angles = draw(st.tuples(*[st.floats(-np.pi, np.pi)] * 3))
    turn = Rotation.from_euler("zyx", angles).as_matrix()
    count = draw(st.integers(1, 5))
    gaps = draw(st.lists(st.floats(0.3, 8.0), min_size=count - 1, max_size=count - 1))
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    tilt = draw(st.floats(-0.5, 0.5))
    origin = np.array(draw(st.tuples(*[st.floats(-900, 900)] * 3)))
    positions = origin + along[:, None] * (turn[:, 2] + tilt * turn[:, 1])
    spacing = draw(st.tuples(st.floats(0.05, 5.0), st.floats(0.05, 5.0)))
    return (*turn[:, 0].tolist(), *turn[:, 1].tolist()), positions, spacing


@settings(max_examples=15, deadline=None)
@given(stack=stacks(), enhanced=st.booleans())
def test_random_geometries_survive_writing_and_reading(stack: DrawnStack, enhanced: bool) -> None:
    assert_geometry_survives(*stack, enhanced=enhanced)


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("tilt", [0.0, 17.0])
@pytest.mark.parametrize("orientation", EIGHT_ORIENTATIONS)
def test_eight_orientations_survive_with_tilt_and_uneven_spacing(
    orientation: tuple[float, ...], tilt: float, enhanced: bool
) -> None:
    positions = plane_positions(
        9, orientation=orientation, slice_spacing=1.3, tilt_degrees=tilt, origin=(-123.4, 56.7, 890)
    )
    assert_geometry_survives(
        orientation, positions[[0, 1, 2, 4, 8]], (0.703125, 0.488281), enhanced=enhanced
    )


def assert_geometry_survives(
    orientation: tuple[float, ...],
    positions: NDArray[np.float64],
    spacing: tuple[float, float],
    *,
    enhanced: bool,
) -> None:
    """Hold the corners of every frame to a thousandth of a millimetre through SEG."""
    given_spacing = tuple(float(f"{value:.8g}") for value in spacing)
    values = np.zeros((len(positions), 5, 7), np.uint16)
    options: dict[str, Any] = {
        "orientation": orientation, "positions": positions, "spacing": given_spacing,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if enhanced:
            paths = [write_enhanced(folder / "mr.dcm", values, kind="MR", **options)]
        else:
            paths = write_mr_series(folder, values, **options)
        (source,), aside = read_sources(paths)
    assert not aside and source.shape == values.shape
    mask = np.zeros(source.shape, np.bool_)
    mask[:, 1:4, 2:5] = True
    given = interpretation([finding("liver", mask)], len(mask))
    dataset = segmentation(source, given)
    assert np.array_equal(read_back(dataset, source), masks_of(given))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64)
    for frame, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        # The corner that lies farthest away, by the object alone and by what was put in.
        corner = origin + 6 * columns * cosines[:3] + 4 * rows * cosines[3:]
        expected = (
            positions[frame]
            + 6 * given_spacing[1] * np.array(orientation[:3])
            + 4 * given_spacing[0] * np.array(orientation[3:])
        )
        assert np.abs(corner - expected).max() <= 1e-3


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize("folder", ["udacity/Study3/11_HCropVolume", "ibsi-sts/STS_014/PET/image"])
def test_real_series_go_through_dcmqi(shared_data: Path, folder: str, tmp_path: Path) -> None:
    files = [path for path in (shared_data / "dicom" / folder).rglob("*") if path.is_file()]
    if not files:
        pytest.skip(f"{folder} is not among the shared data")
    (source,), _ = read_sources(files)
    given = example(source)
    dataset = segmentation(source, given)
    assert np.array_equal(read_back(dataset, source), masks_of(given))
    file = tmp_path / "seg.dcm"
    file.write_bytes(encode(dataset))
    assert_same_in_patient_space(dcmqi(file, tmp_path / "out"), given, source)
