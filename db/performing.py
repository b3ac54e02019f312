"""Claims on workitems elsewhere, and turns at their managers."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.models_performing import Claim, WorklistContact


def take_turn(session: Session, manager: str, now: datetime, until: datetime) -> bool:
    """Whether a manager is to be asked now, and by us: nobody else is told so before ``until``."""
    if session.get(WorklistContact, manager) is None:
        session.add(WorklistContact(manager=manager, next_at=until))
        session.flush()
        return True
    taken = session.execute(
        update(WorklistContact)
        .where(WorklistContact.manager == manager, WorklistContact.next_at <= now)
        .values(next_at=until)
        .execution_options(synchronize_session=False)
    )
    return bool(taken.rowcount)  # type: ignore[attr-defined]


def note_contact(
    session: Session, manager: str, sentence: str, now: datetime, next_at: datetime
) -> None:
    """Keep how a manager answered; an empty sentence: well."""
    contact = session.get_one(WorklistContact, manager)
    session.refresh(contact)
    contact.next_at, contact.sentence = next_at, sentence
    if sentence:
        contact.failures += 1
    else:
        contact.failures, contact.answered_at = 0, now


def failures_of(session: Session, manager: str) -> int:
    """Return how often in a row a manager has not answered."""
    contact = session.get(WorklistContact, manager)
    return 0 if contact is None else contact.failures


def contacts(session: Session) -> list[WorklistContact]:
    """List how the managers answered."""
    return list(session.scalars(select(WorklistContact).order_by(WorklistContact.manager)))


def open_claims(session: Session, manager: str) -> list[Claim]:
    """List what this node has claimed at a manager, or is about to."""
    return list(
        session.scalars(
            select(Claim)
            .where(Claim.manager == manager, Claim.state != "ended")
            .order_by(Claim.claimed_at, Claim.workitem_uid)
        )
    )


def known_claims(session: Session, manager: str, uids: Collection[str]) -> set[str]:
    """Return those of the workitems that were ever claimed, or tried."""
    return set(
        session.scalars(
            select(Claim.workitem_uid).where(
                Claim.manager == manager, Claim.workitem_uid.in_(list(uids))
            )
        )
    )


def latest_claims(session: Session, limit: int) -> list[Claim]:
    """List claims, the newest first."""
    return list(session.scalars(select(Claim).order_by(Claim.claimed_at.desc()).limit(limit)))


def add_claim(
    session: Session,
    manager: str,
    workitem_uid: str,
    study_instance_uid: str,
    transaction_uid: str,
    dataset: dict[str, Any],
    now: datetime,
) -> None:
    """Note that a workitem is about to be claimed; before the manager is asked."""
    session.add(
        Claim(
            manager=manager,
            workitem_uid=workitem_uid,
            study_instance_uid=study_instance_uid,
            transaction_uid=transaction_uid,
            dataset=dataset,
            claimed_at=now,
        )
    )


def change_claim(session: Session, manager: str, workitem_uid: str, **values: Any) -> None:
    """Note what became of a claim."""
    claim = session.get_one(Claim, (manager, workitem_uid))
    for name, value in values.items():
        setattr(claim, name, value)


def forget_claim(session: Session, manager: str, workitem_uid: str) -> None:
    """Forget a claim that somebody else was faster with."""
    session.delete(session.get_one(Claim, (manager, workitem_uid)))
