"""Read what the catalog wants from a data set without decoding it, and see whether it is whole.

A walk over the element headers (PS3.5 7.1 to 7.5, A.4): values are skipped, so a data set of 100
MB costs two or three small reads. Whoever sent the bytes may be hostile or broken: every length is
checked before it is believed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_node.errors import FinalError

Read = Callable[[int, int], bytes]
"""Offset and count -> bytes of the data set, fewer at its end."""

KEYWORDS: Final[tuple[str, ...]] = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "StudyTime",
    "SeriesTime",
    "AcquisitionTime",
    "ContentTime",
    "AccessionNumber",
    "Modality",
    "Manufacturer",
    "InstitutionName",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
    "StationName",
    "StudyDescription",
    "SeriesDescription",
    "ManufacturerModelName",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "ContrastBolusAgent",
    "BodyPartExamined",
    "SliceThickness",
    "ProtocolName",
    "DeviceUID",
    "PatientPosition",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "FrameOfReferenceUID",
    "Laterality",
    "ImagesInAcquisition",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
)

_WANTED: Final[Mapping[int, str]] = {
    tag: keyword for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None
}
_NUMBERS: Final = frozenset({"Rows", "Columns"})
_LONG_LENGTH: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT_LENGTH: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_IMPLICIT: Final = "1.2.840.10008.1.2"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_WINDOW: Final = 1 << 14
_MAX_VALUE: Final = 1 << 12
_MAX_DEPTH: Final = 64
_MAX_PADDING: Final = 1 << 16
# A walk past so many elements proves no more; a hostile data set of tiny elements must not hold a
# thread.
_MAX_ELEMENTS: Final = 2_000_000
_INFLATED_HEAD: Final = 1 << 20


class MalformedDataSetError(FinalError):
    """The bytes are not a whole data set in the transfer syntax that was agreed."""


class _Walk:
    """One pass over a data set's element headers."""

    def __init__(self, read: Read, size: int, *, implicit: bool, big_endian: bool) -> None:
        self._read = read
        self._size = size
        self._implicit = implicit
        order = ">" if big_endian else "<"
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "I")
        self._plain = struct.Struct(order + ("HHI" if implicit else "HH2sH"))
        self._start = 0
        self._window = b""
        self._elements = 0
        self.values: dict[int, bytes] = {}
        self.number = self._short

    def _bytes(self, offset: int, count: int) -> bytes:
        start = offset - self._start
        if start < 0 or start + count > len(self._window):
            self._window = self._read(offset, max(count, _WINDOW))
            self._start = offset
            start = 0
        return self._window[start : start + count]

    def _header(self, offset: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Return tag, VR, value length and value offset of the element at ``offset``."""
        head = self._bytes(offset, 8)
        if len(head) < 8:
            raise MalformedDataSetError(
                f"The data set ends inside an element's header, at byte {offset} of {self._size}"
            )
        group, element = self._tag.unpack_from(head)
        tag = group << 16 | element
        vr = head[4:6]
        # An explicit VR that is none: pydicom and others read such an element as implicit, so do
        # we.
        if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            (length,) = self._long.unpack_from(head, 4)
            return tag, b"", length, offset + 8
        if vr in _LONG_LENGTH:
            rest = self._bytes(offset + 8, 4)
            if len(rest) < 4:
                raise MalformedDataSetError(
                    f"The data set ends inside the header of {_shown(tag)}, at byte {offset}"
                )
            (length,) = self._long.unpack(rest)
            return tag, vr, length, offset + 12
        (length,) = self._short.unpack_from(head, 6)
        return tag, vr, length, offset + 8

    def _plain_header(self, offset: int) -> tuple[int, bytes, int, int]:
        """Do what :meth:`_header` does, at once for an element that is nothing special."""
        start = offset - self._start
        if 0 <= start <= len(self._window) - 8:
            if self._implicit:
                group, element, length = self._plain.unpack_from(self._window, start)
                return group << 16 | element, b"", length, offset + 8
            group, element, vr, length = self._plain.unpack_from(self._window, start)
            if vr in _SHORT_LENGTH:
                return group << 16 | element, vr, length, offset + 8
        return self._header(offset, self._implicit)

    def run(self) -> None:
        """Walk the whole data set, gathering the wanted values."""
        offset = 0
        # Up to 7 odd bytes at the end are no element; writers that pad so exist, and readers pass
        # over it.
        while self._size - offset >= 8 and self._elements < _MAX_ELEMENTS:
            tag, vr, length, value = self._plain_header(offset)
            if tag == 0 and self._is_padding(offset):
                return
            if tag <= 0x0000FFFF or tag >> 16 == 0xFFFE:
                raise MalformedDataSetError(
                    f"{_shown(tag)} at byte {offset} has no place in a data set"
                )
            offset = self._end(tag, vr, length, value, 0)
            if tag in _WANTED and length <= _MAX_VALUE:
                self.values.setdefault(tag, self._bytes(value, length))

    def _is_padding(self, offset: int) -> bool:
        """Whether the rest is zeros: some writers fill up to a block, others read past it."""
        rest = self._size - offset
        return rest <= _MAX_PADDING and not any(self._read(offset, rest))

    def _end(self, tag: int, vr: bytes, length: int, value: int, depth: int) -> int:
        """Return where the element's value ends."""
        self._elements += 1
        if length == _UNDEFINED:
            # UN of undefined length holds implicit VR whatever the rest is (PS3.5 6.2.2).
            return self._sequence_end(tag, value, self._implicit or vr == b"UN", depth)
        end = value + length
        if end > self._size:
            raise MalformedDataSetError(
                f"The data set is cut off: {_shown(tag)} should have {length} bytes, "
                f"{max(0, self._size - value)} are there"
            )
        return end

    def _sequence_end(self, tag: int, offset: int, implicit: bool, depth: int) -> int:
        if depth > _MAX_DEPTH:
            raise MalformedDataSetError(f"{_shown(tag)} is nested more than {_MAX_DEPTH} deep")
        while self._elements < _MAX_ELEMENTS:
            item, _, length, value = self._header(offset, implicit)
            self._elements += 1
            if item == _SEQUENCE_END:
                return value
            if item != _ITEM:
                raise MalformedDataSetError(
                    f"{_shown(item)} at byte {offset} where an item of {_shown(tag)} should be"
                )
            if length == _UNDEFINED:
                offset = self._item_end(value, implicit, depth)
            else:
                offset = self._end(item, b"", length, value, depth)
        return self._size

    def _item_end(self, offset: int, implicit: bool, depth: int) -> int:
        while self._elements < _MAX_ELEMENTS:
            tag, vr, length, value = self._header(offset, implicit)
            if tag == _ITEM_END:
                return value
            if length == _UNDEFINED:
                self._elements += 1
                offset = self._sequence_end(tag, value, implicit or vr == b"UN", depth + 1)
            else:
                offset = self._end(tag, vr, length, value, depth)
        return self._size


def read_header(read: Read, size: int, transfer_syntax_uid: str) -> dict[str, str]:
    """Return the catalog's attributes of a data set: keyword to text, without empty ones.

    Parameters
    ----------
    read : callable
        Offset and count to bytes, as ``archive.Incoming.read``.
    size : int
        Bytes of the data set.
    transfer_syntax_uid : str
        As agreed for the presentation context.

    Raises
    ------
    MalformedDataSetError
        If the bytes end in the middle of an element or are no data set: the sentence says where.
    """
    if transfer_syntax_uid == _DEFLATED:
        head, whole = _inflate(read, size)
        walk = _Walk(
            lambda offset, count: head[offset : offset + count],
            len(head),
            implicit=False,
            big_endian=False,
        )
        try:
            walk.run()
        except MalformedDataSetError:
            # The head of a larger data set may well end inside an element.
            if whole:
                raise
    else:
        walk = _Walk(
            read,
            size,
            implicit=transfer_syntax_uid == _IMPLICIT,
            big_endian=transfer_syntax_uid == _BIG_ENDIAN,
        )
        walk.run()
    return _texts(walk)


def attributes_of(dataset: Dataset) -> dict[str, str]:
    """Return the same of a data set in memory, as of the node's own results."""
    texts: dict[str, str] = {}
    for keyword in KEYWORDS:
        value = dataset.get(keyword)
        if value is None:
            continue
        text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
        if text:
            texts[keyword] = text
    return texts


def _inflate(read: Read, size: int) -> tuple[bytes, bool]:
    """Return the first MiB of a deflated data set and whether that is all of it (PS3.5 A.5)."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    head = bytearray()
    offset = 0
    inflated = 0
    try:
        while not stream.eof:
            data = stream.unconsumed_tail
            if not data:
                data = read(offset, _INFLATED_HEAD)
                offset += len(data)
                if not data:
                    raise MalformedDataSetError("The deflated data set is cut off")
            piece = stream.decompress(data, _INFLATED_HEAD)
            inflated += len(piece)
            if len(head) < _INFLATED_HEAD:
                head += piece
    except zlib.error as error:
        raise MalformedDataSetError(f"The deflated data set cannot be inflated: {error}") from error
    return bytes(head), inflated == len(head)


def _texts(walk: _Walk) -> dict[str, str]:
    charsets = [
        part.strip()
        for part in walk.values.get(0x00080005, b"").decode("ascii", "replace").split("\\")
    ]
    texts: dict[str, str] = {}
    for tag, value in walk.values.items():
        keyword = _WANTED[tag]
        if keyword in _NUMBERS:
            text = str(walk.number.unpack_from(value)[0]) if len(value) >= 2 else ""
        else:
            text = _text(value, charsets)
        if text:
            texts[keyword] = text
    return texts


def _text(value: bytes, charsets: list[str]) -> str:
    """Return a value as text without control characters, in the data set's character set."""
    if value.isascii() and b"\x1b" not in value:
        text = value.decode("ascii")
    else:
        encodings = [python_encoding.get(name, "iso8859_1") for name in charsets] or ["iso8859_1"]
        if len(encodings) == 1 and b"\x1b" not in value:
            text = value.decode(encodings[0], "replace")
        else:
            text = decode_bytes(value, encodings, {0x5C, 0x5E, 0x3D})
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable())
    return text.strip()


def _shown(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
