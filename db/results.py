"""What a job found and wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.orm import Session, selectinload

from db.attributes import plain_text
from db.leases import Lease, guard
from db.models import (
    REJECTION_NOTE,
    DeliveryRecord,
    FindingRecord,
    Job,
    ResultRecord,
    ResultState,
)


@dataclass(frozen=True, slots=True)
class FoundFinding:
    """A finding as the database keeps it; the attributes are those of `inference.findings`."""

    target: str
    text: str
    presence: str
    confidence: float
    phrase: str = ""
    prompt: str = ""
    predicted_iou: float | None = None
    key_frame: int | None = None
    segment_number: int | None = None
    tracking_uid: str = ""
    measurements: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WrittenResult:
    """An object that the job wrote durably to the archive.

    Attributes
    ----------
    kind
        ``segmentation``, ``measurement_report``, ``grounded_report``, or a form that a destination
        asks for besides.
    path, size, sha256
        Of the file, as `dicom_node.archive.StoredFile` has them.
    problems
        The validator's verdict: rule, severity, text.
    quarantined
        True when an error forbids sending it.
    attributes
        DICOM keyword -> text of its header, for queries.
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str
    size: int
    sha256: str
    problems: Sequence[Mapping[str, str]] = ()
    quarantined: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


def draw_identifiers(
    session: Session, lease: Lease, identifiers: Mapping[str, Any]
) -> dict[str, Any]:
    """Keep the UIDs of the job's results, unless it has some: those are handed back and stay.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(session, lease)
    kept = session.execute(select(Job.identifiers).where(Job.id == lease.job_id)).scalar_one()
    if kept is not None:
        return dict(kept)
    guard(session, lease, identifiers=dict(identifiers))
    return dict(identifiers)


def redraw_identifiers(session: Session, lease: Lease, identifiers: Mapping[str, Any]) -> None:
    """Put other UIDs in place of the job's: what stood there was stored nowhere.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(session, lease, identifiers=dict(identifiers))


def record_findings(
    session: Session,
    lease: Lease,
    findings: Sequence[FoundFinding],
    *,
    model_name: str,
    model_version: str,
    model_digest: str,
    intensity: str,
) -> None:
    """Keep what the model said, in place of what an earlier attempt said.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(
        session,
        lease,
        model_name=model_name,
        model_version=model_version,
        model_digest=model_digest,
        intensity=intensity,
    )
    session.execute(delete(FindingRecord).where(FindingRecord.job_id == lease.job_id))
    rows = [
        {
            "job_id": lease.job_id,
            "position": position,
            "target": one.target,
            "text": one.text,
            "phrase": one.phrase,
            "prompt": one.prompt,
            "presence": str(one.presence),
            "confidence": one.confidence,
            "predicted_iou": one.predicted_iou,
            "key_frame": one.key_frame,
            "segment_number": one.segment_number,
            "tracking_uid": one.tracking_uid,
            "measurements": dict(one.measurements),
        }
        for position, one in enumerate(findings)
    ]
    if rows:
        session.execute(insert(FindingRecord), rows)


def record_measurements(
    session: Session,
    lease: Lease,
    measurements: Mapping[int, Mapping[str, Any]],
    segments: Mapping[int, int] | None = None,
    tracking_uids: Mapping[int, str] | None = None,
) -> None:
    """Add to the findings what encoding learned; keys are positions of findings, from 0.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(session, lease)
    segments = segments or {}
    tracking_uids = tracking_uids or {}
    for position in sorted({*measurements, *segments, *tracking_uids}):
        values: dict[str, Any] = {}
        if position in measurements:
            values["measurements"] = dict(measurements[position])
        if position in segments:
            values["segment_number"] = segments[position]
        if position in tracking_uids:
            values["tracking_uid"] = tracking_uids[position]
        session.execute(
            update(FindingRecord)
            .where(FindingRecord.job_id == lease.job_id, FindingRecord.position == position)
            .values(**values)
        )


def record_results(
    session: Session, lease: Lease, results: Sequence[WrittenResult], now: datetime
) -> None:
    """Keep the written objects, in the order of sending, in place of an earlier attempt's.

    An object that is the same as before stays known as sent where it was sent. Rejection notes of
    an earlier attempt stay: they withdraw what lies elsewhere by now.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(session, lease)
    same = {one.sop_instance_uid: one.sha256 for one in results if not one.quarantined}
    before = {
        one.sop_instance_uid: one
        for one in results_of(session, lease.job_id)
        if one.kind != REJECTION_NOTE
    }
    kept = {uid: one for uid, one in before.items() if same.get(uid) == one.sha256}
    first = _next_position(session, lease.job_id)
    gone = [one.id for uid, one in before.items() if uid not in kept]
    session.execute(delete(ResultRecord).where(ResultRecord.id.in_(gone)))
    rows = []
    for position, one in enumerate(results, first):
        row = _row(lease.job_id, position, one, now)
        if (there := kept.get(one.sop_instance_uid)) is None:
            rows.append(row)
            continue
        for name in ("position", "path", "state", "problems", "attributes"):
            setattr(there, name, row[name])
    session.flush()
    if rows:
        session.execute(insert(ResultRecord), rows)
    session.expire_all()


def _row(job_id: int, position: int, one: WrittenResult, now: datetime) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "position": position,
        "kind": one.kind,
        "sop_class_uid": one.sop_class_uid,
        "sop_instance_uid": one.sop_instance_uid,
        "series_instance_uid": one.series_instance_uid,
        "path": one.path,
        "size": one.size,
        "sha256": one.sha256,
        "state": ResultState.QUARANTINED if one.quarantined else ResultState.READY,
        "problems": [dict(problem) for problem in one.problems],
        "attributes": {key: plain_text(text) for key, text in one.attributes.items()},
        "created_at": now,
    }


def _next_position(session: Session, job_id: int) -> int:
    last = session.scalar(
        select(func.max(ResultRecord.position)).where(ResultRecord.job_id == job_id)
    )
    return 0 if last is None else last + 1


def record_rejection_note(
    session: Session, job_id: int, note: WrittenResult, now: datetime
) -> None:
    """Keep a rejection note beside the results of its job, once."""
    known = select(ResultRecord.id).where(ResultRecord.sop_instance_uid == note.sop_instance_uid)
    if session.scalar(known) is None:
        row = _row(job_id, _next_position(session, job_id), note, now)
        session.execute(insert(ResultRecord), [row])


def results_of(session: Session, job_id: int) -> list[ResultRecord]:
    """List the job's objects with their deliveries, in the order of sending."""
    return list(
        session.scalars(
            select(ResultRecord)
            .where(ResultRecord.job_id == job_id)
            .options(selectinload(ResultRecord.deliveries), selectinload(ResultRecord.withdrawal))
            .order_by(ResultRecord.position)
        )
    )


def sent_before(session: Session, job_id: int, kinds: Sequence[str]) -> list[ResultRecord]:
    """List what an earlier run on the same source under the same rule sent, and was not withdrawn.

    Of this job, when it begins anew, and else of the last other job that sent something.

    Parameters
    ----------
    session
        An open transaction.
    job_id
        The job that is about to write results.
    kinds
        Of result that are wanted.
    """
    job = session.get_one(Job, job_id)
    sent = exists().where(
        DeliveryRecord.result_id == ResultRecord.id, DeliveryRecord.sent_at.is_not(None)
    )
    found = list(
        session.scalars(
            select(ResultRecord)
            .join(Job, Job.id == ResultRecord.job_id)
            .where(
                Job.study_id == job.study_id,
                Job.series_instance_uid == job.series_instance_uid,
                Job.rule == job.rule,
                Job.id <= job_id,
                ResultRecord.kind.in_(list(kinds)),
                ~ResultRecord.withdrawal.has(),
                sent,
            )
            .order_by(ResultRecord.job_id.desc(), ResultRecord.position)
        )
    )
    return [one for one in found if one.job_id == found[0].job_id]


def findings_of(session: Session, job_id: int) -> list[FindingRecord]:
    """List the job's findings in the order asked."""
    return list(
        session.scalars(
            select(FindingRecord)
            .where(FindingRecord.job_id == job_id)
            .order_by(FindingRecord.position)
        )
    )


def present_targets(session: Session, job_ids: Collection[int]) -> dict[int, list[str]]:
    """Return the targets that each of these jobs found present; jobs without one are left out."""
    rows = session.execute(
        select(FindingRecord.job_id, FindingRecord.target)
        .where(FindingRecord.job_id.in_(job_ids), FindingRecord.presence == "present")
        .order_by(FindingRecord.job_id, FindingRecord.position)
    )
    found: dict[int, list[str]] = {}
    for job_id, target in rows:
        found.setdefault(job_id, []).append(target)
    return found


def with_results(session: Session, job_ids: Collection[int]) -> set[int]:
    """Return those of these jobs that wrote results, wherever those are now."""
    query = select(ResultRecord.job_id).where(ResultRecord.job_id.in_(job_ids)).distinct()
    return set(session.scalars(query))
