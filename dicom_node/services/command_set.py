"""Command sets of C-STORE and of C-FIND's responses, by hand (PS3.7 6.3, 9.3.1, 9.3.2).

pynetdicom builds and encodes a data set object for each message; for the two messages of which
thousands come and go, that costs more than writing the image or looking up the match. All other
messages go pynetdicom's way.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

C_STORE_RQ: Final = 0x0001
NO_DATA_SET: Final = 0x0101

# PS3.7 E.1: a command is a dozen short elements. More than this is no command.
MAX_COMMAND_SET: Final = 1 << 14

_STORE_RESPONSE: Final = 0x8001
_FIND_RESPONSE: Final = 0x8020
_WITH_DATA_SET: Final = 0x0001
_PDV_HEADER: Final = 6
_PDU_AND_PDV: Final = struct.Struct(">BBIIBB")
_US: Final = struct.Struct("<HHIH")


class MalformedCommandError(ValueError):
    """The bytes are no command set in Implicit VR Little Endian."""


class Originator(NamedTuple):
    """Who asked by C-MOVE for a C-STORE that is a sub-operation of it (PS3.7 9.1.1.1)."""

    ae_title: str
    message_id: int


class StoreCommand(NamedTuple):
    """What matters of a C-STORE-RQ; the UIDs as the bytes that came, to be sent back.

    `originator` is hostile text; None where the request does not say that it belongs to a C-MOVE.
    """

    message_id: int
    sop_class_uid: bytes
    sop_instance_uid: bytes
    originator: Originator | None = None


class FindCommand(NamedTuple):
    """What matters of a C-FIND-RQ."""

    message_id: int
    sop_class_uid: bytes


def elements_of(command_set: bytes) -> dict[int, bytes]:
    """Return element number to value of a command set (all are of group 0000).

    Raises
    ------
    MalformedCommandError
        If an element is of another group or reaches past the end.
    """
    values: dict[int, bytes] = {}
    offset = 0
    while offset < len(command_set):
        if offset + 8 > len(command_set):
            raise MalformedCommandError("the command set ends inside the header of an element")
        group, element, length = struct.unpack_from("<HHI", command_set, offset)
        offset += 8
        if group != 0 or offset + length > len(command_set):
            raise MalformedCommandError(f"({group:04X},{element:04X}) does not fit the command set")
        values[element] = command_set[offset : offset + length]
        offset += length
    return values


def number(values: dict[int, bytes], element: int) -> int:
    """Return the value of a US element.

    Raises
    ------
    MalformedCommandError
        If it is missing or not of two bytes.
    """
    value = values.get(element, b"")
    if len(value) != 2:
        raise MalformedCommandError(f"(0000,{element:04X}) is missing or not a US")
    return int.from_bytes(value, "little")


def store_command(values: dict[int, bytes]) -> StoreCommand:
    """Return a C-STORE-RQ's fields.

    Raises
    ------
    MalformedCommandError
        If the message ID is missing: no response could name its request.
    """
    return StoreCommand(
        number(values, 0x0110),
        values.get(0x0002, b""),
        values.get(0x1000, b""),
        _originator(values),
    )


def _originator(values: dict[int, bytes]) -> Originator | None:
    """Read (0000,1030) and (0000,1031); half of it, or what is no number, counts as nothing."""
    ae_title, message_id = values.get(0x1030, b""), values.get(0x1031, b"")
    if not ae_title or len(message_id) != 2:
        return None
    return Originator(
        ae_title[:16].decode("ascii", "replace").strip(" \0"), int.from_bytes(message_id, "little")
    )


def uid_text(value: bytes) -> str:
    """Return a UID's text; bytes that no UID has come through as replacement characters."""
    return value.rstrip(b"\0 ").decode("ascii", "replace")


def store_response(
    command: StoreCommand, context_id: int, status: int, comment: str, max_pdu: int
) -> bytes:
    """Return the P-DATA-TF PDUs of a C-STORE-RSP (PS3.7 9.3.1.2, PS3.8 9.3.5).

    Parameters
    ----------
    max_pdu : int
        The longest PDU that the peer takes, 0 for no limit.
    """
    body = b"".join(
        (
            _element(0x0002, command.sop_class_uid),
            _number(0x0100, _STORE_RESPONSE),
            _number(0x0120, command.message_id),
            _number(0x0800, NO_DATA_SET),
            _number(0x0900, status),
            _comment(comment),
            _element(0x1000, command.sop_instance_uid),
        )
    )
    return _pdus(context_id, body, b"", max_pdu)


def error_comment(reason: str) -> str:
    """Return the beginning of a reason as an Error Comment: LO, 64 characters, no backslash."""
    plain = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in reason)
    return plain if len(plain) <= 64 else plain[:61] + "..."


def find_response(
    command: FindCommand,
    context_id: int,
    status: int,
    max_pdu: int,
    *,
    identifier: bytes = b"",
    comment: str = "",
) -> bytes:
    """Return the P-DATA-TF PDUs of a C-FIND-RSP (PS3.7 9.3.2.2, PS3.8 9.3.5).

    Parameters
    ----------
    max_pdu : int
        The longest PDU that the peer takes, 0 for no limit.
    identifier : bytes
        An encoded match; empty for a response without one.
    """
    body = b"".join(
        (
            _element(0x0002, command.sop_class_uid),
            _number(0x0100, _FIND_RESPONSE),
            _number(0x0120, command.message_id),
            _number(0x0800, _WITH_DATA_SET if identifier else NO_DATA_SET),
            _number(0x0900, status),
            _comment(comment),
        )
    )
    return _pdus(context_id, body, identifier, max_pdu)


def _pdus(context_id: int, command: bytes, data_set: bytes, max_pdu: int) -> bytes:
    """Return a message in fragments, one to a PDU (PS3.7 6.3.1, PS3.8 E.2)."""
    message = _element(0x0000, len(command).to_bytes(4, "little")) + command
    pdus: list[bytes] = []
    for kind, whole in ((1, message), (0, data_set)):
        step = max(max_pdu - _PDV_HEADER, 64) if max_pdu else len(whole) or 1
        for start in range(0, len(whole), step):
            piece = whole[start : start + step]
            control = kind | (2 if start + step >= len(whole) else 0)
            length = len(piece) + 2
            pdus += (_PDU_AND_PDV.pack(4, 0, length + 4, length, context_id, control), piece)
    return b"".join(pdus)


def _number(element: int, value: int) -> bytes:
    return _US.pack(0, element, 2, value)


def _comment(text: str) -> bytes:
    return _element(0x0902, text.encode("ascii", "replace")[:64]) if text else b""


def _element(element: int, value: bytes) -> bytes:
    if len(value) % 2:
        value += b" " if element == 0x0902 else b"\0"
    return struct.pack("<HHI", 0, element, len(value)) + value
