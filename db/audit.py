"""Who did what, in a chain that shows when it was changed.

Every record carries the SHA-256 of itself and of the record before it. Whoever can write to the
database could compute the whole chain anew, so each digest also goes out with a message: to a file,
and to the site's collectors (`workflows.audit_sending`): compare it there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from db.models import Job, Series, Study
from db.models_access import AuditRecord

FIRST_DIGEST = "0" * 64
_SUBJECT = re.compile(r"(?P<kind>job|series|study) (?P<number>\d+)\b", re.ASCII)
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Records, the newest first, and where the next page begins."""

    records: list[AuditRecord]
    next_before: int | None


def record(
    session: Session,
    *,
    at: datetime,
    account: str,
    action: str,
    target: str = "",
    host: str = "",
    outcome: str = "success",
    details: dict[str, Any] | None = None,
    on_kept: Callable[[AuditRecord], None] | None = None,
) -> AuditRecord:
    """Append to the audit trail, in the caller's transaction.

    Parameters
    ----------
    session
        An open transaction; what it does and this record are kept together, or neither.
    at
        Aware time.
    account, host
        Who, and from which address.
    action, target
        What was done, such as ``job.retry``, and to what, such as ``job 7``.
    outcome
        ``success`` or ``refused``.
    details
        What else should be known; values that JSON can hold. Of the target's study its UID and the
        Patient ID are added (``study``, ``patient``): they tell whom somebody looked at, also when
        the job was deleted long ago.
    on_kept
        Called with the record once the transaction is committed, and never otherwise.
    """
    if session.get_bind().dialect.name == "postgresql":
        # Two writers would otherwise both continue the same last record. SQLite has one writer.
        session.execute(text("SELECT pg_advisory_xact_lock(7311483)"))
    before = session.scalars(
        select(AuditRecord.digest).order_by(AuditRecord.id.desc()).limit(1)
    ).first()
    entry = AuditRecord(
        at=at,
        account=account[:64],
        host=host[:64],
        action=action[:64],
        target=target[:256],
        outcome=outcome[:16],
        details={**_subject_of(session, target), **(details or {})},
    )
    entry.digest = _digest(entry, before or FIRST_DIGEST)
    session.add(entry)
    session.flush()
    if on_kept is not None:
        event.listen(session, "after_commit", lambda _: on_kept(entry), once=True)
    return entry


def _subject_of(session: Session, target: str) -> dict[str, str]:
    """Return whom a target is about, as far as it is a job, a series or a study."""
    named = _SUBJECT.match(target)
    if named is None or len(named["number"]) > _MOST_DIGITS:
        return {}
    query = select(Study.study_instance_uid, Study.patient_id)
    number = int(named["number"])
    match named["kind"]:
        case "job":
            query = query.join(Job, Job.study_id == Study.id).where(Job.id == number)
        case "series":
            query = query.join(Series, Series.study_id == Study.id).where(Series.id == number)
        case _:
            query = query.where(Study.id == number)
    found = session.execute(query).first()
    if found is None:
        return {}
    patient = {"patient": found.patient_id} if found.patient_id else {}
    return {"study": found.study_instance_uid, **patient}


def audit_page(
    session: Session,
    *,
    account: str | None = None,
    action: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> AuditPage:
    """List the trail, newest first."""
    query = select(AuditRecord)
    if account:
        query = query.where(AuditRecord.account == account)
    if action:
        query = query.where(AuditRecord.action == action)
    if before is not None:
        query = query.where(AuditRecord.id < before)
    found = session.scalars(query.order_by(AuditRecord.id.desc()).limit(limit + 1)).all()
    page = list(found[:limit])
    return AuditPage(page, page[-1].id if len(found) > limit else None)


def first_broken(session: Session) -> int | None:
    """Follow the whole chain; the number of the first record that does not fit, or ``None``."""
    return first_misfit(
        session.scalars(
            select(AuditRecord).order_by(AuditRecord.id).execution_options(yield_per=1000)
        )
    )


def first_misfit(entries: Iterable[AuditRecord], before: str = FIRST_DIGEST) -> int | None:
    """Return the number of the first of these records that does not fit the one before it.

    Parameters
    ----------
    entries
        Records in order.
    before
        Digest of the one before them.
    """
    for entry in entries:
        if entry.digest != _digest(entry, before):
            return entry.id
        before = entry.digest
    return None


def _digest(entry: AuditRecord, before: str) -> str:
    content = {
        "before": before,
        "at": entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "account": entry.account,
        "host": entry.host,
        "action": entry.action,
        "target": entry.target,
        "outcome": entry.outcome,
        "details": entry.details,
    }
    text_form = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text_form.encode()).hexdigest()
