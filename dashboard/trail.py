"""The audit trail: who did what and who looked at whom, and whether the chain is whole."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import Admin, NodeOf
from dashboard.auditing import note
from dashboard.rendering import render, say
from db.audit import audit_page, first_broken
from db.audit_positions import CollectorState, collector_states
from workflows.audit_settings import CollectorSettings
from workflows.node import Node

router = APIRouter(include_in_schema=False)
Word = Annotated[str, Query(max_length=64)]


@router.get("/audit")
def trail(
    request: Request,
    node: NodeOf,
    actor: Admin,
    account: Word = "",
    action: Word = "",
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> Response:
    """List the trail, newest first."""
    with node.database.reading() as session:
        page = audit_page(session, account=account, action=action, before=before)
    with node.database.session() as session:
        note(session, request, "audit.list")
    return render(
        request,
        "audit.html",
        page=page,
        account=account,
        action=action,
        before=before,
        collectors=collectors_of(node),
    )


def collectors_of(node: Node) -> list[tuple[CollectorSettings, CollectorState]]:
    """Return the collectors of ``node.yaml``, each with what it has of the trail."""
    collectors = node.settings.audit
    with node.database.reading() as session:
        states = collector_states(session, [one.name for one in collectors])
    return list(zip(collectors, states, strict=True))


@router.post("/audit/check")
def check(request: Request, node: NodeOf, actor: Admin) -> Response:
    """Follow the whole chain."""
    broken = check_chain(request, node)
    response = RedirectResponse("/audit", 303)
    if broken is None:
        return say(response, "The chain is whole: no record was changed or taken out.")
    text = f"Record {broken} does not fit: it was changed, or one before it was taken out."
    return say(response, text, bad=True)


def check_chain(request: Request, node: Node) -> int | None:
    """Follow the whole chain, and note it; returns the first record that does not fit."""
    with node.database.reading() as session:
        broken = first_broken(session)
    with node.database.session() as session:
        note(session, request, "audit.check", outcome="success" if broken is None else "refused")
    return broken
