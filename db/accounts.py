"""Who may open the dashboard: accounts, sessions and invitations; tokens are in `db.tokens`.

Nothing here is kept that would let a thief of the database log in: passwords are argon2id hashes,
and of cookies, links and tokens only the SHA-256 digest is stored.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from db.models_access import Invitation, LoginSession, Role, User
from db.passwords import NOBODY, AccountError, Proof, fits, hashed

FAILURES_BEFORE_LOCK: Final = 5
LOCK_TIME: Final = timedelta(minutes=15)
INVITATION_TIME: Final = timedelta(hours=48)
_SEEN_AGAIN: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks.

    Attributes
    ----------
    account_id, name
        The account.
    role
        What the request may do; for a token, the smaller of the token's and its owner's.
    csrf
        What a form of this session must bring along; empty for a token.
    by_token
        Whether a program asks, by a token.
    patients_shown
        Whether the person wants to see names of patients on the pages; None: has not said.
    until
        When the token is void; None of a person.
    is_due
        Whether it is to be noted anew that the session or the token is in use (`touch`,
        `db.tokens.note_use`); most requests need not.
    """

    account_id: int
    name: str
    role: Role
    csrf: str = ""
    by_token: bool = False
    patients_shown: bool | None = None
    until: datetime | None = None
    is_due: bool = False

    def may(self, needed: Role) -> bool:
        """Say whether the request may do what needs this role."""
        return self.role.may(needed)


# ---------------------------------------------------------------------- accounts


def list_users(session: Session) -> list[User]:
    """List all accounts by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def has_admin(session: Session) -> bool:
    """Say whether anybody could let others in."""
    found = select(User.id).where(User.role == Role.ADMIN, User.enabled).limit(1)
    return session.execute(found).first() is not None


def add_user(
    session: Session,
    name: str,
    role: Role,
    now: datetime,
    *,
    password: str | None = None,
    subject: str | None = None,
) -> User:
    """Make an account.

    Raises
    ------
    AccountError
        The name is taken or is none, or the password is too short.
    """
    name = name.strip()
    if not re.fullmatch(r"[\w][\w.@+-]{0,63}", name):
        raise AccountError("A name is 1 to 64 letters, digits, '.', '@', '_', '+' or '-'.")
    if session.scalars(select(User.id).where(func.lower(User.name) == name.lower())).first():
        raise AccountError(f"There is an account {name} already.")
    user = User(name=name, role=role, subject=subject, created_at=now)
    user.password_hash = "" if password is None else hashed(password, name)
    session.add(user)
    session.flush()
    return user


def set_password(session: Session, user: User, password: str) -> None:
    """Give an account another password, and end its sessions.

    Raises
    ------
    AccountError
        The password is too short or too easy.
    """
    user.password_hash = hashed(password, user.name)
    user.failed_logins, user.locked_until = 0, None
    end_sessions(session, user.id)


def change_password(session: Session, user_id: int, old: str, password: str) -> None:
    """Let somebody change the own password.

    Raises
    ------
    AccountError
        The old one is wrong, or the new one is too easy.
    """
    user = session.get_one(User, user_id, with_for_update=True)
    if not user.password_hash or not fits(user.password_hash, old):
        raise AccountError("The old password is wrong.")
    set_password(session, user, password)


def unlock(session: Session, user_id: int) -> str | None:
    """Let a locked account try again; returns its name, ``None`` without such an account."""
    user = session.get(User, user_id, with_for_update=True)
    if user is None:
        return None
    user.failed_logins, user.locked_until = 0, None
    return user.name


def change_user(session: Session, user_id: int, *, role: Role, enabled: bool) -> User:
    """Change what an account may do; its sessions and tokens follow at once.

    Raises
    ------
    AccountError
        There is no such account, or nobody could let others in afterwards.
    """
    user = session.get(User, user_id, with_for_update=True)
    if user is None:
        raise AccountError("There is no such account any more.")
    user.role, user.enabled = role, enabled
    session.flush()
    if not has_admin(session):
        raise AccountError("This is the last administrator: make another one first.")
    if not enabled:
        end_sessions(session, user.id)
    return user


def stored_hash(session: Session, name: str) -> str:
    """Return what a password is to be held against; a stranger's name has a hash, too."""
    user = _named(session, name)
    return NOBODY if user is None or not user.password_hash else user.password_hash


def show_patients(session: Session, user_id: int, shown: bool) -> None:
    """Keep whether somebody wants to see the names of patients on the pages."""
    session.get_one(User, user_id).patients_shown = shown


def log_in(session: Session, name: str, proof: Proof, now: datetime) -> User | None:
    """Return who logs in; ``None`` for a wrong password, or a locked or unknown account.

    After `FAILURES_BEFORE_LOCK` wrong ones the account is locked for `LOCK_TIME`. Commit in any
    case: the failures are counted in the account.
    """
    user = _named(session, name, hold=True)
    if user is None or user.password_hash != proof.stored:
        return None
    if user.locked_until is not None and now < user.locked_until:
        return None
    if not proof.right:
        user.failed_logins += 1
        if user.failed_logins >= FAILURES_BEFORE_LOCK:
            user.failed_logins, user.locked_until = 0, now + LOCK_TIME
        return None
    if not user.enabled:
        return None
    if proof.renewed:
        user.password_hash = proof.renewed
    user.failed_logins, user.locked_until = 0, None
    return user


def _named(session: Session, name: str, *, hold: bool = False) -> User | None:
    query = select(User).where(func.lower(User.name) == name.strip().lower())
    return session.scalars(query.with_for_update() if hold else query).one_or_none()


def user_by_subject(session: Session, subject: str) -> User | None:
    """Find the account of a person whom an OpenID provider vouches for."""
    return session.scalars(select(User).where(User.subject == subject)).one_or_none()


def user_of_provider(session: Session, subject: str, name: str, role: Role, now: datetime) -> User:
    """Find or make the account of somebody whom a provider vouches for; the role is the provider's.

    Raises
    ------
    AccountError
        The account is shut, or a local account has the name.
    """
    user = user_by_subject(session, subject)
    if user is None:
        return add_user(session, re.sub(r"[^\w.@+-]", "_", name)[:64], role, now, subject=subject)
    if not user.enabled:
        raise AccountError("This account is shut; ask an administrator.")
    user.role = role
    return user


# ---------------------------------------------------------------------- sessions


def begin_session(
    session: Session, user: User, now: datetime, *, hours: float, host: str = ""
) -> str:
    """Log a browser in; returns the secret for its cookie."""
    session.execute(delete(LoginSession).where(LoginSession.expires_at <= now))
    secret = secrets.token_urlsafe(32)
    session.add(
        LoginSession(
            digest=digest_of(secret),
            account_id=user.id,
            csrf=secrets.token_urlsafe(24),
            host=host[:64],
            created_at=now,
            seen_at=now,
            expires_at=now + timedelta(hours=hours),
        )
    )
    user.last_login_at = now
    session.flush()
    return secret


def actor_of_session(session: Session, secret: str, now: datetime, idle: timedelta) -> Actor | None:
    """Return who is logged in by this cookie; ``None`` when it is void, old or long unused."""
    found = session.get(LoginSession, digest_of(secret))
    if found is None or found.expires_at <= now or found.seen_at + idle <= now:
        return None
    user = session.get(User, found.account_id)
    if user is None or not user.enabled:
        return None
    return Actor(
        user.id,
        user.name,
        user.role,
        found.csrf,
        patients_shown=user.patients_shown,
        is_due=found.seen_at + _SEEN_AGAIN <= now,
    )


def touch(session: Session, secret: str, now: datetime) -> None:
    """Note that a session is in use."""
    found = session.get(LoginSession, digest_of(secret))
    if found is not None:
        found.seen_at = now


def end_session(session: Session, secret: str) -> None:
    """Log a browser out."""
    session.execute(delete(LoginSession).where(LoginSession.digest == digest_of(secret)))


def end_sessions(session: Session, user_id: int) -> None:
    """Log an account out everywhere."""
    session.execute(delete(LoginSession).where(LoginSession.account_id == user_id))


# ---------------------------------------------------------------------- invitations


def invite(session: Session, role: Role, now: datetime, *, created_by: str, name: str = "") -> str:
    """Make a one-time link's secret."""
    session.execute(delete(Invitation).where(Invitation.expires_at <= now))
    secret = secrets.token_urlsafe(24)
    session.add(
        Invitation(
            digest=digest_of(secret),
            role=role,
            name=name,
            created_by=created_by,
            created_at=now,
            expires_at=now + INVITATION_TIME,
        )
    )
    return secret


def invite_first_admin(session: Session, now: datetime) -> str | None:
    """Make the link for the first administrator, in place of one made before; ``None`` with one."""
    if has_admin(session):
        return None
    session.execute(delete(Invitation).where(Invitation.created_by == ""))
    return invite(session, Role.ADMIN, now, created_by="")


def invitation_of(session: Session, secret: str, now: datetime) -> Invitation | None:
    """Find an invitation that is still good."""
    found = session.get(Invitation, digest_of(secret))
    return None if found is None or found.expires_at <= now else found


def accept_invitation(
    session: Session, secret: str, name: str, password: str, now: datetime
) -> User:
    """Make the account that an invitation is for; the link is void afterwards.

    Raises
    ------
    AccountError
        The link is void, the name is taken, or the password is too short.
    """
    found = session.get(Invitation, digest_of(secret), with_for_update=True)
    if found is None or found.expires_at <= now:
        raise AccountError("This link was used already, or is too old. Ask for a new one.")
    user = add_user(session, found.name or name, found.role, now, password=password)
    session.delete(found)
    return user


def digest_of(secret: str) -> str:
    """Return what the database keeps of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
