"""Who may call, where results go, and whether they answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request

from dashboard.access import NodeOf, Operator
from dashboard.auditing import note
from dashboard.peers import certificates
from db.reports import refusals
from workflows.echoing import echo_destination
from workflows.probing import probe_destination

router = APIRouter(prefix="/api")


@router.get("/peers", tags=["peers"])
def peers(node: NodeOf, actor: Operator) -> dict[str, Any]:
    """Tell who may call, where results go, who was refused, and how long certificates hold."""
    with node.database.reading() as session:
        refused = refusals(session)[:500]
    settings = node.settings
    return {
        "peers": [one.model_dump(mode="json") for one in settings.peers],
        # By name, since some have passwords and tokens.
        "destinations": [
            {
                "name": one.name,
                "title": one.title,
                "place": one.place,
                "objects": one.objects,
                "confirm": one.confirm,
            }
            for one in settings.destinations
        ],
        "refused": refused,
        "certificates": [
            {"of": one.owner, "days": one.days, "problem": one.problem}
            for one in certificates(node)
        ],
    }


@router.post("/peers/{name}/echo", tags=["peers"])
def echo(request: Request, node: NodeOf, actor: Operator, name: str) -> dict[str, Any]:
    """Ask a destination by C-ECHO."""
    destination = node.settings.destination(name)
    if destination is None:
        raise HTTPException(404)
    answer = echo_destination(node, destination)
    with node.database.session() as session:
        note(session, request, "peer.echo", target=name)
    return {"answers": answer.answers, "seconds": answer.seconds, "sentence": answer.sentence}


@router.post("/peers/{name}/probe", tags=["peers"])
def probe(request: Request, node: NodeOf, actor: Operator, name: str) -> dict[str, Any]:
    """Ask a destination what it takes."""
    destination = node.settings.destination(name)
    if destination is None:
        raise HTTPException(404)
    answer = probe_destination(node, destination)
    with node.database.session() as session:
        note(session, request, "peer.probe", target=name)
    accepted = None
    if answer.accepted is not None:
        accepted = {key: sorted(value) for key, value in answer.accepted.items()}
    return {"accepted": accepted, "sentence": answer.sentence, "told": answer.told}
