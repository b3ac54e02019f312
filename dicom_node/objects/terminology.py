"""What a finding is called in DICOM: target names to coded concepts.

The table ``terminology.csv`` beside this file holds one row per name with its category (PS3.16 CID
7150), type, modifier, anatomic region, colour and the place where the code was read. Columns that
hold a code are written ``scheme:value``. A code is never invented: a name without a verified code
carries a broader one, its own words stay in the segment label, and ``note`` says so.

A prompt that is not in the table is read for its side ("left ...") and for "... of/in <place>";
what is left falls back to Lesion (words for something abnormal) or Tissue, again with the
words in the label.
"""

from __future__ import annotations

import csv
import enum
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources

from highdicom.sr import CodedConcept

from dicom_node.objects.colours import colour_of_words

TABLE = "terminology.csv"


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded concept (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str

    def coded(self) -> CodedConcept:
        """Return highdicom's form of the concept."""
        return CodedConcept(value=self.value, scheme_designator=self.scheme, meaning=self.meaning)


ANATOMICAL_STRUCTURE = Concept("91723000", "SCT", "Anatomical Structure")
MORPHOLOGICALLY_ABNORMAL = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Concept("85756007", "SCT", "Tissue")
LESION = Concept("52988006", "SCT", "Lesion")
LEFT = Concept("7771000", "SCT", "Left")
RIGHT = Concept("24028007", "SCT", "Right")
BILATERAL = Concept("51440002", "SCT", "Bilateral")
LATERALITIES: Mapping[str, Concept] = {"left": LEFT, "right": RIGHT, "bilateral": BILATERAL}


class Codes(enum.StrEnum):
    """Which codes a site lets into its objects.

    Codes of SNOMED CT that PS3.16 lists may be used with DICOM everywhere without a licence; others
    need one in countries that are not members of SNOMED International.
    """

    ALL = "all"
    DICOM_ONLY = "dicom"


@dataclass(frozen=True, slots=True)
class Term:
    """The coded description of a target.

    Attributes
    ----------
    name
        The table's name, or the prompt itself where the table has none.
    category, type
        Segmented Property Category and Type (PS3.3 C.8.20.4).
    colour
        Display colour, sRGB, 0..255 each: the table's, or one of its own for words without a code.
    type_modifiers, region_modifiers
        Side, place or nature; a side belongs to the region where the type has no side of its own
        (a cyst), else to the type (a kidney).
    region
        Anatomic region, for findings that are not anatomy themselves.
    source
        Where the code was read.
    exact
        False when the name itself has no verified code and a broader one stands for it.
    in_dicom
        True when PS3.16 lists every code of the term.
    """

    name: str
    category: Concept
    type: Concept
    colour: tuple[int, int, int]
    type_modifiers: tuple[Concept, ...] = ()
    region: Concept | None = None
    region_modifiers: tuple[Concept, ...] = ()
    source: str = ""
    exact: bool = True
    in_dicom: bool = True

    @property
    def is_anatomy(self) -> bool:
        """Whether the term names a part of the body rather than a finding in it."""
        return self.category in (ANATOMICAL_STRUCTURE, TISSUE)


def describe(target: str, codes: Codes = Codes.ALL) -> Term:
    """Return the term for a target name or a free prompt.

    Parameters
    ----------
    target
        A name as a model card lists it, or what a user typed.
    codes
        Whether codes outside of PS3.16 may be used; where they may not, the category's broad code
        stands in.
    """
    term = _described(target)
    if codes is Codes.DICOM_ONLY and not term.in_dicom:
        return _broader(term)
    return term


def table() -> Mapping[str, Term]:
    """Return the table: each name in lower case with its term (synonyms not repeated)."""
    return _table().terms


@dataclass(frozen=True, slots=True)
class _Table:
    terms: Mapping[str, Term]
    synonyms: Mapping[str, str]

    def find(self, words: str) -> Term | None:
        key = _normal(words)
        for candidate in (key, key.removesuffix("s"), key.removeprefix("the ")):
            name = self.synonyms.get(candidate, candidate)
            if name in self.terms:
                return self.terms[name]
        return None


@functools.cache
def _table() -> _Table:
    terms: dict[str, Term] = {}
    synonyms: dict[str, str] = {}
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        name = _normal(row["name"])
        terms[name] = _term(row)
        for synonym in filter(None, row["synonyms"].split("|")):
            synonyms[_normal(synonym)] = name
    return _Table(terms, synonyms)


def _term(row: Mapping[str, str]) -> Term:
    category = _required(row, "category")
    region = _concept(row, "region")
    modifier = _concept(row, "modifier")
    modifiers = (modifier,) if modifier else ()
    # A cyst has no side, the kidney it lies in has one.
    modifies_region = region is not None and modifier in LATERALITIES.values()
    return Term(
        name=row["name"],
        category=category,
        type=_required(row, "type"),
        type_modifiers=() if modifies_region else modifiers,
        region=region,
        region_modifiers=modifiers if modifies_region else (),
        colour=_colour(row["colour"]),
        source=row["source"],
        exact=not row["note"].startswith("broader code"),
        in_dicom=row["in_dicom"] == "yes",
    )


def _concept(row: Mapping[str, str], column: str) -> Concept | None:
    if not row[column]:
        return None
    scheme, value = row[column].split(":", 1)
    return Concept(value, scheme, row[f"{column}_meaning"])


def _required(row: Mapping[str, str], column: str) -> Concept:
    concept = _concept(row, column)
    if concept is None:
        raise ValueError(f"{TABLE}: {row['name']!r} has no {column}")
    return concept


def _colour(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _normal(words: str) -> str:
    return re.sub(r"[\s_]+", " ", words).strip().lower()


def _described(target: str) -> Term:
    found = _table().find(target)
    if found is not None:
        return found
    side, words = _without_side(_normal(target))
    kind, _, place = _split_place(words)
    term = _table().find(kind) if kind != _normal(target) else None
    region = _table().find(place) if place else None
    if term is None:
        term = _fallback(kind, region, colour_of_words(_normal(target)))
    if region is not None and region.is_anatomy and not term.is_anatomy:
        term = replace(
            term,
            region=region.type,
            region_modifiers=region.type_modifiers,
            in_dicom=region.in_dicom,
        )
    if side is not None:
        term = _with_side(term, side)
    return replace(term, name=target)


def _without_side(words: str) -> tuple[Concept | None, str]:
    """Split "left kidney" or "kidney left" into its side and the rest."""
    parts = words.split(" ")
    for position in (0, -1):
        side = LATERALITIES.get(parts[position])
        if side is not None and len(parts) > 1:
            del parts[position]
            return side, " ".join(parts)
    return None, words


def _split_place(words: str) -> tuple[str, str, str]:
    """Split "tumor in the left lung" into kind, preposition and place."""
    match = re.fullmatch(r"(.+?) (of|in) (?:the )?(.+)", words)
    if match is None:
        return words, "", ""
    return match[1], match[2], match[3]


# Words that speak of something abnormal, and endings that medicine gives to such words.
_FINDING = re.compile(
    r"\b(?:abnormal\w*|anomal\w*|bleed\w*|calcifi\w*|collection|consolidation|contusion|cysts?|"
    r"defects?|densit\w*|diseased?|effusion|enhanc\w*|erosion|fibros\w*|findings?|fractures?|"
    r"gallstones?|h(?:a)?ematoma|haemorrhage|hemorrhage|infarct\w*|infect\w*|infiltrat\w*|injur\w*|"
    r"lesions?|mass(?:es)?|metasta\w*|nodul\w*|opacit\w*|patholog\w*|plaques?|polyps?|rupture|"
    r"scars?|shadows?|stenosis|stones?|suspicious|swelling|tears?|thickening|thromb\w*|tumou?rs?|"
    r"ulcers?|\w{3,}(?:oma|omas|itis|osis|opathy|edema|oedema|pneumonia|rrhage))\b"
)


def _fallback(words: str, region: Term | None, colour: tuple[int, int, int]) -> Term:
    """Return the broad type for words without a code of their own.

    Lesion for what is said to be abnormal or to lie *in* a structure, else Tissue: to call a
    structure that the table does not know a lesion would be worse than the other way round.
    """
    in_dicom = region is None or region.in_dicom
    abnormal = _FINDING.search(words) is not None or (region is not None and region.is_anatomy)
    broad = LESION if abnormal else TISSUE
    return Term(
        name="",
        category=MORPHOLOGICALLY_ABNORMAL if abnormal else TISSUE,
        type=broad,
        colour=colour,
        exact=False,
        in_dicom=in_dicom,
        source=f"no code for these words: the broad code {broad.meaning}",
    )


def _with_side(term: Term, side: Concept) -> Term:
    if term.is_anatomy:
        return replace(term, type_modifiers=(*term.type_modifiers, side))
    if term.region is not None:
        return replace(term, region_modifiers=(*term.region_modifiers, side))
    return term


def _broader(term: Term) -> Term:
    broad = TISSUE if term.is_anatomy else LESION
    return replace(
        term,
        category=TISSUE if term.is_anatomy else term.category,
        type=broad,
        type_modifiers=tuple(m for m in term.type_modifiers if m in LATERALITIES.values()),
        region=None,
        region_modifiers=(),
        exact=False,
        in_dicom=True,
    )
