"""Who sends and who receives: tests, what each takes, certificates, refusals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import NodeOf, Operator
from dashboard.auditing import note
from dashboard.rendering import render, say
from db.figures import echoes, last_images
from db.reports import refusals
from dicom_node.errors import FinalError
from dicom_node.services.tls import certificates_in, days_left
from workflows.callers import calls_in
from workflows.echoing import echo_destination
from workflows.node import Node
from workflows.probing import SOP_CLASSES, TRANSFER_SYNTAXES, probe_destination

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate file, and for how many days it still holds."""

    owner: str
    path: str
    days: float | None
    problem: str


@router.get("/peers")
def peers_page(request: Request, node: NodeOf, actor: Operator) -> Response:
    """Show peers and destinations with what was heard of them."""
    settings = node.settings
    titles = [peer.ae_title for peer in settings.peers]
    with node.database.reading() as session:
        found: dict[str, Any] = {
            "echoes": echoes(session),
            "images": last_images(session, titles),
            "refusals": refusals(session)[:50],
        }
    return render(
        request, "peers.html", peers=settings.peers, destinations=settings.destinations,
        calls={call.calling_ae_title: call for call in calls_in(node.home.callers_json)},
        certificates=certificates(node), **found,
    )  # fmt: skip


@router.post("/peers/{name}/echo")
def echo(request: Request, node: NodeOf, actor: Operator, name: str) -> Response:
    """Ask a destination by C-ECHO."""
    destination = node.settings.destination(name)
    if destination is None:
        raise HTTPException(404, "There is no destination of this name in node.yaml.")
    answer = echo_destination(node, destination)
    with node.database.session() as session:
        note(
            session, request, "peer.echo", target=name,
            outcome="success" if answer.answers else "refused",
        )  # fmt: skip
    return say(RedirectResponse("/peers", 303), answer.sentence, bad=not answer.answers)


@router.post("/peers/{name}/probe")
def probe_page(request: Request, node: NodeOf, actor: Operator, name: str) -> Response:
    """Ask a destination which objects it takes, and in which transfer syntaxes."""
    destination = node.settings.destination(name)
    if destination is None:
        raise HTTPException(404, "There is no destination of this name in node.yaml.")
    answer = probe_destination(node, destination)
    with node.database.session() as session:
        note(session, request, "peer.probe", target=name)
    return render(
        request, "probe.html", destination=destination, answer=answer, classes=SOP_CLASSES,
        syntaxes=TRANSFER_SYNTAXES,
    )  # fmt: skip


def certificates(node: Node) -> list[Certificate]:
    """Look at every certificate that the settings name."""
    settings = node.settings
    named: list[tuple[str, str | None]] = [("this node, DICOM", settings.tls.certificate)]
    named += [("this node, dashboard", settings.dashboard.certificate)]
    others: list[Any] = [*settings.peers, *settings.destinations]
    named += [(one.name, one.certificate) for one in others]
    return [_looked_at(owner, path) for owner, path in named if path is not None]


def _looked_at(owner: str, path: str) -> Certificate:
    try:
        days = max(days_left(one) for one in certificates_in(Path(path)))
    except (FinalError, OSError, ValueError) as error:
        return Certificate(owner, path, None, getattr(error, "sentence", str(error)))
    return Certificate(owner, path, days, "")
