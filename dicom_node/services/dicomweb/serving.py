"""Serve the DICOMweb application: uvicorn with our TLS, which tells it the client's certificate."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from dicom_node.counters import NOT_HTTP, TLS_HANDSHAKES_FAILED
from dicom_node.services.tls import handshake_cause, handshake_failure

LOGGER = logging.getLogger(__name__)
_STOP_SECONDS: Final = 5
_KEEP_ALIVE_SECONDS: Final = 30
_CONNECTIONS: Final = 200


class _Handshake(ssl.SSLObject):
    """The server's side of a TLS handshake: one that fails is counted, and told in a line.

    asyncio lets such a connection go without a word.
    """

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            TLS_HANDSHAKES_FAILED.labels("dicomweb", handshake_cause(error)).inc()
            LOGGER.warning("A call of the DICOMweb port was closed: %s.", handshake_failure(error))
            raise


class _Protocol(H11Protocol):
    """Puts the SHA-256 of the client's certificate into the scope of each request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note whose connection it is."""
        super().connection_made(transport)
        secure = transport.get_extra_info("ssl_object")
        certificate = None if secure is None else secure.getpeercert(binary_form=True)
        shown = hashlib.sha256(certificate).hexdigest() if certificate else ""
        self.app_state: dict[str, Any] = {**self.app_state, "certificate": shown}

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; uvicorn writes the line."""
        NOT_HTTP.inc()
        super().send_400_response(msg)


class WebServer(uvicorn.Server):
    """The server on a port that was taken before.

    Parameters
    ----------
    app : FastAPI
        What it serves.
    taken : socket
        Listening.
    tls : ssl.SSLContext or None
        With a certificate; None: without TLS.
    on_ready : callable
        Called with the port, once requests are answered.
    """

    def __init__(
        self,
        app: FastAPI,
        taken: socket.socket,
        tls: ssl.SSLContext | None,
        on_ready: Callable[[int], None],
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            limit_concurrency=_CONNECTIONS,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
        super().__init__(config)
        if tls is not None:
            tls.sslobject_class = _Handshake
        self._taken = taken
        self._on_ready = on_ready

    def serve_until_stopped(self) -> None:
        """Answer until SIGTERM, or until `should_exit` is set."""
        self.run(sockets=[self._taken])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then say so."""
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._on_ready(int(self._taken.getsockname()[1]))


def listen(host: str, port: int) -> socket.socket:
    """Take a port.

    Raises
    ------
    OSError
        It cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=128)
    # Connections inherit it. asyncio sets it only on sockets that name TCP as their protocol, which
    # these do not: each answer's second piece would wait 40 ms for the caller's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
