"""Syslog: messages (RFC 5424), and their way to a collector by TLS, TCP or UDP.

Syslog has no answer that says "kept". What comes nearest: messages go in one connection, the node
closes its side, and waits until the collector closes its own in order. It does so once it has read
everything; one that dies or stops before, resets the connection instead.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Literal

from dicom_node.errors import RetriableError

SECURITY: Final = 10
"""Facility security/authorization, which PS3.15 section A.6 asks for."""
NOTICE: Final = 5
WARNING: Final = 4
_REFUSAL_SECONDS: Final = 0.2
_PIECE: Final = 4096


def syslog_message(
    text: str,
    *,
    at: datetime,
    host: str,
    application: str,
    process: str,
    kind: str,
    severity: int = NOTICE,
) -> bytes:
    """Write a message with facility security/authorization (RFC 5424 section 6).

    Parameters
    ----------
    text
        What is said; marked as UTF-8 by its byte order mark.
    at
        Aware time.
    host, application, process, kind
        HOSTNAME, APP-NAME, PROCID and MSGID; what may not stand there is replaced.
    severity
        0 (emergency) to 7 (debug).
    """
    names = ((host, 255), (application, 48), (process, 128), (kind, 32))
    header = " ".join(_name(name, longest) for name, longest in names)
    time_stamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"<{SECURITY * 8 + severity}>1 {time_stamp} {header} - \ufeff{text}".encode(
        "utf-8", "replace"
    )


def _name(text: str, longest: int) -> str:
    """Return PRINTUSASCII without blanks; a dash stands for nothing."""
    return "".join(one if "!" <= one <= "~" else "_" for one in text[:longest]) or "-"


def deliver(
    messages: Sequence[bytes],
    host: str,
    port: int,
    *,
    transport: Literal["tls", "tcp", "udp"],
    context: ssl.SSLContext | None = None,
    seconds: float = 10.0,
) -> None:
    """Bring messages to a collector, in order.

    Parameters
    ----------
    messages
        By `syslog_message`.
    host, port
        Where it listens.
    transport
        ``tls`` (RFC 5425) and ``tcp`` (RFC 6587) count octets; ``udp`` (RFC 5426) sends one
        datagram for each.
    context
        For ``tls``.
    seconds
        Until all of it must be done.

    Raises
    ------
    RetriableError
        Not proven to have been read; sending all of them again later may cure it.
    """
    until = time.monotonic() + seconds
    try:
        if transport == "udp":
            _send_datagrams(messages, host, port, until)
        else:
            _send_stream(messages, host, port, context if transport == "tls" else None, until)
    except TimeoutError as error:
        text = f"{host}:{port} did not take them within {seconds:g} s"
        raise RetriableError(f"{text}; is it overloaded, or a firewall between?") from error
    except ssl.SSLCertVerificationError as error:
        raise RetriableError(
            f"the certificate of {host}:{port} is not accepted ({error.verify_message}); set "
            "certificate of the collector, or tls.authorities, in node.yaml"
        ) from error
    except ssl.SSLError as error:
        raise RetriableError(
            f"no TLS with {host}:{port} ({error.reason or error}); does it want a certificate "
            "(tls.certificate in node.yaml), and is the port one for TLS?"
        ) from error
    except OSError as error:
        raise RetriableError(
            f"{host}:{port} cannot be reached ({error.strerror or error}); does it run, and are "
            "host, port and transport right?"
        ) from error


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _send_stream(
    messages: Sequence[bytes], host: str, port: int, context: ssl.SSLContext | None, until: float
) -> None:
    framed = b"".join(b"%d %s" % (len(one), one) for one in messages)
    connection = socket.create_connection((host, port), timeout=_left(until))
    try:
        if context is None:
            connection.sendall(framed)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(_PIECE):
                connection.settimeout(_left(until))
            return
        _send_encrypted(framed, _Encrypted(connection, context, host, until))
    finally:
        connection.close()


class _Encrypted:
    """TLS over a connection, record by record.

    `ssl.SSLSocket.unwrap` takes an alert that ends a connection for an orderly end, and under
    TLS 1.3 a collector refuses our certificate by such an alert, after our side of the handshake.
    Only who sends its "close notify" apart from reading what the other says can tell them apart.
    """

    def __init__(
        self, connection: socket.socket, context: ssl.SSLContext, host: str, until: float
    ) -> None:
        self._connection = connection
        self._until = until
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def flush(self) -> None:
        """Send what is written."""
        self._connection.settimeout(_left(self._until))
        self._connection.sendall(self._outgoing.read())

    def receive(self) -> None:
        """Wait for more from the other side."""
        self._connection.settimeout(_left(self._until))
        if octets := self._connection.recv(_PIECE):
            self._incoming.write(octets)
        else:
            self._incoming.write_eof()


def _send_encrypted(octets: bytes, way: _Encrypted) -> None:
    while True:
        try:
            way.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            way.flush()
            way.receive()
    way.flush()
    with suppress(ssl.SSLWantReadError):  # what came with the handshake may be a refusal
        way.tls.read(_PIECE)
    way.tls.write(octets)
    with suppress(ssl.SSLWantReadError):  # nothing is read here: this only says "close notify"
        way.tls.unwrap()
    way.flush()
    # A collector must answer by the same (RFC 5425 section 4.4). Some only end the connection; if
    # that was somebody in between, the digests show what is missing.
    with suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
        while True:
            try:
                if not way.tls.read(_PIECE):
                    return
            except ssl.SSLWantReadError:
                way.receive()


def _send_datagrams(messages: Sequence[bytes], host: str, port: int, until: float) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as connection:
        connection.settimeout(_left(until))
        connection.connect(address)
        for one in messages:
            connection.send(one)
        # Where nobody listens, the other host says so a moment later.
        connection.settimeout(min(_REFUSAL_SECONDS, _left(until)))
        with suppress(TimeoutError):
            connection.recv(_PIECE)
