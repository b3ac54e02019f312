"""Who may call, where results go, and whether they answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from dashboard.access import NodeOf, Operator
from dashboard.peers import certificates, echo_noted, heard_of, probe_noted
from db.listing import as_text
from db.reports import refusals

router = APIRouter(prefix="/api")


@router.get("/peers", tags=["peers"])
def peers(node: NodeOf, actor: Operator) -> dict[str, Any]:
    """Tell who may call, where results go, who was refused, and how long certificates hold."""
    with node.database.reading() as session:
        refused = refusals(session)[:500]
    settings, heard = node.settings, heard_of(node)
    calls, answers = heard.calls, heard.echoes
    return {
        "peers": [
            {
                **one.model_dump(mode="json"),
                "last_call_at": calls[one.ae_title].at if one.ae_title in calls else None,
                "last_image_at": as_text(heard.images.get(one.ae_title)),
            }
            for one in settings.peers
        ],
        # By name, since some have passwords and tokens.
        "destinations": [
            {
                "name": one.name,
                "title": one.title,
                "place": one.place,
                "objects": one.objects,
                "confirm": one.confirm,
                "answers": answers[one.name].answers if one.name in answers else None,
                "answer": answers[one.name].sentence if one.name in answers else "",
                "asked_at": as_text(answers[one.name].asked_at) if one.name in answers else None,
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
    answer = echo_noted(request, node, name)
    return {"answers": answer.answers, "seconds": answer.seconds, "sentence": answer.sentence}


@router.post("/peers/{name}/probe", tags=["peers"])
def probe(request: Request, node: NodeOf, actor: Operator, name: str) -> dict[str, Any]:
    """Ask a destination what it takes."""
    answer = probe_noted(request, node, name)
    accepted = None
    if answer.accepted is not None:
        accepted = {key: sorted(value) for key, value in answer.accepted.items()}
    return {"accepted": accepted, "sentence": answer.sentence, "told": answer.told}
