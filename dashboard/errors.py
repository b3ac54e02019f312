"""What people and programs see when a request cannot be answered: a sentence, and what to do."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from dashboard.access import ForbiddenError, ForgedError, NotLoggedInError
from dashboard.frames import FrameUnavailableError
from dashboard.rendering import render
from db.passwords import AccountError
from db.session import DATABASE_ERRORS, is_passing, is_refused_value
from dicom_node.errors import FinalError, RetriableError

_LOG = logging.getLogger(__name__)
_SENTENCES: Final = {
    404: "There is no such page here. What it was about may have been deleted since.",
    405: "This address does not do that.",
    413: "This is larger than what the node takes here.",
}


def answer_errors(app: FastAPI) -> None:
    """Register what turns each kind of error into an answer."""
    app.add_exception_handler(NotLoggedInError, _not_logged_in)
    app.add_exception_handler(ForbiddenError, _forbidden)
    app.add_exception_handler(ForgedError, _forged)
    app.add_exception_handler(AccountError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(FrameUnavailableError, _gone)
    app.add_exception_handler(FinalError, _unreadable)
    app.add_exception_handler(RetriableError, _not_now)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, _database)


def problem(request: Request, status: int, title: str, sentence: str) -> Response:
    """Answer with a page, or with JSON below ``/api``."""
    if _wants_json(request):
        return JSONResponse({"title": title, "detail": sentence}, status)
    return render(request, "problem.html", status_code=status, title=title, sentence=sentence)


def _wants_json(request: Request) -> bool:
    path = request.url.path
    return path.startswith("/api/") and path != "/api/docs"


def unexpected(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw; the log has the rest, which may name patients."""
    return problem(
        request,
        500,
        "The node made a mistake",
        "This could not be shown or done; log/dashboard.log has more. Receiving and interpreting "
        "go on: try it again, and send that part of the log to who keeps the node if it stays.",
    )


def _not_logged_in(request: Request, error: Exception) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse(
            {"title": "Not logged in", "detail": "Send a token: Authorization: Bearer ubn_..."},
            401,
            {"WWW-Authenticate": "Bearer"},
        )
    if request.method != "GET" or request.headers.get("x-live"):
        return problem(
            request, 401, "Not logged in", "Your session has ended. Log in, then do it again."
        )
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(target, safe='')}", 303)


def _forbidden(request: Request, error: Exception) -> Response:
    return problem(request, 403, "Not allowed", str(error))


def _forged(request: Request, error: Exception) -> Response:
    return problem(
        request,
        403,
        "Refused",
        "This request does not come from a page of this node that is still open under your login. "
        "Load the page again, then repeat what you did.",
    )


def _refused(request: Request, error: Exception) -> Response:
    return problem(request, 409, "Not done", str(error))


def _gone(request: Request, error: Exception) -> Response:
    return problem(request, 404, "Not here (any more)", _sentence(error))


def _unreadable(request: Request, error: Exception) -> Response:
    return problem(request, 409, "Cannot be shown", _sentence(error))


def _not_now(request: Request, error: Exception) -> Response:
    return problem(request, 503, "Not at the moment", _sentence(error))


def _sentence(error: Exception) -> str:
    said = str(error)
    return f"{said[:1].upper()}{said[1:]}"


def _invalid(request: Request, error: Exception) -> Response:
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    said = "; ".join(
        f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in errors
    )
    return problem(request, 422, "Not understood", said or "A value is missing or wrong.")


def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = error.detail if isinstance(error, HTTPException) else ""
    plain = said in ("", "Not Found", "Method Not Allowed")
    title = "Not found" if status == 404 else "Not done"
    sentence = _SENTENCES.get(status, "It did not work.") if plain else said
    return problem(request, status, title, sentence)


def _database(request: Request, error: Exception) -> Response:
    if is_refused_value(error):
        _LOG.warning("the database refused a value of a request")
        sentence = "A value has characters, or a size, that the database cannot hold."
        return problem(request, 422, "Not understood", sentence)
    if not is_passing(error):
        _LOG.error("the database did not understand: %s", type(error).__name__)
        return problem(
            request,
            500,
            "Not done",
            "The database did not understand what the node asked; log/dashboard.log has more.",
        )
    response = problem(
        request,
        503,
        "The database does not answer",
        "Nothing is lost: what is received stays in the archive, and jobs go on afterwards. "
        + _again(request),
    )
    response.headers["Retry-After"] = "3"
    if request.method == "GET" and not _wants_json(request):
        response.headers["Refresh"] = "3"
    return response


def _again(request: Request) -> str:
    if request.method == "GET" and not _wants_json(request):
        return "This page tries again by itself."
    return "Nothing was changed; do it again in some seconds."
