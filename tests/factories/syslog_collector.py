"""A collector of syslog: takes messages by TLS or TCP with octet counting, or datagrams."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Message:
    """A message of RFC 5424, taken apart."""

    priority: int
    time: str
    host: str
    application: str
    process: str
    kind: str
    structured: str
    text: str

    @classmethod
    def of(cls, octets: bytes) -> Message:
        header, _, text = octets.partition(b" - \xef\xbb\xbf")
        first, time, host, application, process, kind = header.decode("ascii").split(" ")
        priority, _, version = first[1:].partition(">")
        assert version == "1"
        return cls(int(priority), time, host, application, process, kind, "-", text.decode())


class Collector:
    """Listens until it is closed; what came lies in `messages`, in order.

    Parameters
    ----------
    transport
        ``tls``, ``tcp`` or ``udp``.
    context
        For ``tls``.
    port
        0 for any.
    rude_after
        Bytes after which it resets each connection instead of reading on.
    """

    def __init__(
        self,
        transport: str = "tcp",
        context: ssl.SSLContext | None = None,
        port: int = 0,
        rude_after: int | None = None,
    ) -> None:
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self._socket = socket.socket(socket.AF_INET, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._context = context
        self._rude_after = rude_after
        self.messages: queue.Queue[Message] = queue.Queue()
        self.connections = 0
        self.problems: list[Exception] = []
        if transport != "udp":
            self._socket.listen()
        self.port: int = self._socket.getsockname()[1]
        serve = self._datagrams if transport == "udp" else self._streams
        self._closing = False
        self._thread = threading.Thread(target=serve)
        self._thread.start()

    def got(self, count: int) -> list[Message]:
        """Wait for so many messages."""
        return [self.messages.get(timeout=60) for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._closing = True
        # A listening or waiting socket is woken by this; closing alone would not.
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # a socket for datagrams that is not connected says so, and wakes
            pass
        self._thread.join(60)
        self._socket.close()

    def _datagrams(self) -> None:
        while True:
            octets = self._socket.recv(65536)
            if self._closing:
                return
            self.messages.put(Message.of(octets))

    def _streams(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            try:
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection:
                    self._read(connection)
            except (OSError, ValueError) as error:
                self.problems.append(error)
                connection.close()

    def _read(self, connection: socket.socket) -> None:
        data = b""
        while True:
            if self._rude_after is not None and len(data) >= self._rude_after:
                # Leaves the rest unread and resets.
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            piece = connection.recv(self._rude_after or 65536)
            if not piece:
                break
            data += piece
        while data:
            length, _, rest = data.partition(b" ")
            self.messages.put(Message.of(rest[: int(length)]))
            data = rest[int(length) :]
        if isinstance(connection, ssl.SSLSocket):
            connection.unwrap()
