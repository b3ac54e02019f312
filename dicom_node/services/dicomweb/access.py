"""Who may use DICOMweb, and for what. Deny by default, as the table of peers does for DIMSE."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

WebService = Literal["query", "retrieve", "store", "worklist"]
CHALLENGE: Final = 'Basic realm="DICOMweb", charset="UTF-8", Bearer realm="DICOMweb"'


def digest(secret: str) -> bytes:
    """Return what is kept and compared of a secret."""
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class WebUser:
    """Somebody, or some program, that may use DICOMweb.

    Attributes
    ----------
    name : str
        For the log.
    allow : frozenset of {"query", "retrieve", "store", "worklist"}
        What it may do.
    token : bytes or None
        Digest of its bearer token (RFC 6750).
    user : str or None
        Its name for basic authentication (RFC 7617) ...
    password : bytes or None
        ... and the digest of its password.
    certificates : frozenset of str
        SHA-256 of TLS certificates, hexadecimal, that are proof enough.
    """

    name: str
    allow: frozenset[WebService]
    token: bytes | None = None
    user: str | None = None
    password: bytes | None = None
    certificates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is not answered: 401 without good credentials, 403 without the right."""

    status: Literal[401, 403]
    sentence: str


class WebAccess:
    """The table of users. Immutable: to change it, hand the server a new one."""

    def __init__(self, users: Iterable[WebUser] = ()) -> None:
        self.users = tuple(users)

    def admit(self, service: WebService, authorization: str, certificate: str) -> WebUser | Denied:
        """Return who asks, if it may.

        Parameters
        ----------
        service : str
            What is asked for.
        authorization : str
            The header of that name; hostile text.
        certificate : str
            SHA-256 of the TLS certificate that was shown, hexadecimal; empty without one.
        """
        user = self._by_credentials(authorization) or self._by_certificate(certificate)
        if user is None:
            shown = "credentials that it does not know" if authorization else "no credentials"
            return Denied(
                401, f"this node answers those listed under dicomweb.users; it was shown {shown}"
            )
        if service not in user.allow:
            return Denied(403, f"{user.name} may not {service}: see allow under dicomweb.users")
        return user

    def _by_credentials(self, authorization: str) -> WebUser | None:
        scheme, _, given = authorization.strip().partition(" ")
        if scheme.lower() == "bearer":
            shown = digest(given.strip())
            return self._first(lambda one: _same(one.token, shown))
        if scheme.lower() != "basic":
            return None
        try:
            name, colon, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        shown = digest(password)
        return self._first(
            lambda one: (
                bool(colon)
                and _same(one.user.encode() if one.user else None, name.encode())
                and _same(one.password, shown)
            )
        )

    def _by_certificate(self, certificate: str) -> WebUser | None:
        return self._first(lambda one: bool(certificate) and certificate in one.certificates)

    def _first(self, fits: Callable[[WebUser], bool]) -> WebUser | None:
        """Return who fits; all are looked at, so that the time tells nothing."""
        found = [user for user in self.users if fits(user)]
        return found[0] if found else None


def _same(kept: bytes | None, shown: bytes) -> bool:
    return kept is not None and hmac.compare_digest(kept, shown)
