"""How far the audit trail has come to each collector.

The trail itself is the queue: it lies on the disk and loses nothing, however long a collector is
away. A position names the last record that a collector has, with its digest: when that record is
not there any more as it was, the database was changed or put back, and that is told.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from db.audit import FIRST_DIGEST
from db.inserting import insert_by
from db.models_access import AuditPosition, AuditRecord

_MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to send to one collector, from where on, and how often it failed before."""

    collector: str
    token: str
    record_id: int
    digest: str
    failures: int


@dataclass(frozen=True, slots=True)
class CollectorState:
    """How it stands with a collector.

    Attributes
    ----------
    unsent
        Records that it does not have yet; at most 10 000 are counted.
    record_id, sent_at
        The last one that it has, and when that was proven; 0 and None before the first.
    sentence
        What went wrong the last time; empty when nothing did.
    failures
        How often in a row.
    next_attempt_at
        When it is tried again, where something went wrong.
    """

    name: str
    unsent: int
    record_id: int = 0
    sent_at: datetime | None = None
    sentence: str = ""
    failures: int = 0
    next_attempt_at: datetime | None = None


def claim(session: Session, collector: str, now: datetime, seconds: float) -> Claim | None:
    """Take the right to send, for so many seconds; None while another has it, or it is too early.

    Whether there is anything to send, it does not say.
    """
    session.execute(_first_position(session, collector, now))
    token = secrets.token_hex(8)
    taken = session.execute(
        update(AuditPosition)
        .where(
            AuditPosition.collector == collector,
            AuditPosition.next_attempt_at <= now,
            or_(AuditPosition.claimed_until.is_(None), AuditPosition.claimed_until <= now),
        )
        .values(claimed_until=now + timedelta(seconds=seconds), claimed_by=token)
        .execution_options(synchronize_session=False)
        .returning(AuditPosition.record_id, AuditPosition.digest, AuditPosition.failures)
    ).first()
    return None if taken is None else Claim(collector, token, *taken)


def has_unsent(session: Session, collector: str) -> bool:
    """Say whether the trail has something that a collector lacks, or does not have what it had."""
    position = session.get(AuditPosition, collector)
    last = session.execute(
        select(AuditRecord.id, AuditRecord.digest).order_by(AuditRecord.id.desc()).limit(1)
    ).first()
    known = (0, FIRST_DIGEST) if position is None else (position.record_id, position.digest)
    return (known if last is None else (last.id, last.digest)) != known


def still_there(session: Session, held: Claim) -> bool:
    """Say whether the record of a position is in the trail as it was sent."""
    if held.record_id == 0:
        return True
    entry = session.get(AuditRecord, held.record_id)
    return entry is not None and entry.digest == held.digest


def unsent_after(session: Session, record_id: int, limit: int) -> list[AuditRecord]:
    """List the records after one, the oldest first."""
    query = select(AuditRecord).where(AuditRecord.id > record_id).order_by(AuditRecord.id)
    return list(session.scalars(query.limit(limit)))


def move(session: Session, held: Claim, record_id: int, digest: str) -> Claim | None:
    """Move the position; None when the right to send has gone to another."""
    moved = _change(session, held, record_id=record_id, digest=digest)
    return replace(held, record_id=record_id, digest=digest) if moved else None


def note_sent(session: Session, held: Claim, now: datetime) -> None:
    """Give the right back after all went well."""
    _change(
        session, held, sent_at=now, sentence="", failures=0, claimed_until=None, claimed_by="",
        next_attempt_at=now,
    )  # fmt: skip


def note_failed(session: Session, held: Claim, sentence: str, at: datetime) -> None:
    """Give the right back with what went wrong, once more, and when to try again."""
    _change(
        session, held, sentence=sentence, failures=held.failures + 1, claimed_until=None,
        claimed_by="", next_attempt_at=at,
    )  # fmt: skip


def _first_position(session: Session, collector: str, now: datetime) -> Any:
    """Return what makes the position where there is none; two at once do no harm."""
    first = {"collector": collector, "record_id": 0, "digest": FIRST_DIGEST, "failures": 0}
    rest = {"sentence": "", "next_attempt_at": now, "claimed_by": ""}
    return insert_by(session, AuditPosition).values(**first, **rest).on_conflict_do_nothing()


def _change(session: Session, held: Claim, **values: object) -> bool:
    changed = session.execute(
        update(AuditPosition)
        .where(AuditPosition.collector == held.collector, AuditPosition.claimed_by == held.token)
        .values(**values)
        .execution_options(synchronize_session=False)
        .returning(AuditPosition.collector)
    ).first()
    return changed is not None


def collector_states(session: Session, names: Sequence[str]) -> list[CollectorState]:
    """Say how it stands with each of these collectors."""
    found = {
        one.collector: one
        for one in session.scalars(
            select(AuditPosition).where(AuditPosition.collector.in_(list(names)))
        )
    }
    return [_state(session, name, found.get(name)) for name in names]


def _state(session: Session, name: str, position: AuditPosition | None) -> CollectorState:
    after = 0 if position is None else position.record_id
    some = select(AuditRecord.id).where(AuditRecord.id > after).limit(_MOST_COUNTED).subquery()
    unsent = session.execute(select(func.count()).select_from(some)).scalar_one()
    if position is None:
        return CollectorState(name, unsent)
    return CollectorState(
        name,
        unsent,
        position.record_id,
        position.sent_at,
        position.sentence,
        position.failures,
        position.next_attempt_at if position.failures else None,
    )
