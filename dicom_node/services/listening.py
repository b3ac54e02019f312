"""The listening sockets, and an association in one thread for each connection (see ``reactor``)."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.counters import TLS_HANDSHAKES_FAILED
from dicom_node.services.association import ListenerSettings
from dicom_node.services.messages import StoreSink
from dicom_node.services.reactor import DirectAssociation
from dicom_node.services.reception import StoreRequest
from dicom_node.services.tls import handshake_cause

# Connections beyond the associations allowed: enough to refuse them politely, not enough to hurt.
_WAITING_ROOM: Final = 32


class StopSignal:
    """An event that can be waited for together with a socket."""

    def __init__(self) -> None:
        self._receiver, self._sender = os.pipe()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._receiver

    def set(self) -> None:
        """Tell all who wait."""
        os.write(self._sender, b"\0")

    def is_set(self) -> bool:
        """Whether :meth:`set` was called."""
        return bool(select.select([self._receiver], [], [], 0)[0])

    def close(self) -> None:
        """Free the descriptors; nobody may wait any more."""
        os.close(self._receiver)
        os.close(self._sender)


class DirectServer(ThreadedAssociationServer):
    """pynetdicom's server, making associations of ours.

    Parameters
    ----------
    entity : pynetdicom.AE
        The local application entity.
    settings : ListenerSettings
        How to listen.
    port : int
        Where.
    stopping : StopSignal
        Set when the listener stops.
    tls : callable, optional
        Returns the TLS context in force; asked at each connection. Without it, the port is plain.
    on_handshake_failed : callable
        Called with the caller's address and what went wrong.
    open_sink, on_end : callable
        See ``reactor.DirectAssociation``.
    evt_handlers : list
        pynetdicom's event handlers.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        entity: AE,
        settings: ListenerSettings,
        port: int,
        *,
        stopping: StopSignal,
        tls: Callable[[], ssl.SSLContext] | None,
        on_handshake_failed: Callable[[str, OSError], None],
        open_sink: Callable[[DirectAssociation, StoreRequest], StoreSink],
        on_end: Callable[[DirectAssociation], None],
        evt_handlers: list[Any],
    ) -> None:
        self.settings = settings
        self.open_sink = open_sink
        self.stopping = stopping
        self.tls = tls
        self.on_handshake_failed = on_handshake_failed
        self._on_end = on_end
        self._guard = threading.Lock()
        self._running: set[DirectAssociation] = set()
        self._handshakes: set[socket.socket] = set()
        super().__init__(
            entity,
            (settings.host, port),
            settings.ae_title,
            [],
            evt_handlers=evt_handlers,
            request_handler=DirectRequestHandler,
        )

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection; without room it is closed at once."""
        with self._guard:
            connected = len(self._running) + len(self._handshakes)
            return connected < self.settings.max_associations + _WAITING_ROOM

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        if self.tls is not None:
            with self._guard:
                self._handshakes.add(request)
        super().process_request(request, client_address)

    def secured(self, connection: socket.socket, host: str) -> ssl.SSLSocket | None:
        """Do the TLS handshake, within the time that an association request has; None if it fails.

        In the connection's own thread: a caller that takes its time holds up no other.
        """
        if self.tls is None:
            raise RuntimeError("this port is without TLS")
        secure: ssl.SSLSocket | None = None
        try:
            connection.settimeout(self.settings.acse_timeout)
            secure = self.tls().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            secure.do_handshake()
            return secure
        except OSError as error:
            (secure or connection).close()
            TLS_HANDSHAKES_FAILED.labels("dicom", handshake_cause(error)).inc()
            self.on_handshake_failed(host, error)
            return None
        finally:
            with self._guard:
                self._handshakes.discard(connection)

    def cut_off_handshakes(self) -> None:
        """End the handshakes that are going on; the listener stops."""
        with self._guard:
            for connection in self._handshakes:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def service_actions(self) -> None:
        """Do nothing: pynetdicom collects garbage here, a fifth of a second for all to wait."""

    def running(self) -> list[DirectAssociation]:
        """Return the associations that have not ended."""
        with self._guard:
            return list(self._running)

    def began(self, association: DirectAssociation) -> None:
        """Note a new association."""
        with self._guard:
            self._running.add(association)

    def ended(self, association: DirectAssociation) -> None:
        """Forget an association, and tell that it ended."""
        with self._guard:
            self._running.discard(association)
        self._on_end(association)


class DirectRequestHandler(RequestHandler):
    """Makes the association for an accepted connection."""

    server: DirectServer

    def handle(self) -> None:
        """Serve the connection, once it is secure where the port is one for TLS."""
        if self.server.tls is not None:
            secure = self.server.secured(self.request, self.client_address[0])
            if secure is None:
                return
            self.request = secure
        super().handle()

    def _create_association(self) -> Association:
        server = self.server
        settings = server.settings
        association = DirectAssociation(
            self.ae,
            stopping=server.stopping,
            max_pdu=settings.max_pdu,
            patience=settings.network_timeout,
            idle_patience=settings.idle_timeout,
            open_sink=server.open_sink,
            on_end=server.ended,
        )
        association._server = server
        # pynetdicom finds its acceptors by this name.
        association.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        association.attach(self.request)
        acceptor = association.acceptor
        acceptor.maximum_length = settings.max_pdu
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        association.requestor.address_info = self.remote
        for event, bound in server._handlers.items():
            for handler, arguments in [bound] if isinstance(bound, tuple) else bound:
                association.bind(event, handler, arguments)
        server.began(association)
        return association
