"""Bodies of requests: what their headers promise, and their bytes in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from fastapi import Request

from dicom_node.services.dicomweb.errors import HttpError
from dicom_node.services.dicomweb.multipart import media_type
from dicom_node.services.dicomweb.negotiation import DICOM

CLOSE: Final = {"Connection": "close"}
"""For answers that come before the whole body: its rest must not be taken for a request."""


async def pieces_of(request: Request, timeout: float) -> AsyncIterator[bytes]:
    """Yield the body; a client that is silent for too long is let go.

    Raises
    ------
    HttpError
        408 after the time is over.
    """
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), timeout)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            sentence = f"nothing came for {timeout:g} s in the middle of the body"
            raise HttpError(408, sentence, CLOSE) from error


def boundary_of(request: Request, most_bytes: int) -> str:
    """Return the boundary of a STOW-RS request, or refuse it by what its headers say."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise HttpError(413, too_long(most_bytes), CLOSE)
    said = media_type(request.headers.get("content-type", ""))
    if said.name != "multipart/related":
        wanted = f'multipart/related; type="{DICOM}"; boundary=...'
        raise HttpError(415, f"instances are stored as {wanted}", CLOSE)
    if said.parameters.get("type", DICOM).lower() != DICOM:
        raise HttpError(415, f"the parts must be {DICOM}: metadata and bulk data apart", CLOSE)
    boundary = said.parameters.get("boundary", "")
    if not boundary:
        raise HttpError(400, "the Content-Type names no boundary", CLOSE, "no_boundary")
    return boundary


def too_long(most: int) -> str:
    """Say that a body is longer than allowed."""
    return f"the body is longer than {most / 2**30:g} GiB; send fewer instances at a time"
