"""Notes in the audit trail: who did what, and who looked at whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request

from dashboard.access import client_host, node_of
from dashboard.audit_messages import append_message
from db.audit import record

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def note(
    session: Session,
    request: Request,
    action: str,
    *,
    target: str = "",
    account: str | None = None,
    outcome: str = "success",
    **details: Any,
) -> None:
    """Append to the audit trail, in the transaction of what is done.

    Parameters
    ----------
    session
        The transaction.
    request
        Says who asks and from where.
    action, target, outcome, details
        As `db.audit.record` has them; details name no patient, they point to a study or job.
    account
        Where nobody is logged in yet: the name that was given.
    """
    actor = getattr(request.state, "actor", None)
    node = node_of(request)
    title, path = node.settings.node.ae_title, node.home.log / "audit.log"
    record(
        session,
        at=node.now(),
        account=account if account is not None else (actor.name if actor else ""),
        host=client_host(request),
        action=action,
        target=target,
        outcome=outcome,
        details=details,
        on_kept=lambda entry: append_message(entry, title, path),
    )
