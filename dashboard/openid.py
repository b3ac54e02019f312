"""Log in by an OpenID Connect provider: authorization code flow with PKCE, by Authlib.

What must outlive the way to the provider and back (state, nonce, code verifier) is kept in this
process, under the `state` that the browser brings back, for ten minutes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from fastapi import APIRouter, HTTPException, Request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.responses import RedirectResponse, Response

from dashboard.access import NodeOf, client_host, is_secure
from dashboard.auditing import note
from dashboard.entry import enter, local_target
from dashboard.rendering import say
from db.accounts import begin_session, user_of_provider
from db.models_access import Role
from db.passwords import AccountError
from workflows.dashboard_settings import OpenIdSettings
from workflows.node import Node

router = APIRouter(include_in_schema=False)
_SECONDS: Final = 10.0
_WAIT_SECONDS: Final = 600.0
_MOST_WAITING: Final = 1000
_STATE_COOKIE: Final = "openid_state"
_LEEWAY: Final = 60
# Signatures only: an ID token without one ("none") or with a shared secret proves nothing here.
_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")


class OpenIdError(Exception):
    """The provider could not vouch for somebody; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    nonce: str
    verifier: str
    target: str
    until: float


class Waiting:
    """Those who are on their way to the provider."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[str, _Waiting] = {}

    def add(self, state: str, entry: _Waiting) -> None:
        """Remember one; forget those that never came back."""
        now = time.monotonic()
        with self._guard:
            self._entries = {key: one for key, one in self._entries.items() if one.until > now}
            while len(self._entries) >= _MOST_WAITING:
                self._entries.pop(next(iter(self._entries)))
            self._entries[state] = entry

    def take(self, state: str) -> _Waiting | None:
        """Return and forget one."""
        with self._guard:
            found = self._entries.pop(state, None)
        return None if found is None or found.until < time.monotonic() else found


def settings_of(node: Node) -> OpenIdSettings:
    """Return the provider's settings; 404 where none is set."""
    settings = node.settings.dashboard.openid
    if settings is None:
        raise HTTPException(404)
    return settings


def _return_address(request: Request, node: Node) -> str:
    base = node.settings.dashboard.public_url or str(request.base_url).rstrip("/")
    return f"{base}/openid/return"


def metadata_of(settings: OpenIdSettings) -> dict[str, Any]:
    """Ask the provider where its endpoints are (OpenID Connect Discovery 1.0, section 4).

    Raises
    ------
    OpenIdError
        It does not answer, or is another issuer than the settings name.
    """
    address = f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        answer = httpx.get(address, timeout=_SECONDS)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise OpenIdError(f"The provider {settings.issuer} does not answer as it should") from error
    if str(told.get("issuer", "")).rstrip("/") != settings.issuer.rstrip("/"):
        raise OpenIdError("The provider names another issuer than dashboard.openid.issuer")
    return told


@router.get("/openid")
def begin(request: Request, node: NodeOf, next: str = "/") -> Response:
    """Send the browser to the provider."""
    settings = settings_of(node)
    try:
        told = metadata_of(settings)
    except OpenIdError as error:
        return say(RedirectResponse("/login", 303), f"{error}.", bad=True)
    nonce, verifier = generate_token(32), generate_token(64)
    with OAuth2Client(
        settings.client_id, settings.client_secret, scope="openid profile email",
        redirect_uri=_return_address(request, node), code_challenge_method="S256",
    ) as client:  # fmt: skip
        address, state = client.create_authorization_url(
            told["authorization_endpoint"], nonce=nonce, code_verifier=verifier
        )
    entry = _Waiting(nonce, verifier, local_target(next), time.monotonic() + _WAIT_SECONDS)
    request.app.state.openid.add(state, entry)
    response = RedirectResponse(address, 303)
    # Binds the way back to this browser: a link with somebody else's code logs nobody in.
    response.set_cookie(
        _STATE_COOKIE, state, max_age=int(_WAIT_SECONDS), httponly=True, samesite="lax",
        secure=is_secure(request), path="/openid",
    )  # fmt: skip
    return response


@router.get("/openid/return")
def come_back(request: Request, node: NodeOf, state: str = "", code: str = "") -> Response:
    """Take what the provider says of a person, and log in."""
    settings = settings_of(node)
    entry: _Waiting | None = None
    if state and request.cookies.get(_STATE_COOKIE) == state:
        entry = request.app.state.openid.take(state)
    try:
        if entry is None or not code:
            raise OpenIdError("This login took too long, or was not begun in this browser")
        claims = _claims(request, node, settings, code, entry)
        role = role_of(settings, claims)
        name = str(claims.get(settings.name_claim) or claims["sub"])
        subject = f"{settings.issuer}|{claims['sub']}"
        with node.database.session() as session:
            user = user_of_provider(session, subject, name, role, node.now())
            secret = begin_session(
                session, user, node.now(),
                hours=node.settings.dashboard.session_hours, host=client_host(request),
            )  # fmt: skip
            note(session, request, "login", account=user.name, by="openid")
    except (OpenIdError, AccountError) as error:
        with node.database.session() as session:
            note(session, request, "login", account="", outcome="refused", by="openid")
        return say(RedirectResponse("/login", 303), f"{str(error).rstrip('.')}.", bad=True)
    response = enter(request, secret, entry.target)
    response.delete_cookie(_STATE_COOKIE, path="/openid")
    return response


def _claims(
    request: Request, node: Node, settings: OpenIdSettings, code: str, entry: _Waiting
) -> dict[str, Any]:
    """Change the code for an ID token, and check it (OpenID Connect Core 1.0, section 3.1.3.7)."""
    told = metadata_of(settings)
    try:
        with OAuth2Client(
            settings.client_id, settings.client_secret, timeout=_SECONDS,
            redirect_uri=_return_address(request, node),
        ) as client:  # fmt: skip
            token = client.fetch_token(
                told["token_endpoint"], code=code, code_verifier=entry.verifier
            )
        keys = KeySet.import_key_set(httpx.get(told["jwks_uri"], timeout=_SECONDS).json())
        decoded = jwt.decode(token["id_token"], keys, algorithms=list(_ALGORITHMS))
        claims = CodeIDToken(
            decoded.claims, decoded.header,
            {
                "iss": {"essential": True, "value": told["issuer"]},
                "aud": {"essential": True, "value": settings.client_id},
                "nonce": {"essential": True, "value": entry.nonce},
            },
            {"client_id": settings.client_id, "nonce": entry.nonce},
        )  # fmt: skip
        claims.validate(leeway=_LEEWAY)
    except (OAuthError, JoseError, httpx.HTTPError, KeyError, ValueError) as error:
        raise OpenIdError(
            f"The provider's answer cannot be trusted ({type(error).__name__})"
        ) from error
    return dict(claims)


def role_of(settings: OpenIdSettings, claims: dict[str, Any]) -> Role:
    """Return the greatest role that one of the person's groups stands for.

    Raises
    ------
    OpenIdError
        The person is in none of them.
    """
    value = claims.get(settings.role_claim, ())
    groups = [value] if isinstance(value, str) else [str(one) for one in value or ()]
    roles = [Role(settings.roles[group]) for group in groups if group in settings.roles]
    if not roles:
        raise OpenIdError("The provider knows you, but none of your groups has a role here")
    return max(roles, key=list(Role).index)
