"""Frames of enhanced images, cines, slides and videos: which are read, and where they lie."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import billiard
import numpy as np
import psutil
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    HEVCMP51,
    MPEG2MPHL,
    MPEG4HP41,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    RLELossless,
)

from dicom_node.errors import RetriableError
from dicom_node.objects import frame_decoding, frame_room, multi_frame, slides
from dicom_node.objects.frame_decoding import stored_frames
from dicom_node.objects.pixels import PixelError, read_pixels
from dicom_node.objects.series import Source, read_sources
from tests.dicom_node.objects.kinds import moving_block
from tests.factories import (
    EIGHT_ORIENTATIONS,
    StudyIdentity,
    code,
    new_uid,
    write_cine,
    write_enhanced,
    write_image,
    write_mr_series,
    write_reconstruction,
    write_slide,
    write_video,
)

VALUES = (np.arange(6 * 8 * 10).reshape(6, 8, 10) % 4093).astype(np.uint16)
LARGE = np.tile(VALUES, (1, 4, 4))  # JPEG 2000 takes no smaller image
COLOURS = np.stack([VALUES, VALUES // 2, VALUES[:, ::-1]], axis=-1).astype(np.uint8)


def only(path: Path) -> Source:
    sources, aside = read_sources([path])
    assert len(sources) == 1 and not aside, aside
    return sources[0]


def reason(path: Path) -> str:
    sources, aside = read_sources([path])
    assert not sources
    return aside[0].reason


# ------------------------------------------------------------------ enhanced images


def test_frames_are_sorted_along_the_normal_and_rescaled(tmp_path: Path) -> None:
    positions = np.array([[0.0, 0.0, z] for z in (4, 0, 2, 10, 8, 6)])
    source = only(write_enhanced(tmp_path / "ct.dcm", VALUES, positions=positions))
    assert source.kind == "volume" and source.modality == "CT"
    assert source.frame_numbers == (2, 3, 1, 6, 5, 4)
    assert source.geometry is not None
    assert source.geometry.positions[:, 2].tolist() == [0, 2, 4, 6, 8, 10]
    pixels = read_pixels(source)
    assert pixels.unit == "HU"
    assert np.array_equal(pixels.values, VALUES[[1, 2, 0, 5, 4, 3]].astype(np.float32) - 1024)


@pytest.mark.parametrize("orientation", EIGHT_ORIENTATIONS)
@pytest.mark.parametrize("step", [5.0, -5.0])
def test_slices_of_a_reconstruction_follow_the_signed_spacing(
    orientation: tuple[float, ...], step: float, tmp_path: Path
) -> None:
    """PS3.3 C.8.4.15: a positive spacing goes along the normal, a negative one against it."""
    first = (-80.0, -60.0, 12.5)
    path = write_reconstruction(
        tmp_path / "nm.dcm", VALUES, step=step, orientation=orientation, position=first
    )
    source = only(path)
    assert source.kind == "volume" and source.modality == "NM" and source.geometry is not None
    normal = np.cross(orientation[:3], orientation[3:])
    expected = np.array(first) + np.arange(6)[:, None] * step * normal
    order = range(6) if step > 0 else range(5, -1, -1)
    assert source.frame_numbers == tuple(index + 1 for index in order)
    assert np.abs(source.geometry.positions - expected[list(order)]).max() <= 1e-3
    assert source.geometry.slice_spacing == pytest.approx(5.0)
    assert source.geometry.spacing == (4.0, 4.0)
    assert np.array_equal(read_pixels(source).values, VALUES[list(order)].astype(np.float32))


def test_time_slots_of_a_gated_reconstruction_are_told_apart(tmp_path: Path) -> None:
    sources, aside = read_sources([write_reconstruction(tmp_path / "nm.dcm", VALUES, slots=2)])
    assert not aside
    assert [source.frame_numbers for source in sources] == [(1, 2, 3), (4, 5, 6)]
    assert all(source.geometry is not None for source in sources)


@pytest.mark.parametrize("lacks", [{"position": None}, {"step": None}])
def test_a_reconstruction_without_places_is_read_frame_by_frame(
    lacks: dict[str, Any], tmp_path: Path
) -> None:
    source = only(write_reconstruction(tmp_path / "nm.dcm", VALUES, **lacks))
    assert source.kind == "image" and source.geometry is None and source.shape == (6, 8, 10)
    assert any("Spacing Between Slices (0018,0088), is absent" in note for note in source.notes)


def test_a_vector_that_describes_other_frames_is_named(tmp_path: Path) -> None:
    path = write_reconstruction(tmp_path / "nm.dcm", VALUES, attributes={"SliceVector": [1, 2, 3]})
    assert reason(path) == "Number of Frames (0028,0008) is 6, but SliceVector describes 3."


def test_an_ultrasound_volume_is_placed_in_the_patient_or_in_itself(tmp_path: Path) -> None:
    volume = VALUES.astype(np.uint8)
    placed = only(write_enhanced(tmp_path / "1.dcm", volume, kind="US volume"))
    assert placed.kind == "volume" and placed.geometry is not None
    assert placed.geometry.frame_of_reference_uid == placed.headers[0].FrameOfReferenceUID
    alone = only(write_enhanced(tmp_path / "2.dcm", volume, kind="US volume, apex"))
    assert alone.kind == "volume" and alone.geometry is not None
    assert alone.geometry.frame_of_reference_uid is None
    assert alone.geometry.positions[:, 2].tolist() == [0, 2, 4, 6, 8, 10]
    assert alone.geometry.voxel_volume_mm3 == placed.geometry.voxel_volume_mm3 == 2.0
    assert any("in a frame of reference of its own" in note for note in alone.notes)


def test_data_types_of_an_ultrasound_volume_are_told_apart(tmp_path: Path) -> None:
    """At every place there is a frame of tissue and one of flow (PS3.3 A.59.1)."""
    path = write_enhanced(tmp_path / "us.dcm", VALUES.astype(np.uint8), kind="US volume", phases=2)
    header = dcmread(path)
    del header.SharedFunctionalGroupsSequence[0].ImageDataTypeSequence
    for index, group in enumerate(header.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.DataType = "TISSUE_INTENSITY" if index < 3 else "FLOW_POWER"
        group.ImageDataTypeSequence = DicomSequence([item])
        group.FrameContentSequence[0].TemporalPositionIndex = 1
    header.save_as(path)
    sources, aside = read_sources([path])
    assert not aside
    assert [source.frame_numbers for source in sources] == [(1, 2, 3), (4, 5, 6)]
    assert "Data Type (0018,9808)" in sources[1].notes[0]


def test_a_part_of_a_concatenation_says_which_it_is(tmp_path: Path) -> None:
    part = {
        "ConcatenationUID": new_uid(), "InConcatenationNumber": 2,
        "InConcatenationTotalNumber": 3, "ConcatenationFrameOffsetNumber": 6,
        "SOPInstanceUIDOfConcatenationSource": new_uid(),
    }  # fmt: skip
    source = only(write_enhanced(tmp_path / "ct.dcm", VALUES, attributes=part))
    assert any(note.startswith("Part 2 of 3 of a concatenation") for note in source.notes)


def test_phases_of_one_image_are_sources_of_their_own(tmp_path: Path) -> None:
    sources, aside = read_sources(
        [write_enhanced(tmp_path / "mr.dcm", VALUES, kind="MR", phases=2)]
    )
    assert not aside
    assert [s.frame_numbers for s in sources] == [(1, 2, 3), (4, 5, 6)]
    assert "Phase 2 of 2 of this series, by Temporal Position" in " ".join(sources[1].notes)
    assert np.array_equal(read_pixels(sources[1]).values, VALUES[3:])


def test_stacks_of_one_image_are_sources_of_their_own(tmp_path: Path) -> None:
    ids = [{"StackID": "A"}] * 2 + [{"StackID": "B"}] * 4
    sources, _ = read_sources(
        [write_enhanced(tmp_path / "mr.dcm", VALUES, kind="MR", frame_attributes=ids)]
    )
    assert [s.frame_numbers for s in sources] == [(1, 2), (3, 4, 5, 6)]
    assert "Stack 2 of 2 of this image" in sources[1].notes[0]


@pytest.mark.parametrize("orientation", EIGHT_ORIENTATIONS)
def test_both_forms_of_a_volume_lie_at_the_same_place(
    orientation: tuple[float, ...], tmp_path: Path
) -> None:
    enhanced = only(write_enhanced(tmp_path / "mr.dcm", VALUES, kind="MR", orientation=orientation))
    series, _ = read_sources(write_mr_series(tmp_path / "s", VALUES, orientation=orientation))
    assert enhanced.geometry is not None and series[0].geometry is not None
    for place in ((0, 0, 0), (5, 7, 9), (2, 3, 4)):
        ours = enhanced.geometry.pixel_to_patient(*place)
        assert np.abs(ours - series[0].geometry.pixel_to_patient(*place)).max() <= 1e-3
    assert np.array_equal(read_pixels(enhanced).values, read_pixels(series[0]).values)


def test_enhanced_pet_becomes_suv(tmp_path: Path) -> None:
    source = only(write_enhanced(tmp_path / "pt.dcm", VALUES, kind="PET", rescale=(2.0, 0.0)))
    pixels = read_pixels(source)
    assert pixels.unit == "SUVbw"
    assert np.allclose(pixels.values, VALUES * 2.0 * 70_000 / 370e6, rtol=1e-5)


@pytest.mark.parametrize("unit", ["Bq/ml", "{SUVbw}g/ml"])
def test_enhanced_pet_says_its_unit_in_its_own_way(unit: str, tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "pt.dcm", VALUES, kind="PET", rescale=(1.0, 0.0))
    dataset = dcmread(path)
    del dataset.Units, dataset.DecayCorrection, dataset.CorrectedImage
    # An hour after the injection at 09:15.
    dataset.DecayCorrectionDateTime = f"{dataset.StudyDate}101500"
    mapping = Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 2.5, 0.0
    mapping.MeasurementUnitsCodeSequence = code(unit, "UCUM", unit)
    dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = DicomSequence(
        [mapping]
    )
    dataset.save_as(path)
    pixels = read_pixels(only(path))
    dose = 370e6 * 2.0 ** (-3600.0 / 6586.2)
    factor = 2.5 if unit != "Bq/ml" else 2.5 * 70_000 / dose
    assert pixels.unit == "SUVbw"
    assert np.allclose(pixels.values, VALUES * factor, rtol=1e-5)


def test_frames_without_a_place_are_looked_at_one_by_one(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "ct.dcm", VALUES)
    dataset = dcmread(path)
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        del groups.PlanePositionSequence
    dataset.save_as(path)
    source = only(path)
    assert source.kind == "image" and source.frame_numbers == (1, 2, 3, 4, 5, 6)
    assert "Plane Position Sequence (0020,9113) is absent" in " ".join(source.notes)


def test_groups_that_contradict_the_image_are_named(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "ct.dcm", VALUES)
    dataset = dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    dataset.save_as(path)
    assert "(5200,9230) describes 5" in reason(path)


# ------------------------------------------------------------------ cines


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, ExplicitVRBigEndian])
def test_each_frame_of_a_cine_is_its_own(syntax: str, tmp_path: Path) -> None:
    frames = LARGE if syntax != ExplicitVRBigEndian else VALUES[:, :7]
    source = only(write_cine(tmp_path / "xa.dcm", frames, kind="XA", transfer_syntax=syntax))
    assert np.array_equal(read_pixels(source).values, frames)


def test_colour_frames_and_single_bits_are_read(tmp_path: Path) -> None:
    colour = only(write_cine(tmp_path / "us.dcm", COLOURS))
    assert np.array_equal(read_pixels(colour).values, COLOURS)
    bits = (VALUES[:, :7, :9] % 3 == 0).astype(np.uint8)
    single = only(write_cine(tmp_path / "sc.dcm", bits, kind="SC single bit"))
    assert np.array_equal(read_pixels(single).values, bits)


def test_subsampled_colour_of_each_frame_is_read(tmp_path: Path) -> None:
    path = write_cine(tmp_path / "us.dcm", COLOURS)
    dataset = dcmread(path)
    # Y Y Cb Cr: neutral chrominance, so that red, green and blue are the luminance.
    pairs = np.full((6, 8, 5, 4), 128, np.uint8)
    pairs[..., :2] = COLOURS[..., 0].reshape(6, 8, 5, 2)
    dataset.PixelData, dataset.PhotometricInterpretation = pairs.tobytes(), "YBR_FULL_422"
    dataset.save_as(path)
    values = read_pixels(only(path)).values
    assert np.abs(values.astype(int) - COLOURS[..., :1]).max() <= 1


def test_of_a_long_cine_every_nth_frame_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_frame, "MOST_PIXELS", 3 * 80)
    source = only(write_cine(tmp_path / "us.dcm", COLOURS))
    assert source.frame_numbers == (1, 3, 5)
    assert "Of 6 frames of 10 x 8 every 2th is looked at." in source.notes
    assert np.array_equal(read_pixels(source).values, COLOURS[::2])


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_more_frames_than_data_are_refused(syntax: str | None, tmp_path: Path) -> None:
    options = {"transfer_syntax": syntax} if syntax else {}
    path = write_cine(tmp_path / "us.dcm", VALUES, kind="XA", **options)  # type: ignore[arg-type]
    dataset = dcmread(path)
    dataset.NumberOfFrames = 2_000_000_000
    dataset.save_as(path)
    assert "Number of Frames (0028,0008) is 2000000000, but Pixel Data (7FE0,0010)" in reason(path)


# ------------------------------------------------------------------ videos


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("syntax", [MPEG2MPHL, MPEG4HP41, HEVCMP51])
def test_videos_are_decoded(syntax: str, fragments: int, tmp_path: Path) -> None:
    frames = moving_block()
    source = only(
        write_video(tmp_path / "v.dcm", frames, transfer_syntax=syntax, fragments=fragments)
    )
    values = read_pixels(source).values
    assert values.shape == frames.shape
    # The block's middle, frame by frame: colours survive the codec nearly, places exactly.
    for index, frame in enumerate(values):
        middle = 40 + 16 * index
        assert np.abs(frame[64, middle].astype(int) - (200, 90, 60)).max() < 16
        assert np.abs(frame[64, middle - 40].astype(int) - 30).max() < 16


def test_a_damaged_video_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.dcm", moving_block())
    path.write_bytes(path.read_bytes().replace(b"moov", b"mooo"))
    with pytest.raises(PixelError, match=r"cannot be decoded .*H\.264"):
        read_pixels(only(path))


# ------------------------------------------------------------------ slides


@pytest.mark.parametrize("sparse", [False, True])
def test_tiles_know_their_place_on_the_slide(sparse: bool, tmp_path: Path) -> None:
    matrix = np.tile(COLOURS[0], (4, 4, 1))[:30, :37]
    source = only(write_slide(tmp_path / "s.dcm", matrix, tile=8, sparse=sparse, pixel_mm=0.002))
    values = read_pixels(source).values
    assert source.calibration == (0.002, 0.002)
    padded = np.full((32, 40, 3), 255, np.uint8)
    padded[:30, :37] = matrix
    for tile, frame in zip(source.tiles, values, strict=True):
        row, column = tile.row - 1, tile.column - 1
        assert np.array_equal(frame, padded[row : row + 8, column : column + 8])
        # Image Orientation (Slide) 0\-1\0\-1\0\0: along a row y falls, down a column x does.
        assert tile.x == pytest.approx(20 - 0.002 * row)
        assert tile.y == pytest.approx(40 - 0.002 * column)


def test_one_level_of_a_slide_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides, "MOST_SLIDE_PIXELS", 20 * 20)
    series, study = new_uid(), StudyIdentity()
    paths = [
        write_slide(
            tmp_path / f"{size}{flavour}.dcm",
            np.zeros((size, size, 3), np.uint8),
            tile=8,
            flavour=flavour,
            series_uid=series,
            study=study,
        )
        for size, flavour in ((40, "VOLUME"), (20, "VOLUME"), (10, "VOLUME"), (9, "LABEL"))
    ]
    sources, aside = read_sources(paths)
    assert [s.paths[0] for s in sources] == [paths[1]]
    reasons = {entry.paths[0]: entry.reason for entry in aside}
    assert "send a coarser level" in reasons[paths[0]]
    assert "A coarser level" in reasons[paths[2]]
    assert "Image Type says LABEL" in reasons[paths[3]]


# ------------------------------------------------------------------ processes and memory


def test_several_processes_decode_the_same(tmp_path: Path) -> None:
    cine = only(write_cine(tmp_path / "xa.dcm", LARGE, kind="XA", transfer_syntax=RLELossless))
    paths = write_mr_series(tmp_path / "mr", LARGE, transfer_syntax=JPEG2000Lossless)
    series = read_sources(paths)[0][0]
    for source in (cine, series):
        found = [stored.values for stored in stored_frames(source, processes=2)]
        assert np.array_equal(found, LARGE)


def test_decoders_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    write_mr_series(tmp_path, LARGE, transfer_syntax=JPEG2000Lossless)
    script = tmp_path / "decode.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from dicom_node.objects.frame_decoding import stored_frames\n"
        "from dicom_node.objects.series import read_sources\n"
        "if __name__ == '__main__':\n"
        f"    sources, _ = read_sources(list(Path({str(tmp_path)!r}).glob('*.dcm')))\n"
        "    frames = stored_frames(sources[0], processes=2)\n"
        "    next(frames)\n"
        "    print('decoding', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"decoding\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 3
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


def test_processes_are_lent_to_slow_decoders_alone(tmp_path: Path) -> None:
    path = write_cine(tmp_path / "xa.dcm", LARGE, kind="XA", transfer_syntax=JPEG2000Lossless)
    source = only(path)
    assert frame_decoding.processes_for(source) == 1
    source.headers[0].Rows = source.headers[0].Columns = 4096
    assert frame_decoding.processes_for(source) == min(8, len(os.sched_getaffinity(0)))
    # A child of a prefork worker must not try: it may have no children.
    child = billiard.Process(target=_exit_with_processes_for, args=(source,), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 1


def _exit_with_processes_for(source: Source) -> None:
    os._exit(frame_decoding.processes_for(source))


def test_what_a_process_refuses_is_refused_here(tmp_path: Path) -> None:
    paths = write_mr_series(tmp_path / "mr", LARGE, transfer_syntax=JPEG2000Lossless)
    source = read_sources(paths)[0][0]
    data = source.paths[2].read_bytes()
    source.paths[2].write_bytes(data[:-300] + b"\xff" * 292 + data[-8:])
    with pytest.raises(PixelError, match="cannot be decoded"):
        list(stored_frames(source, processes=2))


def test_values_larger_than_memory_go_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_room, "_PART_OF_MEMORY", 1 << 40)
    source = only(write_cine(tmp_path / "us.dcm", COLOURS))
    pixels = read_pixels(source, tmp_path)
    assert isinstance(pixels.values, np.memmap)
    assert np.array_equal(pixels.values, COLOURS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["us.dcm"]
    with pytest.raises(RetriableError, match="cannot hold them"):
        read_pixels(source, tmp_path / "absent")


def test_a_frame_larger_than_memory_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Little:
        available = 100

    monkeypatch.setattr("psutil.virtual_memory", Little)
    source = only(write_image(tmp_path / "cr.dcm", VALUES[0], kind="CR"))
    with pytest.raises(PixelError, match=r"larger than memory: Rows \(0028,0010\) 8 x Columns"):
        read_pixels(source)


# ------------------------------------------------------------------ grayscale


@pytest.mark.parametrize("bits", [1, 12, 16, 32])
def test_any_number_of_bits_is_read(bits: int, tmp_path: Path) -> None:
    kind = {1: np.uint8, 32: np.uint32}.get(bits, np.uint16)
    values = VALUES[0].astype(kind) & ((1 << bits) - 1)
    source = only(write_image(tmp_path / "dx.dcm", values, kind="DX", bits_stored=bits))
    assert np.array_equal(read_pixels(source).values[0], values)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_voi_lut_is_applied_where_there_is_no_window(photometric: str, tmp_path: Path) -> None:
    path = write_image(
        tmp_path / "dx.dcm", VALUES[0], kind="DX", bits_stored=12, photometric=photometric
    )
    dataset = dcmread(path)
    del dataset.WindowCenter, dataset.WindowWidth
    lut = Dataset()
    table = (np.arange(80)[::-1] * 3).astype(np.uint16)
    lut.LUTDescriptor, lut.LUTData = [80, 0, 8], table.tolist()
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    dataset.VOILUTSequence = DicomSequence([lut])
    dataset.save_as(path)
    pixels = read_pixels(only(path))
    shown = table[VALUES[0]]
    expected = shown if photometric == "MONOCHROME2" else 255 - shown
    assert np.array_equal(pixels.values[0], expected)
    assert "VOI LUT Sequence (0028,3010) applied" in pixels.description
