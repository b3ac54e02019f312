"""multipart/related in both directions, a piece at a time (RFC 2387, RFC 2046 5.1, PS3.18 8.6.1).

A study is gigabytes: nothing here holds more than a header and a boundary.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.message import Message
from typing import Final, NamedTuple, Protocol

from dicom_node.errors import FinalError

_MOST_HEADER_BYTES: Final = 1 << 14
_MOST_PREAMBLE_BYTES: Final = 1 << 16
# RFC 2046 5.1.1 allows 70 characters; Orthanc's plug-in writes 73.
_LONGEST_BOUNDARY: Final = 250


class MultipartError(FinalError):
    """The body is not what its Content-Type says; the sentence tells where it goes wrong."""


class MediaType(NamedTuple):
    """A media type with its parameters; names in lower case.

    Attributes
    ----------
    name
        As ``application/dicom``.
    parameters
        Without quotes.
    """

    name: str
    parameters: Mapping[str, str]


def media_type(text: str) -> MediaType:
    """Read a Content-Type, or one entry of an Accept header. Hostile text."""
    message = Message()
    message["Content-Type"] = text.replace("\r", " ").replace("\n", " ")
    parameters = message.get_params(failobj=[], unquote=True) or []
    name = parameters[0][0].strip().lower() if parameters else ""
    return MediaType(name, {key.lower(): value for key, value in parameters[1:]})


class PartSink(Protocol):
    """Takes the bytes of one part."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def close(self) -> None:
        """Know that the part is whole."""

    def abandon(self) -> None:
        """Know that the body ended in the middle of it."""


class _State(enum.Enum):
    PREAMBLE = enum.auto()
    HEADERS = enum.auto()
    BODY = enum.auto()
    EPILOGUE = enum.auto()


class MultipartReader:
    """Takes a multipart body apart while it comes in.

    Parameters
    ----------
    boundary : str
        From the Content-Type.
    open_part : callable
        Headers of a part, names in lower case, to what takes its bytes.

    Raises
    ------
    MultipartError
        The boundary cannot be one.
    """

    def __init__(self, boundary: str, open_part: Callable[[Mapping[str, str]], PartSink]) -> None:
        if not boundary or len(boundary) > _LONGEST_BOUNDARY or not boundary.isascii():
            raise MultipartError("a multipart body needs a boundary in its Content-Type")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._open_part = open_part
        self._state = _State.PREAMBLE
        # The first delimiter may begin the body: as if a line had ended before.
        self._buffer = bytearray(b"\r\n")
        self._sink: PartSink | None = None
        self.parts = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises
        ------
        MultipartError
            They are no multipart body.
        """
        if self._state is _State.EPILOGUE:
            return
        self._buffer += data
        while self._step():
            pass

    def finish(self) -> bool:
        """End the body; returns whether it came to its closing delimiter."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.abandon()
        return self._state is _State.EPILOGUE

    def _step(self) -> bool:
        """Go on with what is there; returns whether there may be more to do."""
        if self._state is _State.HEADERS:
            return self._take_headers()
        if self._state is _State.EPILOGUE:
            self._buffer.clear()
            return False
        return self._take_until_delimiter()

    def _take_until_delimiter(self) -> bool:
        buffer, delimiter = self._buffer, self._delimiter
        at = buffer.find(delimiter)
        if at < 0:
            # What may be the beginning of a delimiter stays.
            safe = len(buffer) - len(delimiter) + 1
            if safe > 0:
                self._give(bytes(buffer[:safe]))
                del buffer[:safe]
            return False
        if len(buffer) < at + len(delimiter) + 2:
            self._give(bytes(buffer[:at]))
            del buffer[:at]
            return False
        self._give(bytes(buffer[:at]))
        ends = buffer[at + len(delimiter) : at + len(delimiter) + 2] == b"--"
        del buffer[: at + len(delimiter)]
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.close()
        self._state = _State.EPILOGUE if ends else _State.HEADERS
        return True

    def _give(self, data: bytes) -> None:
        if self._sink is not None:
            if data:
                self._sink.write(data)
        elif self._state is _State.PREAMBLE:
            self.parts -= len(data)  # counted below zero: bytes before the first delimiter
            if -self.parts > _MOST_PREAMBLE_BYTES:
                raise MultipartError("the body does not have the boundary that its type names")

    def _take_headers(self) -> bool:
        # The end of the delimiter's line belongs to what is searched: a part may have no headers.
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MOST_HEADER_BYTES:
                raise MultipartError(f"part {max(self.parts, 0) + 1} has no end to its headers")
            return False
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")[1:]
        del self._buffer[: end + 4]
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        self.parts = max(self.parts, 0) + 1
        self._sink = self._open_part(headers)
        self._state = _State.BODY
        return True


class MultipartWriter:
    """Builds a multipart/related body.

    Parameters
    ----------
    part_type : str
        Media type of the parts.
    """

    def __init__(self, part_type: str) -> None:
        self.boundary = secrets.token_hex(16)
        self._part_type = part_type

    @property
    def content_type(self) -> str:
        """Content-Type of the whole."""
        root = self._part_type.partition(";")[0].strip()
        return f'multipart/related; type="{root}"; boundary={self.boundary}'

    def head(self, part_type: str = "", location: str = "") -> bytes:
        """Return what comes before the bytes of a part."""
        lines = [f"--{self.boundary}", f"Content-Type: {part_type or self._part_type}"]
        if location:
            lines.append(f"Content-Location: {location}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def tail(self) -> bytes:
        """Return the closing delimiter; each part's bytes are followed by a line's end."""
        return f"--{self.boundary}--\r\n".encode("ascii")

    def body(self, parts: Iterable[tuple[bytes, Iterable[bytes]]]) -> Iterator[bytes]:
        """Yield the body: for each part its `head` and its bytes."""
        for head, pieces in parts:
            yield head
            yield from pieces
            yield b"\r\n"
        yield self.tail()
