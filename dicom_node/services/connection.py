"""A peer's connection: few system calls on the way in, deadlines kept by the kernel."""

from __future__ import annotations

import hashlib
import select
import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import Final, Protocol

from pynetdicom.association import Association
from pynetdicom.transport import T_CONNECT, AssociationSocket

from dicom_node.peers import PLAIN, Channel

_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
# Room for a CT slice and its command: a sender that waits for each answer begins at the front
# again, so nothing is ever moved.
_ROOM: Final = 1 << 20


class Stopping(Protocol):
    """Tells associations that the listener stops: set, and readable, from then on."""

    def is_set(self) -> bool:
        """Whether it stops."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""


class DirectSocket(AssociationSocket):
    """A connected socket that reads ahead, and hands out pieces of exact length.

    Each system call costs more than its own time here: it gives the interpreter to another
    association, and has to wait to get it back.
    """

    def __init__(self, assoc: Association, connection: socket.socket, deadline: float) -> None:
        connection.settimeout(None)
        limit = struct.pack("ll", int(deadline), int(deadline % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        super().__init__(assoc, client_socket=connection)
        if assoc.is_requestor:
            # There the connection is confirmed when the state machine asks for it (Evt2).
            self.event_queue.get(block=False)
        self._deadline = deadline
        self._room = memoryview(bytearray(_ROOM if assoc.is_acceptor else _ROOM >> 4))
        self._begin = self._end = 0

    def connect(self, primitive: T_CONNECT) -> None:
        """Confirm the connection, which stands already (AE-1 of PS3.8 Table 9-6)."""
        primitive.result = "Evt2"
        self.provider_queue.put(primitive)

    def take(self, count: int) -> memoryview | None:
        """Return the next ``count`` bytes, good until the next call.

        None when the peer closed the connection before, or a deadline passed; it holds for the
        whole piece, so that dripping bytes does not help a peer. What came stays.
        """
        if self._end - self._begin < count and not self._fill(count):
            return None
        piece = self._room[self._begin : self._begin + count]
        self._begin += count
        return piece

    @property
    def holds_more(self) -> bool:
        """Whether more was read than was taken."""
        return self._end > self._begin

    def forget(self) -> None:
        """Let go of what was read ahead, and of the room for it: the association is over.

        Associations are cycles of references; with its room, each that ended would hold a MiB
        until the collector comes by.
        """
        self._room = memoryview(b"")
        self._begin = self._end = 0

    def give_back(self, count: int) -> None:
        """Have the last ``count`` bytes taken again."""
        self._begin -= count

    def _fill(self, count: int) -> bool:
        self._make_room(count)
        connection = self.socket
        if connection is None:
            return False
        self._acknowledge_soon(connection)
        flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
        until = time.monotonic() + self._deadline
        try:
            while (missing := self._begin + count - self._end) > 0:
                got = connection.recv_into(self._room[self._end :], missing, flags)
                self._end += got
                # Less than asked for: closed, a deadline, TLS, or a signal to the process.
                if got == 0 or (got < missing and time.monotonic() >= until):
                    return False
        except OSError:
            return False
        return True

    def _make_room(self, count: int) -> None:
        """Have room for ``count`` bytes from the first that was not taken."""
        held = self._end - self._begin
        if held and self._begin + count <= len(self._room):
            return
        room = self._room if count <= len(self._room) else memoryview(bytearray(count))
        room[:held] = self._room[self._begin : self._end]
        self._room, self._begin, self._end = room, 0, held

    def recv(self, nr_bytes: int) -> bytearray:
        """Return exactly ``nr_bytes``, or what there is of them when the connection ends."""
        piece = self.take(nr_bytes)
        if piece is None:
            piece = self._room[self._begin : self._end]
            self._begin = self._end
        return bytearray(piece)

    def has_something(self) -> bool:
        """Whether there is something to read at once, be it the end of the connection."""
        connection = self.socket
        if connection is None or self.holds_more:
            return True
        self._begin = self._end = 0
        if isinstance(connection, ssl.SSLSocket):
            return self._decrypt(connection)
        try:
            self._end = connection.recv_into(self._room, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _decrypt(self, connection: ssl.SSLSocket) -> bool:
        """Read what is there without waiting: a TLS record need not hold any data of ours."""
        connection.settimeout(0)
        try:
            self._end = connection.recv_into(self._room)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        finally:
            connection.settimeout(None)
        return True

    @property
    def channel(self) -> Channel:
        """How the peer is connected."""
        connection = self.socket
        if not isinstance(connection, ssl.SSLSocket):
            return PLAIN
        certificate = connection.getpeercert(binary_form=True)
        return Channel(True, hashlib.sha256(certificate).hexdigest() if certificate else "")

    def wait(self, stopping: Stopping | None, seconds: float) -> bool:
        """Return when the peer sent something (True), the listener stops or the time is over."""
        connection = self.socket
        if connection is None or self.has_something():
            return True
        self._acknowledge_soon(connection)
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if stopping is not None:
            poll.register(stopping, select.POLLIN)
        until = time.monotonic() + max(0.0, seconds)
        while ready := poll.poll(max(0.0, until - time.monotonic()) * 1000):
            if all(descriptor != connection.fileno() for descriptor, _ in ready):
                return False
            if not isinstance(connection, ssl.SSLSocket) or self._decrypt(connection):
                return True
        return False

    def _acknowledge_soon(self, connection: socket.socket) -> None:
        # Without this the peer's Nagle may wait for an acknowledgement that ours delays.
        if _QUICKACK is not None:
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _shutdown_socket(self) -> None:
        """Shut down and close: pynetdicom leaves it open when the peer closed it first."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
