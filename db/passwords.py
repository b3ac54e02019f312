"""Passwords: what may be one, and how one is held against its argon2id hash."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST_PASSWORD: Final = 10

# RFC 9106 section 4, second recommendation: 64 MiB and three passes.
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=2)
NOBODY: Final = _HASHER.hash(secrets.token_hex(16))
"""Checked where there is no such account, so that the answer takes as long as with one."""


class AccountError(ValueError):
    """What was asked cannot be done; the text is a sentence for the person who asked."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of holding a password against a hash.

    Attributes
    ----------
    stored
        The hash.
    right
        Whether it was the right password.
    renewed
        A hash by today's parameters where `stored` is by older ones; else empty.
    """

    stored: str
    right: bool
    renewed: str = ""


def prove(stored: str, password: str) -> Proof:
    """Hold a password against a hash: 64 MiB and a tenth of a second of work.

    Done outside of any transaction: in SQLite it would hold up every other writer for so long, the
    listener too, and nobody need have an account to ask for it.
    """
    right = fits(stored, password)
    outdated = right and _HASHER.check_needs_rehash(stored)
    return Proof(stored, right, _HASHER.hash(password) if outdated else "")


def hashed(password: str, name: str) -> str:
    """Hash a password for the account of this name.

    Raises
    ------
    AccountError
        It is too short, too long or too easy.
    """
    if len(password) < SHORTEST_PASSWORD:
        raise AccountError(f"A password has at least {SHORTEST_PASSWORD} characters.")
    if len(password) > 1024:
        raise AccountError("A password has at most 1024 characters.")
    if password.casefold() == name.casefold() or len(set(password)) < 4:
        raise AccountError("This password is too easy to guess.")
    return _HASHER.hash(password)


def fits(password_hash: str, password: str) -> bool:
    """Say whether a hash is of this password."""
    try:
        return _HASHER.verify(password_hash, password[:1024])
    except (VerificationError, InvalidHashError):
        return False
