"""The table of targets, and how prompts are read."""

from __future__ import annotations

import pytest
from highdicom.color import CIELabColor
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts  # the arbiter of what PS3.16 lists

from dicom_node.objects.terminology import (
    ANATOMICAL_STRUCTURE,
    LEFT,
    LESION,
    MORPHOLOGICALLY_ABNORMAL,
    RIGHT,
    TISSUE,
    Codes,
    Concept,
    Term,
    describe,
    table,
)

# What nano is trained for.
NANO = {
    "hippocampus": "5366008",
    "anterior hippocampus": "5366008",
    "posterior hippocampus": "5366008",
    "left ventricle": "87878005",
    "nucleus": "84640000",
    "polyp": "68496003",
    "breast tumor": "108369006",
    "breast tumour": "108369006",
    "soft-tissue sarcoma": "424952003",
    "skin lesion": "52988006",
    "phantom insert": "113681",
    "benign breast tumour": "108369006",
    "malignant breast tumour": "108369006",
    "optic disc": "81016008",
    "vertebra": "51282000",
    "fetal head": "69536005",
}
CATEGORIES = {"91723000", "49755003", "85756007", "260787004"}


def concepts_of(term: Term) -> list[Concept]:
    region = [] if term.region is None else [term.region]
    return [term.category, term.type, *term.type_modifiers, *region, *term.region_modifiers]


def listed(concept: Concept) -> bool:
    by_keyword = concepts.get(concept.scheme, {})
    return any(
        isinstance(values, dict) and concept.value in values for values in by_keyword.values()
    )


@pytest.mark.parametrize(("target", "value"), NANO.items())
def test_every_target_of_nano_has_its_own_code(target: str, value: str) -> None:
    term = describe(target)
    assert term.type.value == value
    assert term.exact and term.in_dicom and term.source


def test_the_table_is_broad() -> None:
    assert len(table()) > 250


@pytest.mark.parametrize("term", table().values(), ids=lambda term: term.name)
def test_rows_are_complete_and_codes_of_the_standard_are_in_it(term: Term) -> None:
    assert term.category.value in CATEGORIES
    assert term.source
    assert len(term.colour) == 3 and all(0 <= part <= 255 for part in term.colour)
    assert term.in_dicom == all(listed(concept) for concept in concepts_of(term))
    for concept in concepts_of(term):
        assert len(concept.meaning) <= 64 and len(concept.value) <= 16


def test_anatomy_has_the_category_of_cid_7150() -> None:
    assert describe("liver").category == ANATOMICAL_STRUCTURE
    assert "123037004" not in {term.category.value for term in table().values()}


def test_the_parts_of_the_hippocampus_are_told_apart() -> None:
    assert [m.value for m in describe("anterior hippocampus").type_modifiers] == ["255549009"]
    assert [m.value for m in describe("posterior hippocampus").type_modifiers] == ["255551008"]
    colours = {describe(f"{part}hippocampus").colour for part in ("", "anterior ", "posterior ")}
    assert len(colours) == 3


def test_a_cyst_has_its_side_on_the_kidney() -> None:
    term = describe("left kidney cyst")
    assert term.type.meaning == "Cyst" and not term.type_modifiers
    assert term.region is not None and term.region.value == "64033007"
    assert term.region_modifiers == (LEFT,)


def test_a_kidney_has_its_side_itself() -> None:
    assert describe("right kidney").type_modifiers == (RIGHT,)
    assert describe("kidney_right").type_modifiers == (RIGHT,)


@pytest.mark.parametrize("words", ["Benign tumor", "malignant tumor"])
def test_the_nature_of_a_tumor_is_a_modifier_of_the_type(words: str) -> None:
    term = describe(words)
    assert len(term.type_modifiers) == 1 and term.region is not None


def test_free_prompts_are_read_for_kind_place_and_side() -> None:
    term = describe("cyst in the left kidney")
    assert term.type.meaning == "Cyst"
    assert term.region is not None and term.region.meaning == "Kidney"
    assert term.region_modifiers == (LEFT,)
    assert describe("tumor of the pancreas").region == describe("pancreas").type
    assert describe("left lens").type_modifiers == (LEFT,)


def test_words_without_a_code_fall_back_and_say_so() -> None:
    for words in ("strange shadow", "Hypodense LESION", "osteoma", "something in the left kidney"):
        term = describe(words)
        assert term.type == LESION and term.category == MORPHOLOGICALLY_ABNORMAL and not term.exact
    for words in ("psoas fascia", "left thing", "zzz", ""):
        term = describe(words)
        assert (term.type, term.category) == (TISSUE, TISSUE) and not term.exact
    assert not describe("optic cup").exact


def test_a_site_may_allow_codes_of_the_standard_only() -> None:
    rib = describe("left rib 3", Codes.DICOM_ONLY)
    assert rib.type == TISSUE and rib.in_dicom and not rib.exact
    assert rib.type_modifiers == (LEFT,)
    assert describe("liver", Codes.DICOM_ONLY) == describe("liver")


KNOWN = {concept for term in table().values() for concept in concepts_of(term)}
KNOWN |= {LEFT, RIGHT, LESION, Concept("51440002", "SCT", "Bilateral")}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_code_is_ever_invented(words: str) -> None:
    for codes in Codes:
        term = describe(words, codes)
        assert set(concepts_of(term)) <= KNOWN
        if codes is Codes.DICOM_ONLY:
            assert all(listed(concept) for concept in concepts_of(term))


@settings(deadline=None)
@given(st.sampled_from(sorted(table())), st.sampled_from(["left ", "right ", ""]))
def test_every_name_is_found_with_any_case_and_side(name: str, side: str) -> None:
    assert describe(f"{side}{name}".upper()).type.value
    assert describe(name.title()).type == table()[name].type


def test_targets_without_a_code_are_told_apart_by_stable_colours() -> None:
    names = [f"target {number}" for number in range(1, 61)] + ["unicorn", "thing in the lung"]
    colours = [describe(name).colour for name in names]
    assert len(set(colours)) == len(names)
    assert describe("  Target_7 ").colour == describe("target 7").colour == (0, 147, 145)
    for colour in colours:
        # As a Segmentation keeps it, and the viewer reads it.
        kept = CIELabColor.from_rgb(*colour)
        assert CIELabColor.from_dicom_value(kept.value).to_rgb() == colour
        # Seen on a black and on a white picture.
        assert 40 < kept.l_star < 90 and max(abs(kept.a_star), abs(kept.b_star)) > 15


def test_a_name_of_the_table_keeps_the_table_s_colour() -> None:
    assert describe("left liver").colour == table()["liver"].colour
