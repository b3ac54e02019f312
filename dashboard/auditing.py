"""Notes in the audit trail: who did what, and who looked at whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request

from dashboard.access import client_host, node_of
from db.audit import record
from workflows.audit_messages import into_file

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
        As `db.audit.record` has them; what is looked for by name is not written down.
    account
        Where nobody is logged in yet: the name that was given.
    """
    actor = getattr(request.state, "actor", None)
    node = node_of(request)
    record(
        session,
        at=node.now(),
        account=account if account is not None else (actor.name if actor else ""),
        host=client_host(request),
        action=action,
        target=target,
        outcome=outcome,
        details=details,
        on_kept=into_file(node),
    )
