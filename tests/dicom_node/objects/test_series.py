"""Grouping, sorting, splitting and setting aside of a study's files."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from dicom_node.errors import RetriableError
from dicom_node.objects.pixels import read_pixels
from dicom_node.objects.series import SetAside, Source, read_sources
from tests.dicom_node.objects.conftest import RealData
from tests.factories import (
    CORONAL,
    EIGHT_ORIENTATIONS,
    REMOVE,
    ImageKind,
    StudyIdentity,
    new_uid,
    plane_positions,
    strip_meta,
    truncate,
    write_ct_series,
    write_image,
    write_localizer,
    write_mr_series,
    write_pet_series,
    write_text_report,
    write_two_phase_ct,
)

VOLUME = np.arange(6, dtype=np.int16)[:, None, None] * np.ones((6, 8, 10), np.int16)


def only(found: tuple[list[Source], list[SetAside]]) -> Source:
    sources, aside = found
    assert not aside, [a.reason for a in aside]
    assert len(sources) == 1
    return sources[0]


def reasons(found: tuple[list[Source], list[SetAside]]) -> str:
    return " | ".join(a.reason for a in found[1])


@pytest.mark.parametrize("orientation", EIGHT_ORIENTATIONS)
def test_slices_are_sorted_along_their_normal(tmp_path: Path, orientation: list[float]) -> None:
    written = write_ct_series(tmp_path, VOLUME, orientation=orientation)
    shuffled = written[:]
    random.Random(3).shuffle(shuffled)
    source = only(read_sources(shuffled))
    assert source.kind == "volume"
    assert source.modality == "CT"
    assert source.shape == (6, 8, 10)
    assert source.geometry is not None
    assert np.all(np.diff(source.geometry.distances()) > 0)
    assert list(source.paths) == written
    assert source.sop_instance_uids == tuple(str(h.SOPInstanceUID) for h in source.headers)
    assert all("PixelData" not in h for h in source.headers)
    assert source.notes == ()


def test_series_of_a_study_are_apart_and_in_order_of_their_number(tmp_path: Path) -> None:
    study = StudyIdentity()
    paths = write_pet_series(tmp_path / "b", VOLUME, study=study, series_number=7)
    paths += write_mr_series(tmp_path / "a", VOLUME, study=study, series_number=2)
    sources, aside = read_sources(paths)
    assert [s.modality for s in sources] == ["MR", "PT"]
    assert not aside
    assert {s.study_instance_uid for s in sources} == {study.study_instance_uid}


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", (3, 4)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("TriggerTime", (0, 400)),
        ("EchoTime", (15, 90)),
        ("ContentTime", ("101500", "101700")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL"])),
    ],
)
def test_positions_that_occur_twice_are_two_phases(
    tmp_path: Path, keyword: str, values: tuple[object, object]
) -> None:
    study = StudyIdentity()
    first, second = VOLUME, VOLUME + 100
    paths = write_two_phase_ct(
        tmp_path, first, second, study=study, phase_keyword=keyword, phase_values=values
    )
    sources, aside = read_sources(list(reversed(paths)))
    assert not aside
    assert len(sources) == 2
    ordered = sorted(sources, key=lambda s: s.paths[0].parent.name)
    assert list(ordered[0].paths) == paths[:6]
    assert list(ordered[1].paths) == paths[6:]
    assert all("of 2" in s.notes[0] for s in sources)


def test_phases_that_nothing_tells_apart_are_split_by_order_and_said_so(tmp_path: Path) -> None:
    paths = write_two_phase_ct(tmp_path, VOLUME, VOLUME, phase_keyword=None)
    sources, aside = read_sources(paths)
    assert not aside
    assert [list(s.paths) for s in sources] == [paths[:6], paths[6:]]
    assert "no attribute tells them apart" in sources[0].notes[0]


def test_phases_are_in_order_of_number_not_of_text(tmp_path: Path) -> None:
    study, series = StudyIdentity(), new_uid()
    for phase in (10, 9, 2):
        write_ct_series(
            tmp_path / str(phase),
            VOLUME[:2],
            study=study,
            series_uid=series,
            first_instance=phase * 10,
            attributes={"AcquisitionNumber": phase},
        )
    sources, _ = read_sources(sorted(tmp_path.rglob("*.dcm")))
    assert [int(s.headers[0].AcquisitionNumber) for s in sources] == [2, 9, 10]


def test_localizer_odd_matrix_and_odd_direction_are_set_aside(tmp_path: Path) -> None:
    study, series = StudyIdentity(), new_uid()
    paths = write_ct_series(tmp_path / "a", VOLUME, study=study, series_uid=series)
    localizer = write_localizer(tmp_path, study=study, series_uid=series)
    matrix = write_ct_series(tmp_path / "m", VOLUME[:1, :4, :4], study=study, series_uid=series)
    turned = write_ct_series(
        tmp_path / "t", VOLUME[:2], study=study, series_uid=series, orientation=CORONAL
    )
    spacing = write_ct_series(
        tmp_path / "s", VOLUME[:1], study=study, series_uid=series, spacing=(0.5, 0.5),
        origin=(0, 0, 900),
    )  # fmt: skip
    elsewhere = write_ct_series(
        tmp_path / "f", VOLUME[:1], study=study, series_uid=series, origin=(0, 0, 901),
        attributes={"FrameOfReferenceUID": new_uid()},
    )  # fmt: skip
    found = read_sources([localizer, *matrix, *turned, *spacing, *elsewhere, *paths])
    assert [list(s.paths) for s in found[0]] == [paths]
    text = reasons(found)
    for words in ("localizer", "matrix 4 x 4", "not parallel", "Pixel Spacing", "Frame of Ref"):
        assert words in text
    assert sum(len(a.paths) for a in found[1]) == 6
    assert all(len(a.sop_instance_uids) == len(a.paths) for a in found[1])


def test_missing_slices_are_counted_and_noted(tmp_path: Path) -> None:
    source = only(read_sources(write_ct_series(tmp_path, np.zeros((12, 4, 4)), skip={4, 5, 9})))
    assert source.geometry is not None
    assert source.geometry.missing == (3, 3, 6)
    assert source.geometry.slice_spacing == pytest.approx(2.0)
    assert not source.geometry.uniform
    assert "3 slices are missing (2 after slice 4, 1 after slice 7" in source.notes[0]


def test_gantry_tilt_is_found_from_the_positions(tmp_path: Path) -> None:
    source = only(read_sources(write_ct_series(tmp_path, VOLUME, tilt_degrees=15.0)))
    assert source.geometry is not None
    assert source.geometry.tilted
    assert source.geometry.slice_spacing == pytest.approx(2.0)
    assert "15.0 degrees" in source.notes[0]


def test_uneven_and_shifted_slices_are_noted(tmp_path: Path) -> None:
    positions = plane_positions(6)
    positions[:, 2] = [0, 2, 4, 7.1, 10.3, 13.3]
    positions[3, 0] += 5.0
    source = only(read_sources(write_ct_series(tmp_path, VOLUME, positions=positions)))
    assert source.geometry is not None
    assert not source.geometry.uniform
    assert not source.geometry.missing
    assert "unevenly spaced: 2 to 3.2 mm" in " ".join(source.notes)
    assert "shifted against each other by up to 5.0 mm" in " ".join(source.notes)


def test_one_slice_is_a_volume_whose_thickness_is_slice_thickness(tmp_path: Path) -> None:
    source = only(read_sources(write_mr_series(tmp_path, VOLUME[:1], slice_spacing=3.5)))
    assert source.kind == "volume"
    assert source.geometry is not None
    assert source.geometry.slice_spacing == 3.5
    bare = write_mr_series(tmp_path / "b", VOLUME[:1], attributes={"SliceThickness": REMOVE})
    source = only(read_sources(bare))
    assert source.geometry is not None
    assert source.geometry.slice_spacing == 0.0
    assert "Slice Thickness (0018,0050)" in source.notes[0]


def test_slices_without_position(tmp_path: Path) -> None:
    bare = {"ImagePositionPatient": REMOVE, "ImageOrientationPatient": REMOVE}
    alone = only(read_sources(write_ct_series(tmp_path / "1", VOLUME[:1], attributes=bare)))
    assert alone.kind == "image"
    assert alone.geometry is None
    assert "Image Position (Patient)" in alone.notes[0]
    several = read_sources(write_ct_series(tmp_path / "6", VOLUME, attributes=bare))
    assert several[0] == []
    assert len(several[1][0].paths) == 6
    assert "where in the stack" in reasons(several)
    mixed = write_ct_series(
        tmp_path / "m", VOLUME,
        per_frame={"ImagePositionPatient": [[0, 0, z] for z in range(5)] + [""]},
    )  # fmt: skip
    sources, aside = read_sources(mixed)
    assert len(sources[0].paths) == 5
    assert aside[0].paths == (mixed[5],)


@pytest.mark.parametrize(
    "orientation", [[0] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0], [1, 0, 0]]
)
def test_absurd_orientation_is_none(tmp_path: Path, orientation: list[float]) -> None:
    paths = write_ct_series(
        tmp_path, VOLUME[:1], attributes={"ImageOrientationPatient": orientation}
    )
    assert only(read_sources(paths)).geometry is None


@pytest.mark.parametrize("spacing", [[0, 0], REMOVE, "", [-1, 1], [0.5, 900], [0.7]])
def test_spacing_that_cannot_be_gives_no_millimetres(tmp_path: Path, spacing: object) -> None:
    source = only(
        read_sources(write_ct_series(tmp_path, VOLUME, attributes={"PixelSpacing": spacing}))
    )
    assert source.kind == "volume"
    assert source.geometry is None
    assert source.calibration is None
    assert "Pixel Spacing (0028,0030)" in source.notes[0]
    assert [h.InstanceNumber for h in source.headers] == [1, 2, 3, 4, 5, 6]


def test_modality_is_taken_from_the_class_where_it_is_absent(tmp_path: Path) -> None:
    source = only(read_sources(write_ct_series(tmp_path, VOLUME, attributes={"Modality": REMOVE})))
    assert source.modality == "CT"
    assert "Modality (0008,0060) is absent" in source.notes[0]


@pytest.mark.parametrize("kind", ["CR", "DX", "MG", "US", "SC", "ES", "XC", "GM", "DMS", "OP"])
def test_single_images_are_sources_of_their_own(tmp_path: Path, kind: ImageKind) -> None:
    study, series = StudyIdentity(), new_uid()
    paths = [
        write_image(
            tmp_path / f"{n}.dcm",
            np.zeros((8, 9), np.uint8),
            kind=kind,
            study=study,
            series_uid=series,
        )
        for n in range(2)
    ]
    sources, aside = read_sources(paths)
    assert not aside
    assert sorted(s.paths for s in sources) == [(p,) for p in paths]
    assert {s.kind for s in sources} == {"image"}
    assert {s.geometry for s in sources} == {None}


def test_calibration_of_single_images(tmp_path: Path) -> None:
    black = np.zeros((8, 9), np.uint8)

    def calibration(name: str, **options: object) -> object:
        path = write_image(tmp_path / name, black, **options)  # type: ignore[arg-type]
        return only(read_sources([path])).calibration

    assert calibration("us", kind="US", spacing=(0.2, 0.3)) == pytest.approx((0.2, 0.3))
    assert calibration("xc", kind="XC", spacing=(0.2, 0.3)) == (0.2, 0.3)
    assert calibration("es", kind="ES") is None
    # At the detector, not in the patient.
    assert calibration("dx", kind="DX", spacing=(0.2, 0.2)) is None
    same = {"PixelSpacing": [0.2, 0.2]}
    assert calibration("dx2", kind="DX", spacing=(0.2, 0.2), attributes=same) is None
    corrected = {"PixelSpacing": [0.15, 0.15]}
    assert calibration("dx3", kind="DX", spacing=(0.2, 0.2), attributes=corrected) == (0.15, 0.15)
    fiducial = {"PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"}
    assert calibration("cr", kind="CR", spacing=(0.2, 0.2), attributes=fiducial) == (0.2, 0.2)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    report = write_text_report(tmp_path / "sr.dcm")
    black = np.zeros((8, 8), np.uint8)
    many = write_image(tmp_path / "n.dcm", black, kind="SC", attributes={"NumberOfFrames": 3})
    empty = write_image(tmp_path / "p.dcm", black, attributes={"PixelData": REMOVE})
    sizeless = write_image(tmp_path / "r.dcm", black, attributes={"Rows": 0})
    hostile = write_image(tmp_path / "h.dcm", black, kind="US")
    strange = tmp_path / "s.dcm"
    strange.write_bytes(
        hostile.read_bytes().replace(b"840.10008.5.1.4.1.1.6.1", b"840.10008.5.1.4.9.9.9.9")
    )
    found = read_sources([report, many, empty, sizeless, strange])
    assert found[0] == []
    texts = [a.reason for a in found[1]]
    assert "Basic Text SR Storage: it holds no image" in texts[0]
    assert "has 3 frames (Number of Frames (0028,0008)), but its class" in texts[1]
    assert "has no Pixel Data (7FE0,0010)" in texts[2]
    assert "Rows (0028,0010)" in texts[3]
    assert "unknown storage class" in texts[4]


def test_cut_off_and_foreign_files_are_set_aside(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, np.zeros((3, 64, 64), np.int16))
    truncate(paths[1], keep=0.9)
    truncate(paths[2], keep=0.05)
    text = tmp_path / "letter.txt"
    text.write_text("Dear colleague,\n" * 100)
    nothing = tmp_path / "empty.dcm"
    nothing.touch()
    found = read_sources([*paths, text, nothing])
    assert found[0][0].paths == (paths[0],)
    assert "The file is cut off: Pixel Data (7FE0,0010) should have 8192 bytes" in reasons(found)
    assert sum("cannot be read as DICOM" in a.reason for a in found[1]) >= 2
    assert len(found[1]) == 4


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_files_that_are_cut_off_are_set_aside(tmp_path: Path, syntax: str) -> None:
    noise = np.random.default_rng(1).integers(0, 2000, (2, 64, 64))
    paths = write_ct_series(tmp_path, noise, transfer_syntax=syntax)
    truncate(paths[0], keep=0.8)
    # Without the delimiter at the end nothing is lost.
    paths[1].write_bytes(paths[1].read_bytes()[:-8])
    found = read_sources(paths)
    assert found[0][0].paths == (paths[1],)
    assert "cut off within its compressed Pixel Data" in reasons(found)
    assert np.array_equal(read_pixels(found[0][0]).values[0], noise[1])


def test_sources_can_be_copied_and_sent_to_another_process(tmp_path: Path) -> None:
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"):
        paths = write_ct_series(tmp_path / syntax, VOLUME, transfer_syntax=syntax)
        source = only(read_sources(paths))
        again = pickle.loads(pickle.dumps(source))
        assert again.sop_instance_uids == source.sop_instance_uids
        assert np.array_equal(read_pixels(again).values, VOLUME)
        copied = copy.deepcopy(source.headers[0])
        copied.PatientID = "other"
        assert source.headers[0].PatientID != "other"


def test_a_file_that_the_system_cannot_read_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(RetriableError, match=r"gone\.dcm could not be read"):
        read_sources([tmp_path / "gone.dcm"])


def test_the_same_instance_twice_is_used_once(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm", np.zeros((8, 8), np.uint8))
    copy = tmp_path / "b.dcm"
    copy.write_bytes(path.read_bytes())
    found = read_sources([path, copy])
    assert found[0][0].paths == (path,)
    assert "occurs twice" in reasons(found)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_objects_without_identity_are_set_aside(tmp_path: Path, keyword: str) -> None:
    for number, value in enumerate((REMOVE, "", "../../etc/passwd")):
        path = tmp_path / f"{number}.dcm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_image(path, np.zeros((8, 8), np.uint8), attributes={keyword: value})
        found = read_sources([path])
        assert found[0] == []
        assert "UID (0020,000" in reasons(found)


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"],
)
def test_every_encoding_of_the_data_set_is_read(tmp_path: Path, syntax: str) -> None:
    source = only(read_sources(write_ct_series(tmp_path, VOLUME, transfer_syntax=syntax)))
    assert source.shape == (6, 8, 10)
    assert source.headers[0].file_meta.TransferSyntaxUID == syntax


def test_bare_data_sets_without_file_meta_are_read(tmp_path: Path) -> None:
    paths = [strip_meta(p) for p in write_ct_series(tmp_path, VOLUME)]
    assert only(read_sources(paths)).shape == (6, 8, 10)


def test_values_that_cannot_be_converted_are_dropped_and_named(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm", np.zeros((8, 8), np.uint8), kind="SC")
    data = path.read_bytes()
    broken = data.replace(b"IS\x02\x001 ", b"IS\x02\x00x ")
    assert broken != data
    path.write_bytes(broken)
    source = only(read_sources([path]))
    assert "Series Number (0020,0011)" in " ".join(source.notes)
    assert "SeriesNumber" not in source.headers[0]


def test_every_real_file_is_accounted_for(real_data: RealData) -> None:
    sources, aside = real_data.sources, real_data.aside
    used = [p for s in sources for p in s.paths] + [p for a in aside for p in a.paths]
    assert sorted(used) == real_data.paths
    assert all(a.reason.endswith(".") and len(a.reason) > 20 for a in aside)
    assert all(note.endswith(".") for s in sources for note in s.notes)
    by_folder = {s.paths[0].parent.relative_to(real_data.root).as_posix(): s for s in sources}
    assert by_folder["ibsi-sts/STS_014/PET/image"].shape == (65, 33, 37)
    assert by_folder["udacity/Study3/11_HCropVolume"].shape == (40, 50, 34)
    tilted = by_folder["dcm_qa_ct/GE"]
    assert tilted.geometry is not None
    assert tilted.geometry.tilted
    fmri = [s for s in sources if "dcm_qa_nih" in str(s.paths[0])]
    assert [s.shape[0] for s in fmri] == [15, 15, 9]


def test_a_series_of_two_patients_is_set_aside(tmp_path: Path) -> None:
    ids = ["A"] * 3 + ["B"] * 3
    found = read_sources(write_ct_series(tmp_path, VOLUME, per_frame={"PatientID": ids}))
    assert found[0] == []
    assert "more than one patient" in reasons(found)
    unnamed = ["A"] * 5 + [" "]
    assert only(read_sources(write_ct_series(tmp_path, VOLUME, per_frame={"PatientID": unnamed})))
