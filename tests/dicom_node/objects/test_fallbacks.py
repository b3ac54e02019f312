"""What goes out beside SEG and SR: valid, true to the masks, and the same on every retry."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_node.objects.conformance import check
from dicom_node.objects.conformance_rules import kind_of
from dicom_node.objects.east_asian_font import true_type_of
from dicom_node.objects.encoding import encode
from dicom_node.objects.fallback_capture import captured_frames
from dicom_node.objects.fallback_key_objects import Rejection, build_rejection_note
from dicom_node.objects.fallbacks import FORMS, Material, build_fallbacks
from dicom_node.objects.pixels import read_pixels
from dicom_node.objects.provenance import AlgorithmIdentity
from dicom_node.objects.report_narrative import impression
from dicom_node.objects.segments import segments_of
from inference.findings import Interpretation
from tests.dicom_node.objects.example_results import (
    IDENTIFIERS,
    NODE,
    Results,
    build,
    finding,
    interpretation,
    make_source,
    run,
)
from tests.dicom_node.objects.test_contours import filled

PDFTOTEXT, PDFFONTS = "/usr/bin/pdftotext", "/usr/bin/pdffonts"


@dataclass(frozen=True)
class Whole:
    """Results with everything beside them."""

    results: Results
    forms: dict[str, list[Dataset]]

    @property
    def extra(self) -> list[Dataset]:
        return [item for items in self.forms.values() for item in items]


def whole(results: Results) -> Whole:
    material = Material(
        results.source,
        read_pixels(results.source),
        results.interpretation,
        results.measurements,
        IDENTIFIERS,
        NODE,
    )
    return Whole(results, dict(build_fallbacks(FORMS, material)))


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Results of a CT volume, one mask with a hole."""
    source = make_source("CT", tmp_path_factory.mktemp("ct"))
    frames, rows, columns = np.indices(source.shape)
    away = np.hypot(rows - 15, columns - 20)
    ring = (away < 9) & (away > 3) & (frames > 0) & (frames < 5)
    small = (rows > 26) & (columns > 30) & (frames == 2)
    return whole(build(source, interpretation([finding("liver", ring), finding("cyst", small)])))


@pytest.mark.parametrize("kind", ["CT", "PT", "US", "XC", "CR"])
def test_every_form_passes_the_gate_with_the_results(kind: str, tmp_path: Path) -> None:
    given = whole(build(make_source(kind, tmp_path)))
    objects = [*given.results.objects, *given.extra]
    assert check(objects, given.results.source.headers) == []
    volume = kind in ("CT", "PT")
    assert [name for name, items in given.forms.items() if items] == [
        name for name in FORMS if volume or name != "structure_set"
    ]
    series = {str(item.SeriesInstanceUID) for item in objects}
    assert len(series) == 3 + len([items for items in given.forms.values() if items])
    for item in given.extra:
        assert "(AI, research)" in item.SeriesDescription
        assert item.ContributingEquipmentSequence[0].ContributionDescription.startswith("Research")


def test_where_nothing_is_found_there_is_only_the_page(tmp_path: Path) -> None:
    results = build(make_source("CT", tmp_path), interpretation([finding("polyp", None)]))
    given = whole(results)
    assert [name for name, items in given.forms.items() if items] == ["report_document"]
    assert check([*results.objects, *given.extra], results.source.headers) == []


def test_the_same_job_gives_the_same_bytes(ct: Whole) -> None:
    again = whole(ct.results)
    assert [encode(item) for item in again.extra] == [encode(item) for item in ct.extra]


def test_captures_show_each_touched_frame_in_the_colours_of_the_segments(ct: Whole) -> None:
    captures = ct.forms["secondary_capture"]
    uids = ct.results.source.sop_instance_uids
    assert [item.SourceImageSequence[0].ReferencedSOPInstanceUID for item in captures] == [
        uids[frame] for frame in (1, 2, 3, 4)
    ]
    colours = [segment.term.colour for segment in segments_of(ct.results.interpretation)]
    for item, frame in zip(captures, (1, 2, 3, 4), strict=True):
        pixels = item.pixel_array.reshape(-1, 3)
        shown = [bool((pixels == colour).all(axis=1).any()) for colour in colours]
        assert shown == [True, frame == 2]


def test_captures_are_limited_and_keep_key_slices() -> None:
    mask = np.ones((300, 2, 2), np.bool_)
    found = interpretation([replace(finding("liver", mask), key_frame=123)])
    frames = captured_frames(segments_of(found), most=10)
    assert len(frames) <= 10 and 123 in frames and frames[0] == 0 and frames[-1] == 299
    assert frames == sorted(frames)


def test_contours_in_the_patient_fill_the_mask_again(ct: Whole) -> None:
    (structures,) = ct.forms["structure_set"]
    source = ct.results.source
    assert source.geometry is not None
    uids = list(source.sop_instance_uids)
    for region, segment in zip(
        structures.ROIContourSequence, segments_of(ct.results.interpretation), strict=True
    ):
        found = np.zeros(source.shape, np.bool_)
        for contour in region.ContourSequence:
            image = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
            places = np.array([source.geometry.patient_to_pixel(point) for point in points])
            frame = uids.index(image)
            assert np.allclose(places[:, 0], frame, atol=1e-3)
            ring = places[:, :0:-1] + 0.5
            found[frame] ^= filled([np.round(ring, 3)], source.shape[1:])
        assert np.array_equal(found, segment.mask)


@pytest.mark.skipif(not shutil.which(PDFTOTEXT), reason="needs poppler-utils")
def test_the_page_says_what_the_report_says(ct: Whole, tmp_path: Path) -> None:
    (document,) = ct.forms["report_document"]
    page = tmp_path / "page.pdf"
    page.write_bytes(document.EncapsulatedDocument)
    text = " ".join(run(PDFTOTEXT, "-layout", page, "-").split())
    report = ct.results.grounded_report
    for section in report.ContentSequence:
        for item in section.get("ContentSequence") or []:
            # Lines break where they will, so a column of the page may stand between two words.
            assert str(item.TextValue)[:40] in text
    assert "Phantom Water" in text and "PHANTOM-1" in text
    assert "ab" * 8 in text  # the weights


def test_names_and_words_of_any_script_make_a_page(tmp_path: Path) -> None:
    source = make_source(
        "CT", tmp_path, attributes={"PatientName": "Жуков^Μαρία=山田^太郎", "PatientID": "<b>&1"}
    )
    text = "Ένας <i>όγκος</i> & 肝臓 with a very" + "-very" * 200 + " long word."
    results = build(source, interpretation([finding("肝", None, text=text)]))
    (document,) = whole(results).forms["report_document"]
    assert document.EncapsulatedDocument.startswith(b"%PDF")
    assert check([document], source.headers, tools=False) == []


NAMES_OF_EAST_ASIA = {
    "Japanese": ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田 太郎", "やまだ たろう"),
    "simplified Chinese": ("Wang^XiaoDong=王^小东", "王 小东"),
    "traditional Chinese": ("Wang^XiaoDong=王^小東", "王 小東"),
    "Korean": ("Hong^Gildong=洪^吉洞=홍^길동", "洪 吉洞", "홍 길동"),
}


@pytest.mark.parametrize("language", NAMES_OF_EAST_ASIA)
def test_names_of_east_asia_stand_on_the_page_in_letters_that_it_embeds(
    language: str, tmp_path: Path
) -> None:
    name, *shown = NAMES_OF_EAST_ASIA[language]
    attributes = {"PatientName": name, "SpecificCharacterSet": "ISO_IR 192"}
    source = make_source("CT", tmp_path / "ct", attributes=attributes)
    results = build(source, interpretation([finding("liver", None, text=f"No {shown[0]} seen.")]))
    page = bytes(whole(results).forms["report_document"][0].EncapsulatedDocument)
    assert page == whole(results).forms["report_document"][0].EncapsulatedDocument
    file = tmp_path / "page.pdf"
    file.write_bytes(page)
    text = " ".join(run(PDFTOTEXT, file, "-").split())
    for words in shown:
        assert words in text
    assert f"No {shown[0]} seen." in text
    fonts = run(PDFFONTS, file)
    rows = fonts.splitlines()[2:]
    assert any("NotoSansCJK" in row for row in rows)
    # Embedded; reportlab names Helvetica on every page, in which nothing is written.
    assert all(row.split()[-5] == "yes" for row in rows if "Helvetica" not in row), fonts
    # Beside Latin letters, whose font is another.
    assert true_type_of(name)[1] >= set("".join(shown)) - {" "}


def test_what_no_font_has_is_left_out_of_the_embedded_one() -> None:
    data, found = true_type_of("山\U000e0001\ue000")
    assert found == {"山"} and true_type_of("山")[0] == data


def test_key_slices_are_selected_once_each(ct: Whole) -> None:
    (selection,) = ct.forms["key_objects"]
    uids = ct.results.source.sop_instance_uids
    keys = {uids[item.key_frame or 0] for item in ct.results.interpretation.findings}
    named = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in selection.ContentSequence
        if item.ValueType == "IMAGE"
    ]
    assert sorted(named) == sorted(keys)


def pop(keyword: str) -> Callable[[Dataset], object]:
    return lambda dataset: dataset.pop(keyword)


FAULTS: tuple[tuple[str, str, Callable[[Dataset], object]], ...] = (
    ("capture.source", "secondary_capture", pop("SourceImageSequence")),
    (
        "capture.source",
        "secondary_capture",
        lambda d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY"]),
    ),
    (
        "document.page",
        "report_document",
        lambda d: setattr(d, "EncapsulatedDocument", d.EncapsulatedDocument[:2000]),
    ),
    ("document.page", "report_document", lambda d: setattr(d, "BurnedInAnnotation", "NO")),
    (
        "structures.contours",
        "structure_set",
        lambda d: d.ROIContourSequence[0].ContourSequence[0].ContourData.__setitem__(2, "999"),
    ),
    ("structures.contours", "structure_set", lambda d: d.RTROIObservationsSequence.pop()),
    ("AIR-39", "key_objects", lambda d: setattr(d.ConceptNameCodeSequence[0], "CodeValue", "1")),
    ("AIR-38", "key_objects", lambda d: setattr(
        d.ContentSequence[-1].ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", "2.25.5"
    )),
    ("AIR-05", "structure_set", pop("ContributingEquipmentSequence")),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "form", "fault"), FAULTS)
def test_each_rule_finds_its_fault(
    rule: str, form: str, fault: Callable[[Dataset], object], ct: Whole
) -> None:
    extra = copy.deepcopy(ct.extra)
    fault(next(item for item in extra if item.SOPInstanceUID in _uids(ct.forms[form])))
    found = check([*ct.results.objects, *extra], ct.results.source.headers, tools=False)
    assert rule in {problem.rule for problem in found if problem.severity == "error"}


def _uids(items: list[Dataset]) -> set[str]:
    return {str(item.SOPInstanceUID) for item in items}


@pytest.mark.parametrize("rejection", Rejection)
def test_a_rejection_note_lists_all_that_was_sent(rejection: Rejection, ct: Whole) -> None:
    sent = [*ct.results.objects, *ct.extra]
    algorithm = AlgorithmIdentity.of(ct.results.interpretation, NODE)
    note = build_rejection_note(
        sent,
        rejection,
        "masks of the wrong side",
        IDENTIFIERS.further("rejection_note"),
        IDENTIFIERS,
        algorithm,
        NODE,
    )
    assert check([*sent, note], ct.results.source.headers) == []
    named = {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    assert named == _uids(sent)
    assert note.ConceptNameCodeSequence[0].CodeValue in ("113001", "113037", "113039")
    assert kind_of(note) == "key object selection"


def test_the_impression_of_the_page_is_that_of_the_report(ct: Whole) -> None:
    found: Interpretation = ct.results.interpretation
    words = impression(found, AlgorithmIdentity.of(found, NODE), NODE)
    assert words.startswith("Found: liver, cyst.")
