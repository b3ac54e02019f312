"""Who did what, in a chain that shows when it was changed.

Every record carries the SHA-256 of itself and of the record before it. Whoever can write to the
database could compute the whole chain anew, so each digest also goes out with a message to a file
that the site collects (`dashboard.audit_messages`): compare it there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from db.models_access import AuditRecord

FIRST_DIGEST = "0" * 64


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
        What else should be known; values that JSON can hold.
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
        details=details or {},
    )
    entry.digest = _digest(entry, before or FIRST_DIGEST)
    session.add(entry)
    session.flush()
    if on_kept is not None:
        event.listen(session, "after_commit", lambda _: on_kept(entry), once=True)
    return entry


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
    before = FIRST_DIGEST
    for entry in session.scalars(
        select(AuditRecord).order_by(AuditRecord.id).execution_options(yield_per=1000)
    ):
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
