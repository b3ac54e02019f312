"""Who made a result: identity, times, text, and what is copied from the source."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_node.objects.encoding import encode
from dicom_node.objects.provenance import (
    REQUIRED_KEYWORDS,
    AlgorithmIdentity,
    local_time,
    single_line,
)
from dicom_node.objects.series import Source, read_sources
from dicom_node.part10 import IMPLEMENTATION_CLASS_UID
from tests.dicom_node.objects.example_results import (
    IDENTIFIERS,
    NODE,
    build,
    interpretation,
    make_source,
)
from tests.factories import REMOVE

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def written(dataset: Dataset) -> Dataset:
    """Return an object as a receiver reads it."""
    return dcmread(BytesIO(encode(dataset)))


@settings(deadline=None)
@given(st.text(max_size=200), st.integers(4, 64))
def test_single_lines_fit_their_representation(text: str, limit: int) -> None:
    line = single_line(text, limit)
    assert len(line) <= limit
    assert "\\" not in line
    # dciodvfy and others count bytes.
    assert line.isascii() or not text.isascii()
    assert all(ord(c) >= 32 and not 127 <= ord(c) < 160 for c in line)
    assert single_line(line, limit) == line


def test_the_device_uid_changes_with_the_weights() -> None:
    base = interpretation([])
    first = AlgorithmIdentity.of(base, NODE)
    other = AlgorithmIdentity(first.manufacturer, first.name, first.version, "cd" * 32)
    assert first.device_uid != other.device_uid
    assert first.device_uid == AlgorithmIdentity.of(base, NODE).device_uid


@pytest.mark.parametrize(
    ("offset", "hour"), [("+0100", 13), ("-0530", 6), ("", 12), ("rubbish", 12), ("+0000", 12)]
)
def test_times_are_in_the_zone_of_the_source(offset: str, hour: int) -> None:
    source = Dataset()
    source.TimezoneOffsetFromUTC = offset
    assert local_time(NOON, source).hour == hour


def test_a_naive_time_is_the_sites_own() -> None:
    source = Dataset()
    source.TimezoneOffsetFromUTC = "+0900"
    naive = NOON.replace(tzinfo=None)
    assert local_time(naive, source) == naive


def test_objects_state_the_zone_of_the_source_and_none_otherwise(tmp_path: Path) -> None:
    with_zone = make_source("CT", tmp_path / "a", attributes={"TimezoneOffsetFromUTC": "+0200"})
    without = make_source("CT", tmp_path / "b")
    for item in build(with_zone).objects:
        assert item.TimezoneOffsetFromUTC == "+0200"
        assert item.ContentTime == "070607.890123"
    for item in build(without).objects:
        assert "TimezoneOffsetFromUTC" not in item
        assert item.ContentTime == "050607.890123"


def test_patient_and_study_are_those_of_the_source(tmp_path: Path) -> None:
    identity = {
        "PatientName": "Müller^Jürgen",
        "PatientID": " 007 ",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19011231",
        "PatientSex": "F",
        "PatientAge": "099Y",
        "AccessionNumber": "A/1",
        "StudyID": "S1",
        "ReferringPhysicianName": "Ärztin^Eva",
    }
    source = make_source("CT", tmp_path, attributes=identity)
    for item in build(source).objects:
        read = written(item)
        assert read.SpecificCharacterSet == "ISO_IR 192"
        assert read.StudyInstanceUID == source.study_instance_uid
        for keyword, value in identity.items():
            assert str(read.get(keyword)).strip() == value.strip(), keyword


def test_absent_attributes_become_empty_and_the_source_stays_as_it_was(tmp_path: Path) -> None:
    gone = dict.fromkeys(REQUIRED_KEYWORDS, REMOVE)
    source = make_source("CR", tmp_path, attributes=gone | {"PatientOrientation": REMOVE})
    before = copy.deepcopy(source.headers[0])
    for item in build(source).objects:
        read = written(item)
        for keyword in REQUIRED_KEYWORDS:
            assert keyword in read and not read.get(keyword)
    assert source.headers[0] == before
    assert source.headers[0].is_original_encoding == before.is_original_encoding


def test_general_equipment_is_the_node_and_contributing_equipment_the_model(
    tmp_path: Path,
) -> None:
    results = build(make_source("MR", tmp_path))
    algorithm = AlgorithmIdentity.of(results.interpretation, NODE)
    for item in results.objects:
        assert (item.ManufacturerModelName, item.SoftwareVersions) == ("UniBiomed Node", "0.1.0")
        assert item.StationName == "NODE1" and item.InstitutionName == "Test hospital"
        (equipment,) = item.ContributingEquipmentSequence
        assert equipment.ManufacturerModelName == "nano"
        assert equipment.SoftwareVersions == "0.1.0"
        assert equipment.DeviceUID == algorithm.device_uid
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_each_object_has_a_series_with_number_and_name(tmp_path: Path) -> None:
    objects = build(make_source("CT", tmp_path)).objects
    assert [item.SeriesNumber for item in objects] == [9001, 9002, 9004]
    assert len({item.SeriesInstanceUID for item in objects}) == 3
    for item in objects:
        assert item.SeriesDescription.startswith("nano 0.1.0 ")
        assert "AI" in item.SeriesDescription and len(item.SeriesDescription) <= 64


def test_private_attributes_are_not_copied(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    header = source.headers[0]
    block = header.private_block(0x0011, "MAKER", create=True)
    block.add_new(0x01, "LO", "secret")
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = "OTHER", "TEXT"
    other.private_block(0x0011, "MAKER", create=True).add_new(0x01, "LO", "secret")
    header.OtherPatientIDsSequence = Sequence([other])
    for item in build(source).objects:
        read = written(item)
        assert read.OtherPatientIDsSequence[0].PatientID == "OTHER"
        assert not any(element.tag.is_private for element in read.iterall())


def test_files_name_this_project_as_the_implementation(tmp_path: Path) -> None:
    for item in build(make_source("CT", tmp_path)).objects:
        meta = written(item).file_meta
        assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
        assert meta.MediaStorageSOPInstanceUID == item.SOPInstanceUID
        assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_building_again_gives_the_same_bytes(tmp_path: Path) -> None:
    source = make_source("PT", tmp_path)
    first = [encode(item) for item in build(source).objects]
    kept = type(IDENTIFIERS).from_json(IDENTIFIERS.as_json())
    assert [encode(item) for item in build(source, identifiers=kept).objects] == first


CHARACTER_SETS = {
    "chrArab": "قباني^لنزار",
    "chrFren": "Buc^Jérôme",
    "chrGerm": "Äneas^Rüdiger",
    "chrH31": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrKoreanMulti": "김희중",
    "chrX1": "Wang^XiaoDong=王^小東",
}


def test_all_character_sets_of_the_shared_files_are_tested(shared_data: Path) -> None:
    found = {path.stem for path in (shared_data / "dicom").glob("*/charset/*.dcm")}
    assert found == set(CHARACTER_SETS)


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_names_in_other_character_sets_are_written_in_utf8(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    (path,) = (shared_data / "dicom").glob(f"*/charset/{name}.dcm")
    foreign = dcmread(path)
    expected = CHARACTER_SETS[name]
    assert str(foreign.PatientName) == expected and not expected.isascii()
    source: Source = make_source(
        "CR",
        tmp_path,
        attributes={
            "SpecificCharacterSet": foreign.SpecificCharacterSet,
            "PatientName": foreign.PatientName,
        },
    )
    (reread,), _ = read_sources(source.paths)
    assert str(reread.headers[0].PatientName) == expected
    for item in build(reread).objects:
        assert str(written(item).PatientName) == expected
