"""In and out: login, logout, and the one-time links by which people choose a password."""

from __future__ import annotations

import logging
import math
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import (
    NodeOf,
    Viewer,
    client_host,
    cookie_name,
    require_own_page,
    session_secret,
    set_session_cookie,
)
from dashboard.auditing import note
from dashboard.rendering import render, zone_of
from db.accounts import (
    accept_invitation,
    begin_session,
    end_session,
    invitation_of,
    log_in,
    stored_hash,
)
from db.listing import as_text
from db.login_hosts import blocked_until, count_failure, counted_host
from db.passwords import AccountError, prove
from workflows.node import Node

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_LOG = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)
Text = Annotated[str, Form(max_length=2048)]
_CHECKS: Final = threading.BoundedSemaphore(4)
"""Each check of a password takes 64 MiB, and anybody may ask for one."""
_CHECK_SECONDS: Final = 2.0


def local_target(target: str) -> str:
    """Return the page to go to after login; never one of another host."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not target.startswith("/") or target[1:2] in ("/", "\\"):
        return "/"
    return target


@router.get("/login")
def login_page(request: Request, node: NodeOf, next: str = "/") -> Response:
    """Show the form."""
    return render(
        request, "login.html", next=local_target(next), name="", error="",
        openid=node.settings.dashboard.openid,
    )  # fmt: skip


@router.post("/login", dependencies=[Depends(require_own_page)])
def login(request: Request, node: NodeOf, name: Text, password: Text, next: Text = "/") -> Response:
    """Check name and password, unless too many wrong ones came from this address."""
    host = counted_host(client_host(request))
    with node.database.reading() as session:
        stored = stored_hash(session, name)
        blocked = blocked_until(session, host, node.now())
    if blocked is not None:
        return _too_many(request, node, name, next, blocked)
    if not _CHECKS.acquire(timeout=_CHECK_SECONDS):
        raise HTTPException(503, "Too many people log in at this moment; try again in a moment.")
    try:
        proof = prove(stored, password)
    finally:
        _CHECKS.release()
    with node.database.session() as session:
        user = log_in(session, name, proof, node.now())
        secret = None
        if user is not None:
            secret = begin_session(
                session, user, node.now(),
                hours=node.settings.dashboard.session_hours, host=client_host(request),
            )  # fmt: skip
        note(
            session, request, "login", account=user.name if user else name,
            outcome="success" if user else "refused",
        )  # fmt: skip
        if user is None:
            blocked = _count_wrong(session, request, node, name, host)
    if blocked is not None:
        return _too_many(request, node, name, next, blocked)
    if secret is None:
        return render(
            request, "login.html", status_code=401, next=local_target(next), name=name,
            error="Name or password is wrong, or the account is locked for a quarter of an hour "
            "after five wrong passwords.",
            openid=node.settings.dashboard.openid,
        )  # fmt: skip
    return enter(request, secret, local_target(next))


def _count_wrong(
    session: Session, request: Request, node: Node, name: str, host: str
) -> datetime | None:
    """Count a wrong password from an address; until when it rests, where this is one too many."""
    most = node.settings.dashboard.failed_logins_per_host
    until = None if most is None else count_failure(session, host, node.now(), most)
    if until is None:
        return None
    note(
        session, request, "login.blocked", account=name, target=host, outcome="refused",
        failures=most, until=as_text(until),
    )  # fmt: skip
    mend = ""
    if client_host(request) not in request.headers.get("x-forwarded-for", client_host(request)):
        # Of a proxy that is believed, its word of who calls is the caller.
        mend = (
            "; it names others for whom it calls: if it is the site's proxy, list it under "
            "dashboard.proxies in node.yaml, as all people seem to call from it"
        )
    _LOG.warning("%s waits after %d wrong passwords%s", host, most, mend)
    return until


def _too_many(request: Request, node: Node, name: str, next: str, until: datetime) -> Response:
    """Refuse an address until then, whatever the password (RFC 6585, section 4)."""
    at = until.astimezone(zone_of(request))
    response = render(
        request, "login.html", status_code=429, next=local_target(next), name=name,
        error="Too many wrong passwords came from this address: it may try again at "
        f"{at:%H:%M:%S}. Who is logged in stays so; from another computer it works now.",
        openid=node.settings.dashboard.openid,
    )  # fmt: skip
    left = (until - node.now()).total_seconds()
    response.headers["Retry-After"] = str(max(1, math.ceil(left)))
    return response


@router.post("/logout")
def logout(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """End the session."""
    with node.database.session() as session:
        end_session(session, session_secret(request) or "")
        note(session, request, "logout", account=actor.name)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie_name(request), path="/")
    return response


@router.get("/invitation/{secret}")
def invitation_page(request: Request, node: NodeOf, secret: str) -> Response:
    """Show the form that a one-time link leads to."""
    return _invitation(request, node, secret, "", "")


@router.post("/invitation/{secret}", dependencies=[Depends(require_own_page)])
def accept(
    request: Request, node: NodeOf, secret: str, password: Text, again: Text, name: Text = ""
) -> Response:
    """Make the account, and log it in."""
    if password != again:
        return _invitation(request, node, secret, name, "The two passwords differ.")
    try:
        with node.database.session() as session:
            user = accept_invitation(session, secret, name, password, node.now())
            cookie = begin_session(
                session, user, node.now(),
                hours=node.settings.dashboard.session_hours, host=client_host(request),
            )  # fmt: skip
            note(session, request, "account.accept", target=user.name, account=user.name)
    except AccountError as error:
        return _invitation(request, node, secret, name, str(error))
    return enter(request, cookie, "/")


def _invitation(request: Request, node: Node, secret: str, name: str, error: str) -> Response:
    with node.database.reading() as session:
        found = invitation_of(session, secret, node.now())
    return render(
        request, "invitation.html", status_code=400 if error else 200 if found else 404,
        invitation=found, name=name, error=error,
    )  # fmt: skip


def enter(request: Request, secret: str, target: str) -> Response:
    """Hand the session's cookie over, and go to the page that was asked for."""
    response = RedirectResponse(target, 303)
    set_session_cookie(request, response, secret)
    return response
