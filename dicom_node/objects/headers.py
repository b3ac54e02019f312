"""Reading one file's header: everything before the pixel data, as robustly as the field needs.

Files come from archives of thirty years: without preamble or file meta, big endian, deflated,
with character sets that do not exist and values that break their VR. What cannot be converted is
taken out of the header that is handed on and named in a note; the file itself is never altered.
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import Dataset, config
from pydicom.datadict import dictionary_description, dictionary_has_tag
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.errors import RetriableError

PIXEL_DATA: Final = 0x7FE00010
_PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_ITEM: Final = b"\xfe\xff\x00\xe0"
# Larger elements before the pixel data (private blobs, icons) stay out of memory.
_LARGE: Final = 4 << 20

# What pydicom raises on text that is not DICOM or breaks off; nothing else is caught.
PARSE_ERRORS: Final = (
    AttributeError,
    BytesLengthException,
    EOFError,
    IndexError,
    InvalidDicomError,
    KeyError,
    LookupError,
    NotImplementedError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class UnreadableError(Exception):
    """The file is no DICOM that can be read; the text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where a file keeps its pixel data.

    Attributes
    ----------
    offset
        Bytes from the start of the file to the first pixel value or fragment; None in a deflated
        file, where there is no such place.
    length
        Length in bytes as the element states it; ``UNDEFINED_LENGTH`` when encapsulated.
    available
        Bytes of the file from ``offset`` on.
    whole
        False when the file ends within a fragment of encapsulated data.
    """

    offset: int | None
    length: int
    available: int
    whole: bool = True

    @property
    def is_cut_off(self) -> bool:
        """True when the file ends before the pixel data do."""
        short = self.length != UNDEFINED_LENGTH and self.length > self.available
        return short or not self.whole


@dataclass(frozen=True, slots=True)
class Header:
    """A file's data set without its pixel data.

    Attributes
    ----------
    dataset
        All attributes before the pixel data, converted; ``file_meta`` names the transfer syntax
        (found out where the file does not say).
    pixels
        Where the pixel data are; None when the file has none.
    dropped
        Keywords or tags of attributes whose value could not be converted.
    frame
        Index from 0 of the one frame of a multi-frame image that this header speaks of; None for
        the header of a whole file.
    """

    path: Path
    dataset: Dataset
    pixels: PixelElement | None
    dropped: tuple[str, ...]
    frame: int | None = None


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's remarks on nonconformant values: foreign files are full of them.

    Its log lines quote the values, so they could carry a patient's name.
    """

    def drop(record: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("pydicom")
    log.addFilter(drop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(drop)


def read_header(path: Path) -> Header:
    """Read everything before the pixel data of one file.

    Raises
    ------
    UnreadableError
        The file is empty, breaks off before its pixel data, or is no DICOM.
    RetriableError
        The operating system could not read it.
    """
    found: list[tuple[str | None, int]] = []

    def at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag not in _PIXEL_TAGS:
            return False
        found.append((vr, length))
        return True

    try:
        with path.open("rb") as file, quiet_pydicom():
            size = path.stat().st_size
            dataset = read_partial(file, stop_when=at_pixel_data, defer_size=_LARGE, force=True)
            end = file.tell()
            dropped = _convert_all(dataset)
            syntax = _settle_transfer_syntax(dataset)
            pixels = None
            if found:
                explicit = not dataset.original_encoding[0]
                pixels = _locate(file, end, size, *found[0], explicit=explicit, syntax=syntax)
    except OSError as error:
        if error.errno is None:  # pydicom's own, on elements that break off
            raise UnreadableError(_plain(error)) from error
        raise RetriableError(f"The file {path} could not be read: {error.strerror}.") from error
    except PARSE_ERRORS as error:
        raise UnreadableError(_plain(error)) from error
    _require_sense(dataset, size)
    return Header(path, dataset, pixels, dropped)


def _locate(
    file: BinaryIO,
    start: int,
    size: int,
    vr: str | None,
    length: int,
    *,
    explicit: bool,
    syntax: UID,
) -> PixelElement:
    """Return where the pixel data lie that begin with their tag at ``start``."""
    if syntax == DeflatedExplicitVRLittleEndian:
        return PixelElement(None, length, length)
    long_form = explicit and vr in ("OB", "OW", "OF", "OD", "UN", "OL", "OV")
    offset = start + (12 if long_form else 8)
    whole = length != UNDEFINED_LENGTH or _fragments_are_whole(file, offset, size)
    return PixelElement(offset, length, max(0, size - offset), whole)


def _fragments_are_whole(file: BinaryIO, offset: int, size: int) -> bool:
    """Return whether every fragment of encapsulated pixel data lies in the file (PS3.5 A.4).

    Decoders would paint what is missing of a broken fragment in gray and say nothing.
    """
    while offset + 8 <= size:
        file.seek(offset)
        tag, length = struct.unpack("<4sI", file.read(8))
        if tag != _ITEM:
            return True
        offset += 8 + length
    # A file that ends after its last fragment only lacks the delimiter: all data are there.
    return offset == size


def _plain(error: BaseException) -> str:
    """Return the first line of an error's text: it goes into a sentence."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".")[:200] if text else type(error).__name__


def _require_sense(dataset: Dataset, size: int) -> None:
    """Refuse what ``force=True`` lets through: bytes in which nothing of DICOM was found."""
    if size == 0:
        raise UnreadableError("the file is empty")
    known = [element.tag for element in dataset if element.keyword]
    if len(known) < 2:
        raise UnreadableError("no DICOM attributes were found in it")


def _convert_all(dataset: Dataset) -> tuple[str, ...]:
    """Convert every value now, so that none can fail later; take out those that cannot be.

    Elements that were passed over for their size go too: nothing here needs them.
    """
    dropped: list[str] = []
    for tag in list(dataset.keys()):
        raw: object = dataset.get_item(tag)
        # Typed as bytes, but None where reading was put off.
        if isinstance(raw, RawDataElement) and not raw.value and raw.length > _LARGE:
            del dataset[tag]
            continue
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value or ():
                    dropped.extend(_convert_all(item))
            elif element.VR in ("DS", "IS") and not _is_number(element.value):
                raise ValueError("not a number")
        except PARSE_ERRORS:
            del dataset[tag]
            dropped.append(_name(tag))
    return tuple(dropped)


def _is_number(value: object) -> bool:
    """Return whether a DS or IS value is empty or numbers: pydicom lets some text pass."""
    values = value if isinstance(value, MultiValue) else [value]
    return all(v is None or v == "" or isinstance(v, (int, float, Decimal)) for v in values)


def _name(tag: BaseTag) -> str:
    """Return an attribute's name and tag as PS3.6 prints them."""
    number = f"({tag.group:04X},{tag.element:04X})"
    return f"{dictionary_description(tag)} {number}" if dictionary_has_tag(tag) else number


def _settle_transfer_syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax, filled in from the encoding that was found where it is absent."""
    stated = dataset.file_meta.get("TransferSyntaxUID")
    if stated:
        return UID(stated, config.IGNORE)
    implicit, little = dataset.original_encoding
    found = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    found = found if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = found
    return found
