"""Pending responses of C-FIND, written without a data set object for each (PS3.5 section 7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pynetdicom.dsutils import encode

from dicom_node.services.identifiers import (
    Asked,
    answer_of,
    character_set_for,
    text_of_number,
)
from dicom_node.services.query import Match

_SPECIFIC_CHARACTER_SET: Final = 0x00080005
# Their values are in the Specific Character Set (PS3.5 6.1.2.3); those of others in ASCII.
_IN_CHARACTER_SET: Final = frozenset({"LO", "PN", "SH", "ST"})
_SHORT: Final = _IN_CHARACTER_SET | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "US"}
# Of any, so that the length of one fits its field whatever the character set.
_LONGEST_TEXTS: Final = 0x3FFF
# Sets without escape sequences: each text is encoded by itself.
_SINGLE: Final = {
    name: encoding for name, encoding in python_encoding.items() if name.startswith("ISO_IR ")
}


@dataclass(frozen=True, slots=True)
class _Key:
    """An element whose value differs from match to match, and how it begins."""

    keyword: str
    vr: str
    beginning: bytes


class AnswerWriter:
    """Writes the identifiers of pending responses to one question.

    Parameters
    ----------
    asked : Asked
        The question.
    ae_title : str
        Ours: from here it can be retrieved.
    is_implicit : bool
        Whether in Implicit VR Little Endian, else Explicit VR Little Endian.
    """

    def __init__(self, asked: Asked, ae_title: str, *, is_implicit: bool) -> None:
        self._asked = asked
        self._ae_title = ae_title
        self._is_implicit = is_implicit
        fixed = {"QueryRetrieveLevel": str(asked.query.level), "RetrieveAETitle": ae_title}
        if "InstanceAvailability" in asked.identifier:
            fixed["InstanceAvailability"] = "ONLINE"
        self._elements: list[_Key | bytes] = []
        self._is_plain = not asked.from_file
        for tag, keyword in sorted(
            (tag, keyword)
            for keyword in {*asked.wanted, *fixed}
            if (tag := tag_for_keyword(keyword)) is not None
        ):
            vr = dictionary_VR(tag)
            self._is_plain &= vr in _SHORT
            key = _Key(keyword, vr, self._beginning(tag, vr))
            text = fixed.get(keyword)
            self._elements.append(key if text is None else self._element(key, text, "ascii"))

    def write(self, match: Match) -> bytes:
        """Return the encoded identifier of what was found; the same as of `answer_of`."""
        texts = "".join(match.attributes.values())
        name = "" if texts.isascii() else character_set_for([texts], self._asked.identifier)
        encoding = _SINGLE.get(name) if name else "ascii"
        if not self._is_plain or encoding is None or len(texts) > _LONGEST_TEXTS:
            return self._write_by_library(match)
        get = match.attributes.get
        pieces = [self._character_set(name)] if name else []
        for one in self._elements:
            if isinstance(one, _Key):
                one = self._element(one, get(one.keyword, ""), encoding)
            pieces.append(one)
        return b"".join(pieces)

    def _write_by_library(self, match: Match) -> bytes:
        """Write what is more than short texts: sequences of files, sets with escape sequences."""
        answer = answer_of(self._asked, match, self._ae_title)
        return encode(answer, self._is_implicit, True) or b""

    def _character_set(self, name: str) -> bytes:
        beginning = self._beginning(_SPECIFIC_CHARACTER_SET, "CS")
        return self._element(_Key("SpecificCharacterSet", "CS", beginning), name, "ascii")

    def _beginning(self, tag: int, vr: str) -> bytes:
        group_and_element = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
        return group_and_element if self._is_implicit else group_and_element + vr.encode("ascii")

    def _element(self, key: _Key, text: str, encoding: str) -> bytes:
        vr = key.vr
        if vr == "US":
            number = text_of_number(vr, text)
            value = int(number).to_bytes(2, "little") if number else b""
        else:
            if vr == "IS":
                text = text_of_number(vr, text)
            value = text.encode(encoding if vr in _IN_CHARACTER_SET else "ascii", "replace")
            if len(value) % 2:
                value += b"\0" if vr == "UI" else b" "
        return key.beginning + len(value).to_bytes(4 if self._is_implicit else 2, "little") + value
