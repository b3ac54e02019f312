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
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.presentation import PresentationContext

from dicom_node.services.connection import DirectSocket, Stopping
from dicom_node.services.messages import MalformedMessageError, StoreMessages, StoreSink
from dicom_node.services.reception import StoreRequest

LOGGER = logging.getLogger(__name__)

OpenSink = Callable[["DirectAssociation", StoreRequest], StoreSink]
"""Opens a sink for a data set that arrives on an association."""
Server = Callable[[Any, Any, PresentationContext], None]
"""Serves a request (a DIMSE primitive) of an association on one of its contexts."""

_PDU_KINDS: Final = frozenset(range(1, 8))
_P_DATA_TF: Final = 4
_HEADER: Final = struct.Struct(">BxI")
# Room for 128 proposed contexts with 40 transfer syntaxes each; nothing else but P-DATA is long.
_MAX_OTHER_PDU: Final = 1 << 20
# Senders that overstep the negotiated length a little are common; this much is no oversight.
_MAX_P_DATA_PDU: Final = 1 << 22
_ENDED_STATES: Final = frozenset({"Sta1", "Sta13"})
# After a release or an abort, how long the peer may take to close the connection.
_LINGER: Final = 1.0
_A_ABORT: Final = b"\x07\0\0\0\0\4\0\0\2\0"
_INVALID_PDU: Final = "Evt19"
_CONNECTION_CLOSED: Final = "Evt17"
_ARTIM_EXPIRED: Final = "Evt18"


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
        self.is_malformed = False
        self.malformed = ""

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
            event = self.event_queue.get(block=False)
            self.is_malformed |= event == _INVALID_PDU
            self.state_machine.do_action(event)

    def _read_pdu_data(self) -> None:
        """Read a PDU, and what more of its message has come already."""
        while self._read_pdu() and self.in_message and self._direct.connection.holds_more:
            pass

    def _read_pdu(self) -> bool:
        """Read one PDU; True if it was P-DATA that went the short way, as it does in Sta6."""
        connection = self._direct.connection
        header = connection.take(_HEADER.size)
        if header is None:
            self.event_queue.put(_CONNECTION_CLOSED)
            return False
        kind, length = _HEADER.unpack(header)
        if kind not in _PDU_KINDS:
            return self._refuse(f"a PDU of unknown type {kind:02X}")
        is_data = kind == _P_DATA_TF and self.state_machine.current_state == "Sta6"
        if length > (_MAX_P_DATA_PDU if is_data else _MAX_OTHER_PDU):
            return self._refuse(f"a PDU of type {kind:02X} that would have {length} bytes")
        if not is_data:
            connection.give_back(_HEADER.size)
        piece = connection.take(length if is_data else _HEADER.size + length)
        if piece is None:
            self.event_queue.put(_CONNECTION_CLOSED)
            return False
        if not is_data:
            self._decode(kind, bytearray(piece))
            return False
        try:
            self._messages.take(piece)
        except MalformedMessageError as error:
            return self._refuse(str(error))
        return True

    def _decode(self, kind: int, pdu: bytearray) -> None:
        """Have pynetdicom decode a PDU and its state machine act on it."""
        try:
            decoded, event = self._decode_pdu(pdu)
        # The boundary to its decoder: whatever breaks in there, these bytes are no PDU.
        except Exception as error:
            self._refuse(f"a PDU of type {kind:02X} that cannot be read ({type(error).__name__})")
            return
        self.event_queue.put(event)
        self._recv_pdu.put(decoded)

    def _refuse(self, what: str) -> bool:
        """Have the state machine abort the association because of what came."""
        self.malformed = self.malformed or what
        self.event_queue.put(_INVALID_PDU)
        return False


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
    servers: Mapping[type, Server] = MappingProxyType({})
    """What serves which requests in place of pynetdicom's service classes."""

    def __init__(
        self,
        ae: Any,
        mode: str = "acceptor",
        *,
        max_pdu: int,
        patience: float,
        idle_patience: float,
        stopping: Stopping | None = None,
        open_sink: OpenSink | None = None,
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

    def has_cancelled(self, message_id: int) -> bool:
        """Whether the peer takes a request back; acts on what it has sent meanwhile."""
        if self.is_established:
            self.upper_layer.turn(0)
        return message_id in self.dimse.cancel_req

    @property
    def is_over(self) -> bool:
        """Whether nobody is there any more to be answered."""
        return not self.is_established or self.acse.is_aborted() or not self.upper_layer.is_alive()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Serve a request by a server of ours, or else by pynetdicom's service class."""
        serve = self.servers.get(type(msg))
        context = self._accepted_cx.get(context_id)
        if serve is None or context is None or not msg.is_valid_request:
            super()._serve_request(msg, context_id)
            # It has cleared it, and the next request or release from here would wait for ever.
            self._is_paused = True
            return
        self.dimse.cancel_req = {}
        # The reactor clears it at each round; a request sent from here would wait for it for ever.
        self._is_paused = True
        serve(self, msg, context)
        self.dimse.cancel_req = {}

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
        self.connection.forget()
        if self._on_end is not None:
            self._on_end(self)
