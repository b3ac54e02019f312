"""DICOM File Format (PS3.10 7): preamble and file meta before a data set kept as it came.

Written by hand because the bytes must be the same for the same instance at every reception (two
receptions are compared), and because the data set itself is never decoded on its way to the disk.
"""

from __future__ import annotations

import struct
import uuid
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from dicom_node.errors import FinalError

IMPLEMENTATION_CLASS_UID: Final = f"2.25.{uuid.uuid5(uuid.NAMESPACE_DNS, 'unibiomed-node').int}"
IMPLEMENTATION_VERSION_NAME: Final = "UNIBIOMED_NODE"

_PREFIX: Final = b"\0" * 128 + b"DICM"
_LONG_LENGTH: Final = frozenset(
    {b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT", b"OD", b"OL", b"UC", b"UR"}
)
# A file meta group of more than this is no file meta group.
_MAX_META: Final = 1 << 16


class FileMeta(NamedTuple):
    """What a file meta group says, and where the data set begins (bytes from the start)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if vr in _LONG_LENGTH:
        return struct.pack("<HH2sHI", group, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii", "replace")[:64]
    return value + pad if len(value) % 2 else value


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return preamble, prefix and file meta group (PS3.10 7.1) for a received data set.

    No Source Application Entity Title is written, so that two senders of one instance give one
    file.
    """
    group = b"".join(
        (
            _element(2, 0x0001, b"OB", b"\0\1"),
            _element(2, 0x0002, b"UI", _padded(sop_class_uid, b"\0")),
            _element(2, 0x0003, b"UI", _padded(sop_instance_uid, b"\0")),
            _element(2, 0x0010, b"UI", _padded(transfer_syntax_uid, b"\0")),
            _element(2, 0x0012, b"UI", _padded(IMPLEMENTATION_CLASS_UID, b"\0")),
            _element(2, 0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
        )
    )
    return _PREFIX + _element(2, 0x0000, b"UL", struct.pack("<I", len(group))) + group


def read_file_meta(file: BinaryIO, name: str | Path) -> FileMeta:
    """Read the file meta group at the start of ``file`` and leave the position at the data set.

    Raises
    ------
    FinalError
        If the file has no preamble and prefix, or its file meta group is cut off.
    """
    if file.read(132)[128:] != b"DICM":
        raise FinalError(f"{name}: not a DICOM file (no DICM after the preamble, PS3.10 7.1)")
    values: dict[int, str] = {}
    while True:
        start = file.tell()
        head = file.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00" or start > _MAX_META:
            break
        element, vr, length = struct.unpack("<H2sH", head[2:])
        if vr in _LONG_LENGTH:
            (length,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))
        value = file.read(min(length, _MAX_META))
        if len(value) < length:
            raise FinalError(f"{name}: the file ends inside its file meta group")
        values[element] = value.rstrip(b"\0 ").decode("ascii", "replace")
    file.seek(start)
    return FileMeta(values.get(0x0002, ""), values.get(0x0003, ""), values.get(0x0010, ""), start)
