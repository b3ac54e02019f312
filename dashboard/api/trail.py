"""The audit trail, its chain, and its collectors."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from dashboard.access import Admin, NodeOf
from dashboard.api.values import Before, Limit, Word
from dashboard.auditing import note
from dashboard.trail import check_chain, collectors_of
from db.audit import audit_page
from db.listing import as_text

router = APIRouter(prefix="/api")


@router.get("/audit", tags=["audit"])
def audit(
    request: Request,
    node: NodeOf,
    actor: Admin,
    account: Word = None,
    action: Word = None,
    before: Before = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """List the audit trail, newest first."""
    with node.database.reading() as session:
        page = audit_page(session, account=account, action=action, before=before, limit=limit)
    with node.database.session() as session:
        note(session, request, "audit.list")
    return {
        "records": [
            {"id": one.id, "at": as_text(one.at), "account": one.account, "host": one.host,
             "action": one.action, "target": one.target, "outcome": one.outcome,
             "details": one.details, "digest": one.digest}
            for one in page.records
        ],
        "next_before": page.next_before,
    }  # fmt: skip


@router.get("/audit/chain", tags=["audit"])
def audit_chain(request: Request, node: NodeOf, actor: Admin) -> dict[str, int | None]:
    """Follow the whole chain; names the first record that does not fit."""
    return {"first_broken": check_chain(request, node)}


@router.get("/audit/collectors", tags=["audit"])
def audit_collectors(node: NodeOf, actor: Admin) -> dict[str, list[dict[str, Any]]]:
    """List the collectors of syslog, with what they have of the trail and what went wrong."""
    return {
        "collectors": [
            {"name": one.name, "place": one.place, "unsent": state.unsent,
             "last_record": state.record_id, "sent_at": as_text(state.sent_at),
             "failures": state.failures, "problem": state.sentence,
             "next_attempt_at": as_text(state.next_attempt_at)}
            for one, state in collectors_of(node)
        ]
    }  # fmt: skip
