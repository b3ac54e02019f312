"""Secrets by which programs act for a person: made, listed, void.

As of all secrets, the database has only the digest.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.accounts import Actor, digest_of
from db.models_access import ApiToken, Role, User
from db.passwords import AccountError

TOKEN_PREFIX: Final = "ubn_"  # noqa: S105 - what a token begins with, no token
USUAL_DAYS: Final = 365
_USED_AGAIN: Final = timedelta(hours=1)


class NewToken(NamedTuple):
    """A token, and its secret, which is shown once and kept by nobody."""

    token: ApiToken
    secret: str


def add_token(
    session: Session,
    user_id: int,
    label: str,
    role: Role,
    now: datetime,
    days: int | None = None,
    *,
    maker: Actor | None = None,
) -> NewToken:
    """Make a token for an account.

    Parameters
    ----------
    session
        An open transaction.
    user_id, label, role
        Whose it is, what it is for, what it may do.
    now
        Aware time.
    days
        How long it is good; None: `USUAL_DAYS`, or as long as the token that makes it.
    maker
        Who asks. Of a token, the new one is allowed no more and lives no longer: who found a token
        gets no better one by it.

    Raises
    ------
    AccountError
        The token would be allowed more, or live longer, than who makes it; or has no name.
    """
    user = session.get_one(User, user_id)
    if not user.role.may(role):
        raise AccountError(f"Your own role is {user.role}; a token cannot be {role}.")
    label = label.strip()
    if not 0 < len(label) <= 64:
        raise AccountError("Give the token a name of 1 to 64 characters: what is it for?")
    expires = now + timedelta(days=USUAL_DAYS if days is None else days)
    if maker is not None and maker.by_token:
        if not maker.may(role):
            raise AccountError(f"This token's role is {maker.role}; it makes none that is {role}.")
        if maker.until is not None and expires > maker.until:
            if days is not None:
                raise AccountError(
                    f"This token is good until {maker.until:%Y-%m-%d %H:%M} UTC; it makes none "
                    "that lives longer. Ask for fewer days, or for none in particular."
                )
            expires = maker.until
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    token = ApiToken(
        account_id=user_id,
        digest=digest_of(secret),
        label=label,
        role=role,
        created_at=now,
        expires_at=expires,
    )
    session.add(token)
    session.flush()
    return NewToken(token, secret)


def tokens_of(session: Session, user_id: int) -> list[ApiToken]:
    """List an account's tokens, oldest first."""
    return list(
        session.scalars(
            select(ApiToken).where(ApiToken.account_id == user_id).order_by(ApiToken.id)
        )
    )


def remove_token(session: Session, actor: Actor, token_id: int) -> bool:
    """Make a token of who asks void; False when there is none of this number.

    Raises
    ------
    AccountError
        A token asks for the end of one that may more.
    """
    found = session.get(ApiToken, token_id)
    if found is None or found.account_id != actor.account_id:
        return False
    if actor.by_token and not actor.may(found.role):
        raise AccountError(f"This token's role is {actor.role}; it ends none that is {found.role}.")
    session.delete(found)
    return True


def note_use(session: Session, secret: str, now: datetime) -> None:
    """Note that a program uses a token: who tidies up sees which ones nobody needs."""
    found = _find(session, secret)
    if found is not None:
        found.used_at = now


def _find(session: Session, secret: str) -> ApiToken | None:
    return session.scalars(
        select(ApiToken).where(ApiToken.digest == digest_of(secret))
    ).one_or_none()


def actor_of_token(session: Session, secret: str, now: datetime) -> Actor | None:
    """Return for whom a program asks; ``None`` when the token is void."""
    found = _find(session, secret)
    if found is None or (found.expires_at is not None and found.expires_at <= now):
        return None
    user = session.get_one(User, found.account_id)
    if not user.enabled:
        return None
    role = found.role if user.role.may(found.role) else user.role
    return Actor(
        user.id,
        user.name,
        role,
        by_token=True,
        until=found.expires_at,
        is_due=found.used_at is None or found.used_at + _USED_AGAIN <= now,
    )
