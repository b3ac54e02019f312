"""The model: its card, the scores measured on held-out images, and which rules ask it for what."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.access import NodeOf, Viewer
from dashboard.rendering import render
from inference.errors import CheckpointError

router = APIRouter(include_in_schema=False)


@router.get("/model")
def model_page(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """Show the card."""
    try:
        known = node.model
    except CheckpointError as error:
        return render(request, "model.html", known=None, problem=str(error), rules=[])
    modalities = {modality.name: modality for modality in known.card.modalities}
    rules = [
        (rule, "all that the card lists" if rule.targets == "all" else ", ".join(rule.targets))
        for rule in node.configuration.rules.rules
    ]
    return render(
        request, "model.html", known=known, problem="", rules=rules, modalities=modalities
    )
