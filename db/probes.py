"""What destinations take, as they answered when they were last asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models_probe import ProbeRecord


def record_probe(
    session: Session, destination: str, accepted: Mapping[str, Collection[str]], now: datetime
) -> None:
    """Keep an answer in place of the one before.

    Parameters
    ----------
    session
        An open transaction.
    destination
        Its name in the settings.
    accepted
        Transfer syntaxes by SOP class; a class that was refused has none, and of a class that does
        not stand here nothing is known.
    now
        Aware time.
    """
    session.merge(
        ProbeRecord(
            destination=destination,
            probed_at=now,
            accepted={sop_class: sorted(taken) for sop_class, taken in accepted.items()},
        )
    )


def record_refusal(session: Session, destination: str, sop_class_uid: str, now: datetime) -> None:
    """Keep that a destination does not take a class, beside what a probe found, until the next."""
    known = session.get(ProbeRecord, destination)
    accepted = {} if known is None else dict(known.accepted)
    record_probe(session, destination, {**accepted, sop_class_uid: []}, now)


def accepted_by(session: Session, destinations: Collection[str]) -> dict[str, dict[str, list[str]]]:
    """Return what each of the destinations takes; those never asked are left out."""
    found = session.scalars(
        select(ProbeRecord).where(ProbeRecord.destination.in_(list(destinations)))
    )
    return {one.destination: one.accepted for one in found}
