"""What a request asks for: forms, places, frames, views."""

from __future__ import annotations

from typing import Final

from fastapi import Request

from dicom_node.services.dicomweb.errors import HttpError
from dicom_node.services.dicomweb.files import EXPLICIT
from dicom_node.services.dicomweb.frames import View
from dicom_node.services.dicomweb.negotiation import Acceptable
from dicom_node.services.query import UNIQUE_KEYS, Level

_MOST_FRAMES: Final = 10_000
PLACES: Final = {"study": Level.STUDY, "series": Level.SERIES, "instance": Level.IMAGE}


def accepted_by(request: Request) -> Acceptable:
    """Return the forms that the client takes; a query parameter stands above the header."""
    parameter = request.query_params.getlist("accept")
    return Acceptable(parameter or request.headers.getlist("accept"))


def syntaxes_of(accepted: Acceptable, name: str) -> list[str]:
    """Return the transfer syntaxes that are taken with a media type."""
    entries = [entry for entry in accepted.entries if entry.name in (name, "*/*")]
    return [entry.parameters.get("transfer-syntax", EXPLICIT) for entry in entries]


def uids_of(request: Request) -> dict[str, str]:
    """Return the UIDs that the address names, by keyword. Hostile text."""
    return {
        UNIQUE_KEYS[level]: str(request.path_params[name])
        for name, level in PLACES.items()
        if name in request.path_params
    }


def frames_of(request: Request) -> list[int]:
    """Return the numbers of the frames that the address names."""
    text = str(request.path_params["frames"])
    numbers = text.split(",")
    if len(numbers) > _MOST_FRAMES or not all(
        one.isascii() and one.isdecimal() and len(one) < 9 for one in numbers
    ):
        raise HttpError(400, "frames are a list of numbers from 1 on, between commas")
    return [int(one) for one in numbers]


def view_of(request: Request) -> View:
    """Read the parameters of a rendering (PS3.18 8.3.5.1)."""
    parameters = request.query_params
    try:
        window, size = None, None
        if "window" in parameters:
            centre, width = (float(one) for one in parameters["window"].split(",")[:2])
            if not width > 0 or abs(centre) > 1e9 or width > 1e9:
                raise ValueError
            window = centre, width
        if "viewport" in parameters:
            columns, rows = (int(one) for one in parameters["viewport"].split(",")[:2])
            if not (0 < columns <= 8192 and 0 < rows <= 8192):
                raise ValueError
            size = columns, rows
        elif request.url.path.endswith("/thumbnail"):
            size = 128, 128
        quality = int(parameters.get("quality", "90"))
        if not 1 <= quality <= 100:
            raise ValueError
    except ValueError as error:
        raise HttpError(
            400, "window is centre,width; viewport is columns,rows; quality is 1 to 100"
        ) from error
    return View(window, size, quality)


def host_of(request: Request) -> str:
    """Return where a request comes from."""
    return "" if request.client is None else request.client.host
