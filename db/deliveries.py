"""How a job's results fare at the destinations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from db.attributes import plain_text
from db.leases import Lease, guard
from db.models import REJECTION_NOTE, DeliveryRecord, DeliveryState, ResultRecord, ResultState
from db.results import results_of

_NOT_STORED = frozenset({DeliveryState.PENDING, DeliveryState.REFUSED})


def plan_deliveries(
    session: Session,
    lease: Lease,
    destinations: Sequence[str],
    kinds: Mapping[str, Collection[str]] | None = None,
) -> list[tuple[str, str]]:
    """Give each result that may be sent a row per destination, by the settings of now.

    Rows that exist stay, but for those of a kind that the destination is not to get any more and
    that it has not stored.

    Parameters
    ----------
    session, lease
        An open transaction, and the right to the job.
    destinations
        Their names.
    kinds
        By name, the kinds of result that a destination takes; those not named take all.

    Returns
    -------
    list of tuple
        Destination and kind of each row that was taken out.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(session, lease)
    left_out: list[tuple[str, str]] = []
    for result in results_of(session, lease.job_id):
        if result.state is not ResultState.READY or result.kind == REJECTION_NOTE:
            continue
        planned = {delivery.destination: delivery for delivery in result.deliveries}
        for destination in destinations:
            takes = (kinds or {}).get(destination)
            wanted = takes is None or result.kind in takes
            known = planned.get(destination)
            if known is not None and not wanted and known.state in _NOT_STORED:
                session.delete(known)
                left_out.append((destination, result.kind))
            if wanted and known is None:
                session.add(
                    DeliveryRecord(
                        result_id=result.id,
                        destination=destination,
                        state=DeliveryState.PENDING,
                    )
                )
    session.flush()
    if left_out:
        session.expire_all()  # the rows that were taken out
    return left_out


def hope_again(session: Session, lease: Lease) -> None:
    """Lift the refusals of the job's results: a person asked for another try.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(session, lease)
    of_job = select(ResultRecord.id).where(ResultRecord.job_id == lease.job_id)
    session.execute(
        update(DeliveryRecord)
        .where(
            DeliveryRecord.result_id.in_(of_job),
            DeliveryRecord.state == DeliveryState.REFUSED,
        )
        .values(state=DeliveryState.PENDING)
    )


def record_sending(
    session: Session,
    lease: Lease,
    delivery_ids: Sequence[int],
    state: DeliveryState,
    sentence: str,
    now: datetime,
    status: int | None = None,
) -> None:
    """Note one attempt to send: pending (try again), sent or refused.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    values: dict[str, Any] = {
        "state": state,
        "status": status,
        "sentence": sentence,
        "attempts": DeliveryRecord.attempts + 1,
        "attempted_at": now,
    }
    if state is DeliveryState.SENT:
        values["sent_at"] = now
    _write(session, lease, delivery_ids, values)


def record_rejection(
    session: Session, lease: Lease, delivery_ids: Sequence[int], sentence: str
) -> None:
    """Note that a destination rejected the association: no result was tried on it.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    values = {"sentence": sentence, "attempts": DeliveryRecord.attempts + 1}
    _write(session, lease, delivery_ids, values)


def record_confirmation(
    session: Session,
    lease: Lease,
    delivery_ids: Sequence[int],
    confirmed_by: str,
    sentence: str,
    now: datetime,
) -> None:
    """Note that a destination proved to have these results.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    values = {
        "state": DeliveryState.CONFIRMED,
        "confirmed_at": now,
        "confirmed_by": confirmed_by,
        "sentence": sentence,
    }
    _write(session, lease, delivery_ids, values)


def _write(
    session: Session, lease: Lease, delivery_ids: Sequence[int], values: Mapping[str, Any]
) -> None:
    guard(session, lease)
    if delivery_ids:
        session.execute(
            update(DeliveryRecord).where(DeliveryRecord.id.in_(list(delivery_ids))).values(**values)
        )


def record_listing(session: Session, lease: Lease, listed: Mapping[int, Mapping[str, str]]) -> None:
    """Note what a destination answers to a query for results, by delivery.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(session, lease)
    for delivery_id, answer in listed.items():
        session.execute(
            update(DeliveryRecord)
            .where(DeliveryRecord.id == delivery_id)
            .values(listed={key: plain_text(text, 1024) for key, text in answer.items()})
        )


def silence_at(session: Session, destination: str, since: datetime, *, but_job: int) -> str | None:
    """Return what another job's attempt met that got no answer from a destination.

    Parameters
    ----------
    session
        An open transaction.
    destination
        Its name.
    since
        Attempts before are not counted.
    but_job
        The job that asks; its own attempts are not counted.

    Returns
    -------
    str or None
        The sentence of the latest such attempt; ``None`` when there is none, or when the
        destination took an object afterwards.
    """
    row = session.execute(
        select(DeliveryRecord.attempted_at, DeliveryRecord.sentence)
        .join(ResultRecord, ResultRecord.id == DeliveryRecord.result_id)
        .where(
            DeliveryRecord.destination == destination,
            DeliveryRecord.state == DeliveryState.PENDING,
            DeliveryRecord.status.is_(None),
            DeliveryRecord.sent_at.is_(None),
            DeliveryRecord.attempted_at > since,
            ResultRecord.job_id != but_job,
        )
        .order_by(DeliveryRecord.attempted_at.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    taken = exists().where(
        DeliveryRecord.destination == destination, DeliveryRecord.sent_at > row.attempted_at
    )
    return None if session.scalar(select(taken)) else str(row.sentence)
