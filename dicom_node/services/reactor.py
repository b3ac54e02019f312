"""pynetdicom's upper layer without its polling sleeps, and with a short way for C-STORE data.

In pynetdicom an association is two threads that look every millisecond whether the other has
left something in a queue; one instance then costs some 3 ms. Here one thread does both: whoever
waits for a message or an ACSE primitive turns the upper layer itself, which blocks on the socket.

The state machine, the PDUs, the negotiation and the service classes stay pynetdicom's, with its
tables of PS3.8 9.2. One thing is short-circuited: P-DATA in Sta6, where the machine goes from Sta6
to Sta6. The fragments of a C-STORE-RQ's data set go from the receive buffer to the file, and its
response is written by hand; every other message is passed on to pynetdicom's DIMSE provider.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.transport import T_CONNECT, AssociationSocket

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
from dicom_node.services.reception import Answer, StoreRequest

LOGGER = logging.getLogger(__name__)

_P_DATA_TF: Final = 4
_HEADER: Final = struct.Struct(">BxI")
_PDV: Final = struct.Struct(">IBB")
# Room for 128 proposed contexts with 40 transfer syntaxes each; nothing else but P-DATA is long.
_MAX_OTHER_PDU: Final = 1 << 20
# Senders that overstep the negotiated length a little are common; this much is no oversight.
_MAX_P_DATA_PDU: Final = 1 << 22
# The data set of any message but C-STORE: an identifier of a query.
_MAX_IDENTIFIER: Final = 1 << 20
# The Command Fields of PS3.7 E.1 that pynetdicom knows; another would break its decoder.
_COMMAND_FIELDS: Final = frozenset(
    base | kind
    for base in (0x01, 0x10, 0x20, 0x21, 0x30, 0x100, 0x110, 0x120, 0x130, 0x140, 0x150)
    for kind in (0x0000, 0x8000)
) | {0x0FFF}
_ENDED_STATES: Final = frozenset({"Sta1", "Sta13"})
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
# After a release or an abort, how long the peer may take to close the connection.
_LINGER: Final = 1.0
_A_ABORT: Final = b"\x07\0\0\0\0\4\0\0\2\0"
_INVALID_PDU: Final = "Evt19"
_CONNECTION_CLOSED: Final = "Evt17"
_ARTIM_EXPIRED: Final = "Evt18"


class StoreSink(Protocol):
    """Takes one data set, see ``reception.Reception``."""

    def write(self, data: ByteSource) -> None:
        """Take some of its bytes."""

    def finish(self) -> Answer:
        """File it and say what to answer."""

    def abandon(self) -> None:
        """Forget it."""


class Stopping(Protocol):
    """Tells associations that the listener stops: set, and readable, from then on."""

    def is_set(self) -> bool:
        """Whether it stops."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""


class DirectSocket(AssociationSocket):
    """A connected socket with kernel deadlines, read by exact lengths."""

    def __init__(self, assoc: Association, connection: socket.socket, deadline: float) -> None:
        connection.settimeout(None)
        limit = struct.pack("ll", int(deadline), int(deadline % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        super().__init__(assoc, client_socket=connection)
        if assoc.is_requestor:
            # There the connection is confirmed when the state machine asks for it (Evt2).
            self.event_queue.get(block=False)
        self._pushed_back = b""
        self._deadline = deadline

    def connect(self, primitive: T_CONNECT) -> None:
        """Confirm the connection, which stands already (AE-1 of PS3.8 Table 9-6)."""
        primitive.result = "Evt2"
        self.provider_queue.put(primitive)

    def push_back(self, data: bytes) -> None:
        """Give bytes back, to be read again."""
        self._pushed_back = data

    def read_into(self, view: memoryview) -> bool:
        """Fill ``view`` from the connection; False when the peer closed it or a deadline passed.

        The deadline holds for the whole of a PDU, so that dripping bytes does not help a peer.
        """
        connection = self.socket
        if connection is None:
            return False
        until = time.monotonic() + self._deadline
        flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
        try:
            while view:
                count = connection.recv_into(view, 0, flags)
                # Less than asked for: closed, a deadline, TLS, or a signal to the process.
                if count == 0 or (count < len(view) and time.monotonic() >= until):
                    return False
                view = view[count:]
        except OSError:
            return False
        return True

    def recv(self, nr_bytes: int) -> bytearray:
        """Return exactly ``nr_bytes``, or what there is of them when the connection ends."""
        data, self._pushed_back = self._pushed_back[:nr_bytes], self._pushed_back[nr_bytes:]
        rest = bytearray(nr_bytes - len(data))
        if rest and not self.read_into(memoryview(rest)):
            return bytearray(data)
        return bytearray(data) + rest

    def wait(self, stopping: Stopping | None, seconds: float) -> bool:
        """Return when the peer sent something (True), the listener stops or the time is over."""
        connection = self.socket
        if connection is None:
            return True
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        # Without this the peer's Nagle may wait for an acknowledgement that ours delays.
        if _QUICKACK is not None:
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if stopping is not None:
            poll.register(stopping, select.POLLIN)
        ready = poll.poll(max(0.0, seconds) * 1000)
        return any(descriptor == connection.fileno() for descriptor, _ in ready)

    def _shutdown_socket(self) -> None:
        """Shut down and close: pynetdicom leaves it open when the peer closed it first."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class DirectUpperLayer(DULServiceProvider):
    """The DUL provider, run by whoever waits for it instead of by a thread.

    Parameters
    ----------
    assoc : DirectAssociation
        The association that it serves.
    """

    def __init__(self, assoc: DirectAssociation) -> None:
        super().__init__(assoc)
        self._direct = assoc
        self._messages = StoreMessages(assoc)
        self._buffer = bytearray(assoc.max_pdu + 256)

    # What pynetdicom asks of the thread that this is not.

    def start(self) -> None:
        """Be ready; no thread is started."""
        self._idle_timer.start()
        self._direct._dul_ready.set()

    def is_alive(self) -> bool:
        """Whether the state machine still has something to do."""
        return not self._kill_thread

    def stop_dul(self) -> bool:
        """Give the peer a moment to close the connection, then close it; True once idle."""
        until = time.monotonic() + _LINGER
        while self.state_machine.current_state != "Sta1" and not self._kill_thread:
            left = until - time.monotonic()
            if left <= 0:
                self._close()
                break
            self.turn(left)
        self._kill_thread = True
        return True

    def _close(self) -> None:
        self._direct.connection._shutdown_socket()
        self._kill_thread = True

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        """Return the next ACSE primitive, turning the upper layer meanwhile if told to wait."""
        until = time.monotonic() + (timeout if timeout is not None else self._direct.patience)
        while wait and self.to_user_queue.empty() and not self._kill_thread:
            left = until - time.monotonic()
            if left <= 0:
                break
            self.turn(left)
        return super().receive_pdu(wait=False)

    def send_pdu(self, primitive: Any) -> None:
        """Send at once; dropped when the association is over, as nobody would take it."""
        is_over = self.state_machine.current_state in _ENDED_STATES
        if self._kill_thread or (is_over and not isinstance(primitive, A_ASSOCIATE)):
            return
        super().send_pdu(primitive)
        self._run_events()
        # An abort or a C-CANCEL may have come while a service class sends its answers.
        if isinstance(primitive, P_DATA) and not self._kill_thread:
            self.turn(0)

    # The reactor.

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._messages.in_message

    def abandon(self) -> None:
        """Forget a message that will not come to its end."""
        self._messages.abandon()

    def turn(self, seconds: float) -> None:
        """Act on what is due, then wait at most ``seconds`` for one PDU and act on it."""
        self._run_events()
        if self._kill_thread or self.socket is None:
            return
        artim = self.artim_timer
        is_timed = artim._start_time is not None and artim._end_time is None
        if is_timed and artim.expired:
            self.event_queue.put(_ARTIM_EXPIRED)
        elif self._wait(min(seconds, artim.remaining) if is_timed else seconds):
            self._idle_timer.restart()
            self._read_pdu_data()
        self._run_events()

    def _wait(self, seconds: float) -> bool:
        association = self._direct
        connection = association.connection
        if association.stopping is None or association.is_stopping:
            return connection.wait(None, seconds)
        if connection.wait(association.stopping, seconds):
            return True
        association.is_stopping = association.stopping.is_set()
        return False

    def _run_events(self) -> None:
        while not self._kill_thread:
            if self.event_queue.empty() and not self._process_recv_primitive():
                return
            self.state_machine.do_action(self.event_queue.get(block=False))

    def _read_pdu_data(self) -> None:
        """Read one PDU; P-DATA on an established association goes the short way."""
        connection = self._direct.connection
        header = memoryview(self._buffer)[:6]
        if not connection.read_into(header):
            self.event_queue.put(_CONNECTION_CLOSED)
            return
        kind, length = _HEADER.unpack(header)
        is_data = kind == _P_DATA_TF and self.state_machine.current_state == "Sta6"
        if length > (_MAX_P_DATA_PDU if is_data else _MAX_OTHER_PDU):
            LOGGER.error("A PDU of type %02X with %d bytes is too long to be one", kind, length)
            self.event_queue.put(_INVALID_PDU)
            return
        if not is_data:
            connection.push_back(bytes(header))
            super()._read_pdu_data()
            return
        header.release()
        if length > len(self._buffer):
            self._buffer = bytearray(length)
        body = memoryview(self._buffer)[:length]
        if not connection.read_into(body):
            self.event_queue.put(_CONNECTION_CLOSED)
        elif not self._messages.take(body):
            self.event_queue.put(_INVALID_PDU)


class StoreMessages:
    """Puts the fragments of messages together: C-STORE to the archive, the rest to pynetdicom."""

    def __init__(self, assoc: DirectAssociation) -> None:
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

    def take(self, body: memoryview) -> bool:
        """Take the presentation data values of one PDU; False if they are none (PS3.8 9.3.5)."""
        offset = 0
        while offset < len(body):
            if len(body) - offset < 6:
                return False
            length, context_id, control = _PDV.unpack_from(body, offset)
            end = offset + 4 + length
            if length < 2 or end > len(body):
                return False
            if not self._fragment(context_id, control, body[offset + 6 : end]):
                return False
            offset = end
        return True

    def _fragment(self, context_id: int, control: int, data: memoryview) -> bool:
        if self.in_message and context_id != self._context_id:
            return False
        last = bool(control & 2)
        if control & 1:
            if self._store is not None or self._passing_on:
                return False
            self._context_id = context_id
            self._command += data
            if len(self._command) > MAX_COMMAND_SET:
                return False
            return not last or self._begin()
        if self._store is not None:
            if self._sink is not None:
                self._sink.write(data)
            if last:
                self._respond()
            return True
        if not self._passing_on:
            return False
        self._passed_on += len(data)
        if last:
            self._passing_on = False
        return self._passed_on <= _MAX_IDENTIFIER and self._pass_on(b"\2" if last else b"\0", data)

    def _begin(self) -> bool:
        """Act on a whole command set."""
        command = bytes(self._command)
        self._command.clear()
        try:
            values = elements_of(command)
            field = number(values, 0x0100)
            has_data = number(values, 0x0800) != NO_DATA_SET
            if field == C_STORE_RQ and has_data and self._assoc.takes_instances:
                self._store = store_command(values)
        except MalformedCommandError as error:
            LOGGER.error("Invalid command set: %s", error)
            return False
        if self._store is not None:
            context = self._assoc._accepted_cx.get(self._context_id)
            if context is None:
                LOGGER.error("A C-STORE came on context %d, never agreed", self._context_id)
                self._store = None
                return False
            self._sink = self._assoc.open_sink(
                StoreRequest(
                    uid_text(self._store.sop_class_uid),
                    uid_text(self._store.sop_instance_uid),
                    str(context.transfer_syntax[0]),
                    str(context.abstract_syntax),
                )
            )
            return True
        self._passing_on = has_data
        self._passed_on = 0
        return field in _COMMAND_FIELDS and self._pass_on(b"\3", command)

    def _respond(self) -> None:
        command, sink = self._store, self._sink
        self._store = self._sink = None
        if command is None or sink is None:
            return
        answer = sink.finish()
        self._assoc.connection.send(
            store_response(
                command,
                self._context_id,
                answer.status,
                answer.comment,
                self._assoc.requestor.maximum_length or 0,
            )
        )

    def _pass_on(self, control: bytes, data: ByteSource) -> bool:
        """Hand a fragment to pynetdicom; False if its decoder does not take it."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((self._context_id, control + bytes(data)))
        try:
            self._assoc.dimse.receive_primitive(primitive)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error, EOFError) as error:
            LOGGER.error("Invalid message: %s", error)
            return False
        return True


class DirectDimse(DIMSEServiceProvider):
    """The DIMSE provider that turns the upper layer when asked for a message."""

    def __init__(self, assoc: DirectAssociation) -> None:
        super().__init__(assoc)
        self._direct = assoc

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message, waiting for one or for the end of the association."""
        association = self._direct
        layer = association.upper_layer
        began = time.monotonic()
        while self.msg_queue.empty() and layer.to_user_queue.empty() and layer.is_alive():
            patience = association.patience_for(in_message=layer.in_message)
            if block and self.dimse_timeout is not None:
                patience = self.dimse_timeout
            left = began + patience - time.monotonic()
            if left <= 0 or (association.is_stopping and not layer.in_message):
                LOGGER.info("Association with %s is aborted", association.requestor.ae_title)
                association.abort()
                break
            before = layer._idle_timer._start_time
            layer.turn(left)
            if layer._idle_timer._start_time != before:
                began = time.monotonic()
        return super().get_msg(block=False)


class DirectAssociation(Association):
    """An association in one thread: its own as an acceptor, the caller's as a requestor.

    Parameters
    ----------
    ae : pynetdicom.AE
        The local application entity.
    mode : {"acceptor", "requestor"}
        Who opened it.
    max_pdu : int
        Bytes of a P-DATA-TF PDU that we offer to take.
    patience, idle_patience : float
        Seconds without a PDU in the middle of a message, and between messages.
    stopping : Stopping, optional
        Readable when the listener stops.
    open_sink : callable, optional
        Opens a sink for an arriving data set.
    on_end : callable, optional
        Called once, when the association is over.
    """

    connection: DirectSocket

    def __init__(
        self,
        ae: Any,
        mode: str = "acceptor",
        *,
        max_pdu: int,
        patience: float,
        idle_patience: float,
        stopping: Stopping | None = None,
        open_sink: Callable[[DirectAssociation, StoreRequest], StoreSink] | None = None,
        on_end: Callable[[DirectAssociation], None] | None = None,
    ) -> None:
        super().__init__(ae, mode)
        self.stopping = stopping
        self.is_stopping = False
        self.max_pdu = max_pdu
        self.patience = patience
        self._idle_patience = idle_patience
        self._open_sink = open_sink
        self._on_end = on_end
        self.upper_layer = DirectUpperLayer(self)
        self.dul = self.upper_layer
        self.dimse = DirectDimse(self)
        # Their setters write through to the upper layer, which is a new one.
        self.acse_timeout = self.ae.acse_timeout
        self.network_timeout = idle_patience
        # pynetdicom's callers wait for their reactor thread to pause; here is none to wait for.
        self._is_paused = True

    def attach(self, connection: socket.socket) -> None:
        """Serve the peer at the other end of ``connection``, or call it there."""
        self.connection = DirectSocket(self, connection, self.patience)
        self.set_socket(self.connection)

    @property
    def takes_instances(self) -> bool:
        """Whether arriving data sets go to a sink."""
        return self._open_sink is not None

    def open_sink(self, request: StoreRequest) -> StoreSink | None:
        """Open a sink for an arriving data set."""
        return self._open_sink(self, request) if self._open_sink is not None else None

    def patience_for(self, *, in_message: bool) -> float:
        """Return how many seconds the peer may be silent now."""
        return min(self.patience, self._idle_patience) if in_message else self._idle_patience

    def run_reactor(self) -> None:
        """Serve an acceptor's association from its request to its end."""
        orderly = False
        try:
            super().run_reactor()
            orderly = True
        finally:
            # Whatever went wrong, this association alone pays for it.
            self.finish(orderly=orderly)

    def finish(self, *, orderly: bool) -> None:
        """Leave nothing behind: no half message, no open socket."""
        self.upper_layer.abandon()
        connection = self.connection.socket
        if connection is not None:
            with suppress(OSError):
                if not orderly:
                    connection.send(_A_ABORT)
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        if self._on_end is not None:
            self._on_end(self)
