"""Answers written by hand are byte for byte those that pydicom writes."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from db.query_keys import COUNTS, KEYS, MODALITIES_IN_STUDY, STUDY_DATE_AND_TIME
from dicom_node.services.answers import AnswerWriter
from dicom_node.services.identifiers import Asked, answer_of
from dicom_node.services.query import Level, Match, Query

KEYWORDS = sorted({*KEYS, *COUNTS, MODALITIES_IN_STUDY} - {STUDY_DATE_AND_TIME})
IN_CHARACTER_SET = {"LO", "PN", "SH"}
CHARACTER_SETS = ["", "ISO_IR 100", "ISO_IR 144", "ISO_IR 192", "ISO_IR 13", "ISO 2022 IR 87"]
# pydicom leaves out what is empty at the end of a name; it comes as it is stored here.
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(
    lambda text: text.rstrip("=")
)
ANY = st.one_of(
    ASCII, st.sampled_from(["Müller^Jörg", "Łoś^Ewa", "Иванов^Пётр", "山田^太郎", "α\\β"])
)
NUMBER = st.one_of(st.integers(-9, 1 << 17).map(str), st.just(""), ASCII)


def of_vr(keyword: str) -> st.SearchStrategy[str]:
    vr = dictionary_VR(keyword)
    return NUMBER if vr in ("IS", "US") else ANY if vr in IN_CHARACTER_SET else ASCII


def question(keywords: set[str], character_set: str = "") -> Asked:
    identifier = Dataset()
    identifier.InstanceAvailability = None
    if character_set:
        identifier.SpecificCharacterSet = character_set
    return Asked(Query(Level.IMAGE), identifier, frozenset(keywords), frozenset(), True)


@given(
    st.fixed_dictionaries({}, optional={keyword: of_vr(keyword) for keyword in KEYWORDS}),
    st.sets(st.sampled_from(KEYWORDS)),
    st.sampled_from(CHARACTER_SETS),
    st.booleans(),
)
@example({"PatientName": "A^B=C^D", "NumberOfFrames": "12"}, {"Rows"}, "", False)
@example({"StudyDescription": "x" * 20_000}, set(), "", False)
@example({"PatientName": "山田^太郎"}, set(), "ISO_IR 13", False)
@example({"PatientName": "ﾔﾏﾀﾞ^ﾀﾛｳ"}, set(), "ISO_IR 13", False)
def test_they_are_what_pydicom_writes(
    attributes: dict[str, str], wanted: set[str], character_set: str, is_implicit: bool
) -> None:
    asked = question({*attributes, *wanted}, character_set)
    match = Match(attributes, None)
    written = AnswerWriter(asked, "UNIBIOMED", is_implicit=is_implicit).write(match)
    assert written == encode(answer_of(asked, match, "UNIBIOMED"), is_implicit, True)


@pytest.mark.parametrize(
    ("name", "character_set"),
    [("ﾔﾏﾀﾞ^ﾀﾛｳ", "ISO_IR 13"), ("山田^太郎", "ISO_IR 192"), ("¥^A", "ISO_IR 192")],
)
def test_a_japanese_question_is_answered_in_a_set_that_holds_the_name(
    name: str, character_set: str
) -> None:
    asked = question({"PatientName"}, "ISO_IR 13")
    written = AnswerWriter(asked, "UNIBIOMED", is_implicit=True).write(
        Match({"PatientName": name}, None)
    )
    answer = decode(BytesIO(written), True, True)
    assert (answer.PatientName, answer.SpecificCharacterSet) == (name, character_set)


@pytest.mark.parametrize("is_implicit", [True, False])
def test_what_is_no_ascii_where_only_ascii_may_be_breaks_no_answer(is_implicit: bool) -> None:
    asked = question({"Modality", "StudyInstanceUID", "PatientName"})
    match = Match({"Modality": "Ж", "PatientName": "Łoś^Ewa", "StudyInstanceUID": "1.2"}, None)
    written = AnswerWriter(asked, "UNIBIOMED", is_implicit=is_implicit).write(match)
    answer = decode(BytesIO(written), is_implicit, True)
    assert (answer.Modality, answer.PatientName, answer.StudyInstanceUID) == (
        "?",
        "Łoś^Ewa",
        "1.2",
    )
