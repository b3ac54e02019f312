"""What the node tells of itself: workers, echoes, rules as they were saved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from db.models import Quarantine
from db.models_operation import EchoRecord, RulesVersion, WorkerRecord


def tell_of_worker(session: Session, record: WorkerRecord, forget_before: datetime) -> None:
    """Keep what a worker says of itself, and forget those that have been silent for long."""
    session.merge(record)
    session.execute(delete(WorkerRecord).where(WorkerRecord.seen_at < forget_before))


def note_echo(
    session: Session, destination: str, answers: bool, seconds: float, sentence: str, now: datetime
) -> EchoRecord:
    """Keep what a destination said to a C-ECHO."""
    before = session.get(EchoRecord, destination)
    answered_at = now if answers else (before.answered_at if before else None)
    return session.merge(
        EchoRecord(
            destination=destination,
            asked_at=now,
            answered_at=answered_at,
            answers=answers,
            seconds=seconds,
            sentence=sentence,
        )
    )


def note_answer(session: Session, destination: str, words: str, now: datetime) -> None:
    """Keep that a destination answered to something else than a C-ECHO, such as to a C-STORE."""
    note_echo(session, destination, answers=True, seconds=0.0, sentence=words, now=now)


def forget_echoes(session: Session, known: Sequence[str]) -> None:
    """Forget destinations that ``node.yaml`` does not have any more."""
    session.execute(delete(EchoRecord).where(EchoRecord.destination.not_in(known)))


def keep_rules(session: Session, text: str, account: str, comment: str, now: datetime) -> None:
    """Keep a version of ``rules.yaml``."""
    session.add(RulesVersion(at=now, account=account, comment=comment[:256], text=text))
    session.flush()


def rules_versions(session: Session, limit: int = 50) -> list[RulesVersion]:
    """List the versions, the newest first."""
    return list(session.scalars(select(RulesVersion).order_by(RulesVersion.id.desc()).limit(limit)))


def rules_version(session: Session, number: int) -> RulesVersion | None:
    """Return one version."""
    return session.get(RulesVersion, number)


def quarantine_page(
    session: Session, *, before: int | None = None, limit: int = 100, resolved: bool = False
) -> tuple[list[Quarantine], int | None]:
    """List what lies in quarantine (or what became of it), the newest first, page by page."""
    query = select(Quarantine)
    if resolved:
        query = query.where(Quarantine.resolved_at.is_not(None))
    else:
        query = query.where(Quarantine.resolved_at.is_(None))
    if before is not None:
        query = query.where(Quarantine.id < before)
    found = session.scalars(query.order_by(Quarantine.id.desc()).limit(limit + 1)).all()
    page = list(found[:limit])
    return page, page[-1].id if len(found) > limit else None


def quarantine_entry(session: Session, number: int, *, hold: bool = False) -> Quarantine | None:
    """Return one entry; with `hold`, nobody else changes it until the transaction ends."""
    return session.get(Quarantine, number, with_for_update=hold or None)


def quarantine_count(session: Session) -> int:
    """Count what lies in quarantine."""
    return session.execute(
        select(func.count(Quarantine.id)).where(Quarantine.resolved_at.is_(None))
    ).scalar_one()
