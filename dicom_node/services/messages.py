"""Messages put together from their fragments: C-STORE to the archive, the rest to pynetdicom."""

from __future__ import annotations

import struct
from typing import Any, Final, Protocol

from pynetdicom.pdu_primitives import P_DATA

from dicom_node.counters import OBJECTS_REFUSED
from dicom_node.durable import ByteSource
from dicom_node.services.command_set import (
    C_STORE_RQ,
    MAX_COMMAND_SET,
    NO_DATA_SET,
    MalformedCommandError,
    StoreCommand,
    elements_of,
    number,
    store_command,
    store_response,
    uid_text,
)
from dicom_node.services.connection import DirectSocket
from dicom_node.services.reception import Answer, StoreRequest

_PDV: Final = struct.Struct(">IBB")
# The data set of any message but C-STORE: an identifier of a query.
_MAX_IDENTIFIER: Final = 1 << 20
# The Command Fields of PS3.7 E.1 that pynetdicom knows; another would break its decoder.
_COMMAND_FIELDS: Final = frozenset(
    base | kind
    for base in (0x01, 0x10, 0x20, 0x21, 0x30, 0x100, 0x110, 0x120, 0x130, 0x140, 0x150)
    for kind in (0x0000, 0x8000)
) | {0x0FFF}


class MalformedMessageError(ValueError):
    """What came is no DICOM message; says why, in words of our own alone."""


class StoreSink(Protocol):
    """Takes one data set, see ``reception.Reception``."""

    def write(self, data: ByteSource) -> None:
        """Take some of its bytes."""

    def finish(self) -> Answer:
        """File it and say what to answer."""

    def abandon(self) -> None:
        """Forget it."""


class StoreAssociation(Protocol):
    """What is needed of an association, see ``reactor.DirectAssociation``."""

    connection: DirectSocket
    dimse: Any
    requestor: Any
    _accepted_cx: Any

    @property
    def takes_instances(self) -> bool:
        """Whether arriving data sets go to a sink."""

    def open_sink(self, request: StoreRequest) -> StoreSink | None:
        """Open a sink for an arriving data set."""


class StoreMessages:
    """Puts the fragments of messages together: C-STORE to the archive, the rest to pynetdicom."""

    def __init__(self, assoc: StoreAssociation) -> None:
        self._assoc = assoc
        self._command = bytearray()
        self._context_id = 0
        self._store: StoreCommand | None = None
        self._sink: StoreSink | None = None
        self._passing_on = False
        self._passed_on = 0

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._command) or self._store is not None or self._passing_on

    def abandon(self) -> None:
        """Forget the message at hand; nothing of it stays on disk."""
        sink, self._sink, self._store = self._sink, None, None
        self._command.clear()
        self._passing_on = False
        if sink is not None:
            sink.abandon()

    def take(self, body: memoryview) -> None:
        """Take the presentation data values of one PDU (PS3.8 9.3.5).

        Raises
        ------
        MalformedMessageError
            If it holds none, or they make no message.
        """
        offset = 0
        while offset < len(body):
            if len(body) - offset < 6:
                raise MalformedMessageError("a PDU that ends inside a fragment's header")
            length, context_id, control = _PDV.unpack_from(body, offset)
            end = offset + 4 + length
            if length < 2 or end > len(body):
                raise MalformedMessageError(
                    f"a fragment of {length} bytes that its PDU cannot hold"
                )
            self._fragment(context_id, control, body[offset + 6 : end])
            offset = end

    def _fragment(self, context_id: int, control: int, data: memoryview) -> None:
        if self.in_message and context_id != self._context_id:
            raise MalformedMessageError("a message on two presentation contexts")
        last = bool(control & 2)
        if control & 1:
            self._take_command(context_id, data, last)
        elif self._store is not None:
            if self._sink is not None:
                self._sink.write(data)
            if last:
                self._respond()
        elif self._passing_on:
            self._passed_on += len(data)
            if self._passed_on > _MAX_IDENTIFIER:
                raise MalformedMessageError(f"an identifier of more than {_MAX_IDENTIFIER} bytes")
            if last:
                self._passing_on = False
            self._pass_on(b"\2" if last else b"\0", data)
        else:
            raise MalformedMessageError("a data set without a command")

    def _take_command(self, context_id: int, data: memoryview, last: bool) -> None:
        if self._store is not None or self._passing_on:
            raise MalformedMessageError("a command where a data set should be")
        self._context_id = context_id
        self._command += data
        if len(self._command) > MAX_COMMAND_SET:
            raise MalformedMessageError(f"a command set of more than {MAX_COMMAND_SET} bytes")
        if last:
            self._begin()

    def _begin(self) -> None:
        """Act on a whole command set."""
        command = bytes(self._command)
        self._command.clear()
        try:
            values = elements_of(command)
            field = number(values, 0x0100)
            has_data = number(values, 0x0800) != NO_DATA_SET
            store = None
            if field == C_STORE_RQ and has_data and self._assoc.takes_instances:
                store = store_command(values)
        except MalformedCommandError as error:
            raise MalformedMessageError(f"an invalid command set: {error}") from error
        if store is None:
            if field not in _COMMAND_FIELDS:
                raise MalformedMessageError(f"a command set of the unknown kind {field:04X}")
            self._passing_on = has_data
            self._passed_on = 0
            self._pass_on(b"\3", command)
            return
        context = self._assoc._accepted_cx.get(self._context_id)
        if context is None:
            raise MalformedMessageError(f"a C-STORE on context {self._context_id}, never agreed")
        self._store = store
        self._sink = self._assoc.open_sink(
            StoreRequest(
                uid_text(store.sop_class_uid),
                uid_text(store.sop_instance_uid),
                str(context.transfer_syntax[0]),
                str(context.abstract_syntax),
                store.originator,
            )
        )

    def _respond(self) -> None:
        command, sink = self._store, self._sink
        self._store = self._sink = None
        if command is None or sink is None:
            return
        answer = sink.finish()
        if answer.status:
            OBJECTS_REFUSED.labels("c_store", f"{answer.status:04X}").inc()
        self._assoc.connection.send(
            store_response(
                command,
                self._context_id,
                answer.status,
                answer.comment,
                self._assoc.requestor.maximum_length or 0,
            )
        )

    def _pass_on(self, control: bytes, data: ByteSource) -> None:
        """Hand a fragment to pynetdicom, whose decoder may not take it."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((self._context_id, control + bytes(data)))
        try:
            self._assoc.dimse.receive_primitive(primitive)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error, EOFError) as error:
            raise MalformedMessageError("a command set that cannot be read") from error
