"""Tables of what can be asked, by C-FIND and QIDO-RS alike."""

from __future__ import annotations

from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword

from db.query_keys import COUNTS, LEVELS, MATCHED, level_of
from deploy.statement.markdown import table
from dicom_node.services.dicomweb.search import ALWAYS_RETURNED, MOST_AT_ONCE
from dicom_node.services.identifiers import FROM_FILE
from dicom_node.services.query import UNIQUE_KEYS, Level, matching_kinds
from dicom_node.services.query_retrieve_scp import FIND_ABILITIES

_SHOWN = {"patient": "PATIENT", "study": "STUDY", "series": "SERIES", "instance": "IMAGE"}


def keys_table() -> str:
    """Return the keys of each level, with their matching."""
    rows = []
    for level in LEVELS:
        keywords = [key for key in (*MATCHED, *COUNTS) if level_of(key) == level]
        known = {key: tag for key in keywords if (tag := tag_for_keyword(key)) is not None}
        unique = UNIQUE_KEYS[Level(_SHOWN[level])]
        for keyword, tag in sorted(known.items(), key=lambda one: (one[0] != unique, one[1])):
            vr = dictionary_VR(tag)
            kind = "unique" if keyword == unique else "optional"
            matching = ", ".join(matching_kinds(vr)) if keyword in MATCHED else "returned only"
            rows.append((_SHOWN[level], _attribute(keyword), vr, kind, matching))
    return table(("level", "attribute", "VR", "key", "matching"), rows)


def file_keys_table() -> str:
    """Return the keys that are read from a stored file and returned."""
    rows = [
        (level, ", ".join(_attribute(keyword) for keyword in sorted(keywords)))
        for level, keywords in FROM_FILE.items()
    ]
    return table(("level", "attributes"), [*rows, ("IMAGE", "any outside of the pixel data")])


def always_table() -> str:
    """Return what an answer of QIDO-RS holds unasked."""
    rows = [
        (level, ", ".join(_attribute(keyword) for keyword in keywords))
        for level, keywords in ALWAYS_RETURNED.items()
    ]
    return table(("level", "attributes"), rows)


def negotiation_table() -> str:
    """Return what extended negotiation of C-FIND may bring (PS3.4 C.5.1.1.1)."""
    asked = (
        "relational queries",
        "combined date-time matching",
        "fuzzy matching of person names",
        "time zone query adjustment",
    )
    rows = [(what, "yes" if able else "no") for what, able in zip(asked, FIND_ABILITIES,
                                                                   strict=True)]  # fmt: skip
    return table(("on request of the peer", "supported"), rows)


def most_answers() -> int:
    """Return how many answers QIDO-RS gives at a time."""
    return MOST_AT_ONCE


def _attribute(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None:
        return keyword
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"
