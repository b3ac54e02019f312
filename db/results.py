"""What a job found and wrote, and how its results fare at the destinations."""

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
    DeliveryState,
    FindingRecord,
    Job,
    ResultRecord,
    ResultState,
)

_NOT_STORED = frozenset({DeliveryState.PENDING, DeliveryState.REFUSED})


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
    guard(session, lease)
    values: dict[str, Any] = {
        "state": state,
        "status": status,
        "sentence": sentence,
        "attempts": DeliveryRecord.attempts + 1,
        "attempted_at": now,
    }
    if state is DeliveryState.SENT:
        values["sent_at"] = now
    if delivery_ids:
        session.execute(
            update(DeliveryRecord).where(DeliveryRecord.id.in_(list(delivery_ids))).values(**values)
        )


def record_rejection(
    session: Session, lease: Lease, delivery_ids: Sequence[int], sentence: str
) -> None:
    """Note that a destination rejected the association: no result was tried on it.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    """
    guard(session, lease)
    session.execute(
        update(DeliveryRecord)
        .where(DeliveryRecord.id.in_(list(delivery_ids)))
        .values(sentence=sentence, attempts=DeliveryRecord.attempts + 1)
    )


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
    guard(session, lease)
    if delivery_ids:
        session.execute(
            update(DeliveryRecord)
            .where(DeliveryRecord.id.in_(list(delivery_ids)))
            .values(
                state=DeliveryState.CONFIRMED,
                confirmed_at=now,
                confirmed_by=confirmed_by,
                sentence=sentence,
            )
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
