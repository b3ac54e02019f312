"""The catalog: what was received, and where it lies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from db.attributes import plain_text
from db.inserting import insert_by
from db.models import (
    Instance,
    Job,
    Quarantine,
    Refusal,
    Series,
    Study,
    StudyAssociation,
)
from db.registration import Arrival, Outcome, Registered, register, register_batch
from db.states import JobState

__all__ = [
    "Arrival",
    "Outcome",
    "Registered",
    "add_quarantined",
    "add_refusal",
    "association_ended",
    "associations_of",
    "close_associations",
    "forget",
    "instances_of",
    "known_paths",
    "quarantined_paths",
    "register",
    "register_batch",
    "stand_in_for",
    "study_by_uid",
    "withdraw_conflicts",
]
from db.models_received import HeldSyntax


def association_ended(session: Session, association: str, outcome: str, now: datetime) -> list[int]:
    """Note that an association is over; a study with no other open one counts as released.

    Returns
    -------
    list of int
        The studies that are released by it.
    """
    studies = list(
        session.execute(
            update(StudyAssociation)
            .where(StudyAssociation.association == association, StudyAssociation.ended_at.is_(None))
            .values(ended_at=now, outcome=outcome)
            .returning(StudyAssociation.study_id)
        ).scalars()
    )
    return _release(session, studies, now)


def close_associations(session: Session, listener: str, now: datetime) -> list[int]:
    """Close what a listener left open when it died; called at its next start."""
    studies = list(
        session.execute(
            update(StudyAssociation)
            .where(StudyAssociation.listener == listener, StudyAssociation.ended_at.is_(None))
            .values(ended_at=now, outcome="lost")
            .returning(StudyAssociation.study_id)
        ).scalars()
    )
    return _release(session, sorted(set(studies)), now)


def add_quarantined(
    session: Session,
    *,
    path: str,
    reason: str,
    received_at: datetime,
    size: int = 0,
    origin: Mapping[str, str] | None = None,
) -> None:
    """Note an object in quarantine; a second note about the same file changes nothing."""
    columns = Quarantine.__table__.c
    values: dict[str, Any] = {
        key: plain_text(text, getattr(columns[key].type, "length", None))
        for key, text in (origin or {}).items()
        if key in columns
    }
    statement = insert_by(session, Quarantine).values(
        values
        | {"path": path, "reason": plain_text(reason), "received_at": received_at, "size": size}
    )
    session.execute(statement.on_conflict_do_nothing(index_elements=["path"]))


def quarantined_paths(session: Session) -> set[str]:
    """Paths, relative to the archive, of all objects in quarantine."""
    return set(session.scalars(select(Quarantine.path)))


def add_refusal(
    session: Session,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    peer_host: str,
    reason: str,
    sentence: str,
    now: datetime,
) -> None:
    """Count a rejected association; one row per sender and reason, however often it tries."""
    statement = insert_by(session, Refusal).values(
        calling_ae_title=plain_text(calling_ae_title, 64),
        called_ae_title=plain_text(called_ae_title, 64),
        peer_host=plain_text(peer_host, 256),
        reason=plain_text(reason, 64),
        sentence=sentence,
        count=1,
        first_at=now,
        last_at=now,
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["calling_ae_title", "called_ae_title", "peer_host", "reason"],
            set_={"count": Refusal.count + 1, "last_at": now, "sentence": sentence},
        )
    )


def instances_of(session: Session, study_id: int) -> list[Instance]:
    """List the study's instances whose files are there, first versions only, in a fixed order."""
    return list(
        session.scalars(
            select(Instance)
            .where(
                Instance.study_id == study_id,
                Instance.conflict.is_(False),
                Instance.purged_at.is_(None),
            )
            .order_by(Instance.series_id, Instance.sop_instance_uid)
        )
    )


def syntaxes_of(session: Session, sop_class_uids: Collection[str]) -> dict[str, set[str]]:
    """Return in which transfer syntaxes instances came: SOP class to syntaxes."""
    found: dict[str, set[str]] = {}
    for uid, syntax in session.execute(
        select(HeldSyntax.sop_class_uid, HeldSyntax.transfer_syntax_uid).where(
            HeldSyntax.sop_class_uid.in_(list(sop_class_uids))
        )
    ):
        found.setdefault(uid, set()).add(syntax)
    return found


def study_by_uid(session: Session, study_instance_uid: str) -> Study | None:
    """Find a study by its Study Instance UID."""
    return session.scalars(
        select(Study).where(Study.study_instance_uid == study_instance_uid)
    ).one_or_none()


def associations_of(session: Session, study_id: int) -> list[StudyAssociation]:
    """List the associations that brought the study, oldest first."""
    return list(
        session.scalars(
            select(StudyAssociation)
            .where(StudyAssociation.study_id == study_id)
            .order_by(StudyAssociation.first_received_at, StudyAssociation.association)
        )
    )


def known_paths(session: Session, series_instance_uid: str) -> set[str]:
    """Paths, relative to the archive, of the series' instances that the catalog counts as kept."""
    return set(
        session.scalars(
            select(Instance.path)
            .join(Series, Series.id == Instance.series_id)
            .where(Series.series_instance_uid == series_instance_uid, Instance.purged_at.is_(None))
        )
    )


def stand_in_for(session: Session, path: str, beside: str) -> str | None:
    """Find what came under a file's UIDs while the catalog did not know that file.

    Parameters
    ----------
    session
        Any session.
    path
        Where the file lay, relative to the archive.
    beside
        How the paths of files begin that are kept beside it.

    Returns
    -------
    str or None
        Path of the first instance that was registered as being in conflict with the file.
    """
    if session.scalar(select(exists().where(Instance.path == path, Instance.purged_at.is_(None)))):
        return None
    return session.scalars(
        select(Instance.path)
        .where(
            Instance.path.startswith(beside, autoescape=True),
            Instance.conflict,
            Instance.purged_at.is_(None),
        )
        .order_by(Instance.id)
        .limit(1)
    ).first()


def withdraw_conflicts(session: Session, arrivals: Sequence[Arrival]) -> list[str]:
    """Delete the rows of instances that took the place of what they were in conflict with.

    Parameters
    ----------
    session
        An open transaction, in which the arrivals are registered afterwards.
    arrivals
        What lies in the archive under its own name.

    Returns
    -------
    list of str
        The paths of these rows: the same bytes, under the name that they had beside another file.
    """
    withdrawn = []
    for arrival in arrivals:
        if arrival.beside:
            continue
        row = session.execute(
            select(Instance.id, Instance.study_id, Instance.path)
            .join(Series, Series.id == Instance.series_id)
            .where(
                Series.series_instance_uid == arrival.series_instance_uid,
                Instance.sop_instance_uid == arrival.sop_instance_uid,
                Instance.sha256 == arrival.sha256,
                Instance.conflict,
            )
        ).first()
        if row is None:
            continue
        session.execute(delete(Instance).where(Instance.id == row.id))
        session.execute(
            update(Study).where(Study.id == row.study_id).values(conflicts=Study.conflicts - 1)
        )
        withdrawn.append(row.path)
    return withdrawn


def forget(session: Session, instance_ids: Iterable[int], now: datetime) -> None:
    """Note that the files of these instances were deleted; their rows stay as history."""
    session.execute(
        update(Instance)
        .where(Instance.id.in_(list(instance_ids)), Instance.purged_at.is_(None))
        .values(purged_at=now)
    )


def _release(session: Session, study_ids: Sequence[int], now: datetime) -> list[int]:
    """Set `released_at` where no association is open any more, and make the wait due."""
    if not study_ids:
        return []
    still_open = select(StudyAssociation.study_id).where(
        StudyAssociation.study_id.in_(study_ids), StudyAssociation.ended_at.is_(None)
    )
    released = list(
        session.execute(
            update(Study)
            .where(Study.id.in_(study_ids), Study.id.not_in(still_open))
            .values(released_at=now)
            .returning(Study.id)
        ).scalars()
    )
    session.execute(
        update(Job)
        .where(
            Job.study_id.in_(released),
            Job.state == JobState.WAITING,
            Job.lease_owner.is_(None),
        )
        .values(next_attempt_at=now, announced_at=None)
    )
    return sorted(released)
