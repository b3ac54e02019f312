"""The files behind an address: whole objects, their metadata, their bulk data (PS3.18 10.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from pydicom import DataElement, dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.byte_order import is_big_endian, turn_to_little_endian
from dicom_node.errors import FinalError, RetriableError
from dicom_node.objects.headers import PARSE_ERRORS, UnreadableError, quiet_pydicom, read_header
from dicom_node.part10 import read_file_meta

EXPLICIT: Final = str(ExplicitVRLittleEndian)
_PIECE: Final = 1 << 20
# Values up to this size stand in the metadata; larger ones are named by an address.
_MOST_INLINE: Final = 1024
_PIXEL_DATA: Final = "7FE00010"


class NotAcceptableError(FinalError):
    """The object cannot be given in a form that the client takes."""


def transfer_syntax_of(path: Path) -> str:
    """Return the transfer syntax of a file.

    Raises
    ------
    RetriableError
        The file cannot be read now.
    """
    try:
        with path.open("rb") as file:
            return read_file_meta(file, path.name).transfer_syntax_uid
    except OSError as error:
        raise RetriableError(f"a file of the archive cannot be read ({error.strerror})") from error


def whole_file(path: Path, syntaxes: Sequence[str]) -> tuple[str, Iterator[bytes]]:
    """Return the transfer syntax and the bytes of a whole object.

    The bytes are those that came, wherever the client can take them.

    Parameters
    ----------
    path
        The file.
    syntaxes
        Transfer syntaxes that the client takes; ``*`` is any.

    Raises
    ------
    NotAcceptableError
        The client takes none that it can be had in.
    RetriableError
        The file cannot be read now.
    """
    stored = transfer_syntax_of(path)
    if stored in syntaxes or "*" in syntaxes:
        return stored, _pieces(path)
    if EXPLICIT not in syntaxes:
        raise NotAcceptableError(
            f"the object is stored as {UID(stored).name} ({stored}), which the request does not "
            "take; ask with transfer-syntax=*"
        )
    return EXPLICIT, iter([_decompressed(path)])


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _decompressed(path: Path) -> bytes:
    try:
        with quiet_pydicom():
            dataset = dcmread(path)
            if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
                dataset.decompress(generate_instance_uid=False)
            elif is_big_endian(dataset.file_meta.TransferSyntaxUID):
                turn_to_little_endian(dataset)
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            out = BytesIO()
            dataset.save_as(out, implicit_vr=False, little_endian=True)
    except (*PARSE_ERRORS, RuntimeError) as error:
        raise NotAcceptableError(
            f"the object cannot be decompressed ({type(error).__name__}); ask with "
            "transfer-syntax=*"
        ) from error
    return out.getvalue()


def metadata(path: Path, url: str) -> dict[str, Any]:
    """Return all attributes as DICOM JSON, with addresses in place of large values (F.2.6).

    Parameters
    ----------
    path
        The file.
    url
        Address of the instance.

    Raises
    ------
    FinalError
        The file cannot be read as DICOM.
    """
    try:
        header = read_header(path)
    except UnreadableError as error:
        raise FinalError(f"the object cannot be read: {error}") from error
    with quiet_pydicom():
        found = _json(header.dataset, f"{url}/bulkdata/")
    if header.pixels is not None:
        vr = "OB" if UID(transfer_syntax_of(path)).is_encapsulated else "OW"
        found[_PIXEL_DATA] = {"vr": vr, "BulkDataURI": f"{url}/bulkdata/{_PIXEL_DATA}"}
    # In JSON text is UTF-8 (PS3.18 F.2.1.1).
    if "00080005" in found:
        found["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return found


def _json(dataset: Dataset, url: str) -> dict[str, Any]:
    """As pydicom does it, but with an address for each large value, in items too."""
    found: dict[str, Any] = {}
    for element in dataset:
        if element.tag.element == 0:
            continue
        key = f"{element.tag:08X}"
        if element.VR == "SQ":
            items = [
                _json(item, f"{url}{key}/{number}/")
                for number, item in enumerate(element.value or (), start=1)
            ]
            found[key] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
            continue
        if isinstance(element.value, bytes) and len(element.value) > _MOST_INLINE:
            found[key] = {"vr": str(element.VR), "BulkDataURI": f"{url}{key}"}
            continue
        try:
            found[key] = element.to_json_dict(None, 1 << 30)
        except PARSE_ERRORS:
            continue  # one value that breaks its VR does not keep the others back
    return dict(sorted(found.items()))


def bulk_value(path: Path, place: Sequence[str]) -> bytes:
    """Return a value that `metadata` names by address.

    Parameters
    ----------
    path
        The file.
    place
        Tags of eight hexadecimal digits, with item numbers from 1 between them.

    Raises
    ------
    LookupError
        There is no such value.
    """
    try:
        with quiet_pydicom():
            element = _element(dcmread(path, defer_size=_PIECE), place)
            value = element.value
    except PARSE_ERRORS as error:
        raise LookupError("/".join(place)) from error
    if not isinstance(value, bytes):
        raise LookupError("/".join(place))
    return value


def _element(dataset: Dataset, place: Sequence[str]) -> DataElement:
    tag, *below = place
    element = dataset[Tag(int(tag, 16))]
    if not below:
        return element
    number = int(below[0])
    if number < 1:
        raise IndexError(number)
    return _element(element.value[number - 1], below[1:])
