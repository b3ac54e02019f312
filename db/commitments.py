"""Transactions of storage commitment: asked by us of a destination, or given by us to a peer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db.attributes import plain_text
from db.held import HELD_RESULT, HELD_SOURCE
from db.models import Instance, ResultRecord
from db.models_told import AnnouncedInstances, Commitment
from db.resting import hurry

_AT_ONCE = 500


class Item(NamedTuple):
    """An instance in a transaction; the reason is why it was not committed, None otherwise."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int | None = None


class HeldFile(NamedTuple):
    """A file that the node holds, for whoever wants to be sure of it."""

    sop_class_uid: str
    path: str


def items_of(commitment: Commitment) -> list[Item]:
    """Give the instances of a transaction."""
    return [Item(*item) for item in commitment.items]


def ask(
    session: Session,
    *,
    destination: str,
    transaction_uid: str,
    job_id: int,
    items: Sequence[Item],
    now: datetime,
) -> None:
    """Note that a destination is asked to commit a job's results; before it is asked."""
    session.add(
        Commitment(
            direction="asked",
            entity=destination,
            transaction_uid=transaction_uid,
            job_id=job_id,
            items=[list(item) for item in items],
            requested_at=now,
            next_attempt_at=now,
        )
    )


def asked_of(session: Session, job_id: int, destination: str) -> list[Commitment]:
    """List what a destination was asked for a job, oldest first."""
    return list(
        session.scalars(
            select(Commitment)
            .where(
                Commitment.direction == "asked",
                Commitment.job_id == job_id,
                Commitment.entity == destination,
            )
            .order_by(Commitment.id)
        )
    )


def asked_by(session: Session, job_id: int) -> list[Commitment]:
    """List what all destinations were asked for a job, oldest first."""
    return list(
        session.scalars(
            select(Commitment)
            .where(Commitment.direction == "asked", Commitment.job_id == job_id)
            .order_by(Commitment.id)
        )
    )


def withdraw(session: Session, job_id: int, destination: str, transaction_uid: str) -> None:
    """Forget a transaction that the destination did not take, unless it reported all the same."""
    session.execute(
        delete(Commitment).where(
            Commitment.direction == "asked",
            Commitment.job_id == job_id,
            Commitment.entity == destination,
            Commitment.transaction_uid == transaction_uid,
            Commitment.answered_at.is_(None),
        )
    )


def answer(
    session: Session,
    destinations: Sequence[str],
    transaction_uid: str,
    reasons: Mapping[str, int | None],
    now: datetime,
) -> bool:
    """Note a report, and have the job looked at again.

    Parameters
    ----------
    session
        An open transaction.
    destinations
        Names of the destinations that the reporting AE stands for.
    transaction_uid
        Of the report.
    reasons
        SOP Instance UID -> failure reason, None for what is committed.
    now
        Aware time.

    Returns
    -------
    bool
        False when none of the destinations was asked this.
    """
    found = session.scalars(
        select(Commitment)
        .where(
            Commitment.direction == "asked",
            Commitment.entity.in_(destinations),
            Commitment.transaction_uid == transaction_uid,
        )
        .with_for_update()
    ).first()
    if found is None:
        return False
    # What the report leaves out is not committed: no reason of the standard, so "processing".
    found.items = [
        [item.sop_class_uid, item.sop_instance_uid, reasons.get(item.sop_instance_uid, 0x0110)]
        for item in items_of(found)
    ]
    found.answered_at = now
    session.flush()
    if found.job_id is not None:
        hurry(session, found.job_id, now)
    return True


def take(
    session: Session, ae_title: str, transaction_uid: str, items: Sequence[Item], now: datetime
) -> bool:
    """Note what a peer wants committed; False when it used the transaction's UID before."""
    known = session.scalar(
        select(Commitment.id).where(
            Commitment.direction == "given",
            Commitment.entity == ae_title,
            Commitment.transaction_uid == transaction_uid,
        )
    )
    if known is not None:
        return False
    session.add(
        Commitment(
            direction="given",
            entity=plain_text(ae_title, 128),
            transaction_uid=transaction_uid,
            items=[[plain_text(item[0]), plain_text(item[1]), None] for item in items],
            requested_at=now,
            next_attempt_at=now,
        )
    )
    return True


def due_reports(session: Session, now: datetime, hold: timedelta, most: int) -> list[Commitment]:
    """Take reports that are due; nobody else gets them before ``hold`` has passed."""
    due = list(
        session.scalars(
            select(Commitment)
            .where(
                Commitment.direction == "given",
                Commitment.answered_at.is_(None),
                Commitment.next_attempt_at <= now,
            )
            .order_by(Commitment.next_attempt_at)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
    )
    for one in due:
        one.next_attempt_at = now + hold
        one.attempts += 1
    session.flush()
    return due


def settle(
    session: Session, commitment_id: int, items: Sequence[Item], sentence: str, now: datetime
) -> None:
    """Note that a report was delivered, or is given up."""
    session.execute(
        update(Commitment)
        .where(Commitment.id == commitment_id)
        .values(items=[list(item) for item in items], answered_at=now, sentence=sentence)
    )


def postpone(session: Session, commitment_id: int, sentence: str, until: datetime) -> None:
    """Note why a report could not be delivered, and when it is tried again."""
    session.execute(
        update(Commitment)
        .where(Commitment.id == commitment_id)
        .values(next_attempt_at=until, sentence=sentence)
    )


def held_files(session: Session, sop_instance_uids: Collection[str]) -> dict[str, list[HeldFile]]:
    """Find the files that the node holds under these SOP Instance UIDs."""
    found: dict[str, list[HeldFile]] = {}
    wanted = sorted(set(sop_instance_uids))
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        for model, held in ((Instance, HELD_SOURCE), (ResultRecord, HELD_RESULT)):
            rows = session.execute(
                select(model.sop_instance_uid, model.sop_class_uid, model.path).where(
                    model.sop_instance_uid.in_(some), held
                )
            )
            for uid, sop_class, path in rows:
                found.setdefault(uid, []).append(HeldFile(sop_class, path))
    return found


def forget_told(session: Session, before: datetime) -> None:
    """Delete reports given and announcements taken that are older than a time."""
    session.execute(
        delete(Commitment).where(Commitment.direction == "given", Commitment.requested_at < before)
    )
    session.execute(delete(AnnouncedInstances).where(AnnouncedInstances.told_at < before))
