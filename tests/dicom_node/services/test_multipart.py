"""multipart/related, cut into pieces at any place, and bytes that are none."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.services.dicomweb.multipart import (
    MultipartError,
    MultipartReader,
    MultipartWriter,
    media_type,
)
from dicom_node.services.dicomweb.negotiation import Acceptable


class Sinks:
    """Keeps what the reader hands out."""

    def __init__(self) -> None:
        self.whole: list[bytes] = []
        self.cut_off = 0

    def open_part(self, headers: Mapping[str, str]) -> Sink:
        return Sink(self)


class Sink:
    def __init__(self, sinks: Sinks) -> None:
        self.sinks = sinks
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.sinks.whole.append(self.data)

    def abandon(self) -> None:
        self.sinks.cut_off += 1


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


PARTS = st.lists(
    st.one_of(
        st.binary(max_size=200),
        # What looks like a delimiter and is none.
        st.sampled_from([b"\r\n--", b"\r\n--b", b"--b--", b"\r\n\r\n", b"\r"]),
    ),
    max_size=4,
)


@given(PARTS, st.lists(st.integers(0, 5000), max_size=30))
def test_what_was_written_is_read_however_it_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    writer = MultipartWriter("application/dicom")
    body = b"".join(writer.body((writer.head(), [part]) for part in parts))
    sinks = Sinks()
    boundary = media_type(writer.content_type).parameters["boundary"]
    reader = MultipartReader(boundary, sinks.open_part)
    for piece in pieces(body, cuts):
        reader.feed(piece)
    assert reader.finish()
    assert (sinks.whole, sinks.cut_off) == (parts, 0)


@given(st.binary(max_size=500), st.lists(st.integers(0, 500), max_size=10), st.booleans())
def test_any_bytes_end_in_an_answer(data: bytes, cuts: list[int], begun: bool) -> None:
    sinks = Sinks()
    reader = MultipartReader("b", sinks.open_part)
    try:
        for piece in pieces((b"--b\r\n\r\n" if begun else b"") + data, cuts):
            reader.feed(piece)
    except MultipartError:
        pass
    ended = reader.finish()
    if begun and not ended:
        assert sinks.cut_off <= 1


@pytest.mark.parametrize("boundary", ["", "ä", "x" * 251])
def test_what_is_no_boundary(boundary: str) -> None:
    with pytest.raises(MultipartError):
        MultipartReader(boundary, Sinks().open_part)


@given(st.text(max_size=100))
def test_any_accept_header_is_read(text: str) -> None:
    accepted = Acceptable([text])
    assert accepted.json() in (True, False)
    assert accepted.single("image/png") in (None, "image/png")


def test_quality_decides() -> None:
    accepted = Acceptable(['image/jpeg;q=0.5, image/png, multipart/related; type="a/b, c"; q=0'])
    assert accepted.single("image/jpeg", "image/png") == "image/png"
    assert accepted.multipart("a/b") is None
