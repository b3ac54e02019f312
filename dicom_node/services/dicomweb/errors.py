"""Mistakes and mishaps as HTTP answers: a status, and a sentence as JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from dicom_node.counters import WEB_REQUESTS_REFUSED, WebCause
from dicom_node.errors import DicomNodeError, RetriableError
from dicom_node.services.dicomweb.addresses import ADDRESSES, KINDS
from dicom_node.services.dicomweb.files import NotAcceptableError
from dicom_node.services.dicomweb.frames import NoPixelsError
from dicom_node.services.dicomweb.worklist import ConflictError

LOGGER = logging.getLogger(__name__)
RETRY_LATER: Final[Mapping[str, str]] = {"Retry-After": "30"}
# Bodies and parameters that are not what they should be; who may not ask is noted elsewhere.
_BAD_INPUT: Final = frozenset({400, 408, 413, 415})
_CAUSES: Final[Mapping[int, WebCause]] = {
    400: "bad_request",
    401: "no_credentials",
    403: "not_allowed",
    404: "not_found",
    406: "not_acceptable",
    408: "silent",
    409: "conflict",
    413: "too_long",
    415: "media_type",
    503: "unavailable",
}
_SERVICES: Final = {(one.method, one.path): KINDS[one.transaction].service for one in ADDRESSES}


class HttpError(Exception):
    """A request that is answered with a status and a sentence.

    Parameters
    ----------
    cause : str, optional
        For the counter, where the status stands for several.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        headers: Mapping[str, str] | None = None,
        cause: WebCause | None = None,
    ):
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})
        self.cause: WebCause = cause or _CAUSES[status]


def count(request: Request, cause: WebCause) -> None:
    """Count a request that was answered with a failure."""
    path = getattr(request.scope.get("route"), "path", "")
    service = _SERVICES.get((request.method, path))
    if service is not None:
        WEB_REQUESTS_REFUSED.labels(service, cause).inc()


def answer_errors(app: FastAPI, on_bad_input: Callable[[Request, int, str], None]) -> None:
    """Have an application answer what its parts raise.

    Parameters
    ----------
    app
        The application.
    on_bad_input
        Called with each request that is not what it should be, its status, and a sentence.
    """

    async def answer_http_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, HttpError):
            raise error
        count(request, error.cause)
        if error.status in _BAD_INPUT:
            await run_in_threadpool(on_bad_input, request, error.status, error.sentence)
        return JSONResponse({"error": error.sentence}, error.status, headers=error.headers)

    async def answer_node_error(request: Request, error: Exception) -> Response:
        answer = _node_error(error)
        count(request, _CAUSES[answer.status_code])
        if answer.status_code in _BAD_INPUT:
            sentence = error.sentence if isinstance(error, DicomNodeError) else str(error)
            await run_in_threadpool(on_bad_input, request, answer.status_code, sentence)
        return answer

    app.add_exception_handler(HttpError, answer_http_error)
    app.add_exception_handler(DicomNodeError, answer_node_error)


def _node_error(error: Exception) -> Response:
    """Answer what the node's own parts say: 503 for what may be well later."""
    sentence = error.sentence if isinstance(error, DicomNodeError) else str(error)
    headers = {}
    if isinstance(error, RetriableError):
        status, headers = 503, dict(RETRY_LATER)
        LOGGER.error("DICOMweb answered 503: %s", sentence)
    elif isinstance(error, NotAcceptableError):
        status = 406
    elif isinstance(error, NoPixelsError):
        status = 404
    elif isinstance(error, ConflictError):
        status = 409
    else:
        status = 400
    return JSONResponse({"error": sentence}, status, headers=headers)
