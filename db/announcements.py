"""What procedure steps and availability notifications say of the instances of a study."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.attributes import plain_text
from db.models import Instance, Job, Study
from db.models_told import AnnouncedInstances
from db.resting import hurry
from db.states import JobState


@dataclass(frozen=True, slots=True)
class Announced:
    """What was announced of a study.

    Attributes
    ----------
    missing
        Announced instances that did not come.
    told
        Whether anything was announced at all.
    in_progress
        Whether a procedure step of the study goes on.
    """

    missing: int = 0
    told: bool = False
    in_progress: bool = False


def note_announced(
    session: Session,
    *,
    kind: str,
    identifier: str,
    study_instance_uid: str,
    calling_ae_title: str,
    state: str,
    sop_instance_uids: Collection[str],
    now: datetime,
) -> bool:
    """Note an announcement, and have the study looked at; False when it is known already."""
    found = session.scalars(
        select(AnnouncedInstances).where(
            AnnouncedInstances.kind == kind,
            AnnouncedInstances.identifier == identifier,
            AnnouncedInstances.study_instance_uid == study_instance_uid,
        )
    ).first()
    if found is not None:
        return False
    session.add(
        AnnouncedInstances(
            kind=kind,
            identifier=identifier,
            study_instance_uid=study_instance_uid,
            calling_ae_title=plain_text(calling_ae_title, 64),
            state=state,
            sop_instance_uids=sorted(sop_instance_uids),
            told_at=now,
        )
    )
    _look_at(session, study_instance_uid, now)
    return True


def note_progress(
    session: Session,
    *,
    identifier: str,
    state: str,
    sop_instance_uids: Collection[str],
    now: datetime,
) -> Literal["noted", "unknown", "ended"]:
    """Note how a procedure step goes on, unless it is not known or has ended."""
    known = session.scalars(
        select(AnnouncedInstances)
        .where(
            AnnouncedInstances.kind == "mpps",
            AnnouncedInstances.identifier == identifier,
        )
        .with_for_update()
    ).all()
    found = [one for one in known if one.state == "in progress"]
    for one in found:
        one.state = state
        # A message that changes only the state leaves the list as it was.
        one.sop_instance_uids = sorted(sop_instance_uids) or one.sop_instance_uids
        one.told_at = now
        session.flush()
        _look_at(session, one.study_instance_uid, now)
    if found:
        return "noted"
    return "ended" if known else "unknown"


def announced_of(session: Session, study: Study) -> Announced:
    """Hold what was announced of a study against what came."""
    rows = session.scalars(
        select(AnnouncedInstances).where(
            AnnouncedInstances.study_instance_uid == study.study_instance_uid
        )
    ).all()
    if not rows:
        return Announced()
    # What a discontinued step made may never be sent.
    wanted = {uid for row in rows if row.state != "discontinued" for uid in row.sop_instance_uids}
    here = set(
        session.scalars(select(Instance.sop_instance_uid).where(Instance.study_id == study.id))
    )
    return Announced(
        missing=len(wanted - here),
        told=bool(wanted),
        in_progress=any(row.state == "in progress" for row in rows),
    )


def _look_at(session: Session, study_instance_uid: str, now: datetime) -> None:
    """Have a waiting study looked at now rather than when it has been quiet."""
    job_id = session.scalar(
        select(Job.id)
        .join(Study, Study.id == Job.study_id)
        .where(Study.study_instance_uid == study_instance_uid, Job.state == JobState.WAITING)
    )
    if job_id is not None:
        hurry(session, job_id, now)
