"""Who asks: sessions, tokens, roles, and protection against forged requests.

Every route names the role that it needs: ``actor: Viewer``, ``Operator`` or ``Admin``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.responses import Response

from db.accounts import Actor, actor_of_session, touch
from db.models_access import Role
from db.tokens import actor_of_token, note_use
from workflows.node import Node

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "Actor",
    "ForbiddenError",
    "ForgedError",
    "NodeOf",
    "NotLoggedInError",
    "Role",
    "client_host",
    "is_still",
    "require",
]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURE_COOKIE: Final = "__Host-session"
_PLAIN_COOKIE: Final = "session"


class NotLoggedInError(Exception):
    """Nobody is logged in, or the token is void."""


class ForbiddenError(Exception):
    """The role is not enough; the text is a sentence."""


class ForgedError(Exception):
    """The request does not come from a page of this node."""


def node_of(request: Request) -> Node:
    """Return the node whose pages these are, under the settings of now."""
    state = request.app.state
    if state.reloading.is_asked():
        state.node = state.reloading.read(state.node.with_configuration) or state.node
    node: Node = state.node
    return node


NodeOf = Annotated[Node, Depends(node_of)]


def client_host(request: Request) -> str:
    """Return the address of the browser, or of the proxy before it."""
    return request.client.host if request.client else ""


def is_secure(request: Request) -> bool:
    """Say whether people reach this node by TLS, here or at a proxy in front."""
    public: str | None = node_of(request).settings.dashboard.public_url
    return request.url.scheme == "https" or (public or "").startswith("https://")


def cookie_name(request: Request) -> str:
    """Return the name of the session's cookie; ``__Host-`` binds it to this host under TLS."""
    return _SECURE_COOKIE if is_secure(request) else _PLAIN_COOKIE


def set_session_cookie(request: Request, response: Response, secret: str) -> None:
    """Hand the session's secret to the browser: for this host, no script, no foreign form."""
    response.set_cookie(
        cookie_name(request),
        secret,
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
        path="/",
    )


def session_secret(request: Request) -> str | None:
    """Return the cookie's secret."""
    return request.cookies.get(cookie_name(request))


def find_actor(request: Request) -> Actor | None:
    """Return who asks; ``None`` when that cannot be known. Asked once for each request."""
    if not hasattr(request.state, "actor"):
        request.state.actor = _find_actor(request)
    actor: Actor | None = request.state.actor
    return actor


def _find_actor(request: Request) -> Actor | None:
    node = node_of(request)
    now, token = node.now(), _token(request)
    secret = session_secret(request) or "" if token is None else token
    if not secret:
        return None
    with node.database.reading() as session:
        actor = _actor_in(session, request)
    # A page that refreshes itself is no sign of a person.
    if actor is not None and actor.is_due and request.headers.get("x-live") is None:
        with node.database.session() as session:
            (touch if token is None else note_use)(session, secret, now)
    return actor


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _actor_in(session: Session, request: Request) -> Actor | None:
    node, token = node_of(request), _token(request)
    if token is not None:
        return actor_of_token(session, token, node.now())
    idle = timedelta(minutes=node.settings.dashboard.idle_minutes)
    return actor_of_session(session, session_secret(request) or "", node.now(), idle)


def is_still(session: Session, request: Request, actor: Actor) -> bool:
    """Say of a request that goes on for long whether its actor is logged in, in the same role."""
    found = _actor_in(session, request)
    return found is not None and (found.account_id, found.role) == (actor.account_id, actor.role)


class require:  # noqa: N801 - reads as what it does: Depends(require(Role.OPERATOR))
    """The dependency of a route that needs a role; gives the `Actor`.

    Raises
    ------
    NotLoggedInError, ForbiddenError, ForgedError
        In the request; `dashboard.errors` makes pages or JSON of them.
    """

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(
        self, request: Request, actor: Annotated[Actor | None, Depends(find_actor)]
    ) -> Actor:
        """Let the request pass, or say why not."""
        if actor is None:
            raise NotLoggedInError
        if request.method not in SAFE_METHODS and not actor.by_token:
            require_own_page(request)
            await _require_csrf(request, actor)
        if not actor.may(self.role):
            raise ForbiddenError(f"This needs the role {self.role}; yours is {actor.role}.")
        return actor


def require_own_page(request: Request) -> None:
    """Refuse what a page of another site makes a browser send.

    Raises
    ------
    ForgedError
        The browser says that the request began elsewhere.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ForgedError
    origin = request.headers.get("origin")
    if origin is not None:
        public = node_of(request).settings.dashboard.public_url
        hosts = {request.headers.get("host", ""), urlsplit(public or "").netloc}
        if urlsplit(origin).netloc not in hosts:
            raise ForgedError


async def _require_csrf(request: Request, actor: Actor) -> None:
    brought: object = request.headers.get("x-csrf-token")
    if brought is None and "form" in request.headers.get("content-type", ""):
        brought = (await request.form()).get("csrf")
    if brought != actor.csrf:
        raise ForgedError


Viewer = Annotated[Actor, Depends(require(Role.VIEWER))]
Operator = Annotated[Actor, Depends(require(Role.OPERATOR))]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
