"""Who sends and who receives: tests, what each takes, certificates, refusals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import NodeOf, Operator
from dashboard.auditing import note
from dashboard.rendering import render, say
from db.figures import echoes, last_images
from db.models_operation import EchoRecord
from db.reports import refusals
from dicom_node.errors import FinalError
from dicom_node.services.probing import ProbeResult
from dicom_node.services.tls import certificates_in, days_left
from workflows.callers import Call, calls_in
from workflows.destination_settings import DestinationSettings
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


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of others: calls and last images by AE title, answers by destination."""

    calls: dict[str, Call]
    images: dict[str, datetime]
    echoes: dict[str, EchoRecord]


@router.get("/peers")
def peers_page(request: Request, node: NodeOf, actor: Operator) -> Response:
    """Show peers and destinations with what was heard of them."""
    settings = node.settings
    with node.database.reading() as session:
        refused = refusals(session)[:50]
    heard = heard_of(node)
    return render(
        request, "peers.html", peers=settings.peers, destinations=settings.destinations,
        calls=heard.calls, echoes=heard.echoes, images=heard.images, refusals=refused,
        certificates=certificates(node),
    )  # fmt: skip


def heard_of(node: Node) -> Heard:
    """Collect when peers called and sent, and what destinations answered."""
    titles = [peer.ae_title for peer in node.settings.peers]
    with node.database.reading() as session:
        answers, images = echoes(session), last_images(session, titles)
    calls = {call.calling_ae_title: call for call in calls_in(node.home.callers_json)}
    return Heard(calls, images, answers)


@router.post("/peers/{name}/echo")
def echo(request: Request, node: NodeOf, actor: Operator, name: str) -> Response:
    """Ask a destination by C-ECHO."""
    answer = echo_noted(request, node, name)
    return say(RedirectResponse("/peers", 303), answer.sentence, bad=not answer.answers)


def echo_noted(request: Request, node: Node, name: str) -> EchoRecord:
    """Ask a destination by C-ECHO, and note it."""
    answer = echo_destination(node, destination_named(node, name))
    with node.database.session() as session:
        note(
            session, request, "peer.echo", target=name,
            outcome="success" if answer.answers else "refused",
        )  # fmt: skip
    return answer


@router.post("/peers/{name}/probe")
def probe_page(request: Request, node: NodeOf, actor: Operator, name: str) -> Response:
    """Ask a destination which objects it takes, and in which transfer syntaxes."""
    answer = probe_noted(request, node, name)
    return render(
        request, "probe.html", destination=destination_named(node, name), answer=answer,
        classes=SOP_CLASSES, syntaxes=TRANSFER_SYNTAXES,
    )  # fmt: skip


def probe_noted(request: Request, node: Node, name: str) -> ProbeResult:
    """Ask a destination which objects it takes, and note it."""
    answer = probe_destination(node, destination_named(node, name))
    with node.database.session() as session:
        note(session, request, "peer.probe", target=name)
    return answer


def destination_named(node: Node, name: str) -> DestinationSettings:
    """Return a destination; 404 where ``node.yaml`` has none of this name."""
    destination = node.settings.destination(name)
    if destination is None:
        raise HTTPException(404, "There is no destination of this name in node.yaml.")
    return destination


def certificates(node: Node) -> list[Certificate]:
    """Look at every certificate that the settings name."""
    return [_looked_at(owner, path) for owner, path in node.settings.certificates()]


def _looked_at(owner: str, path: str) -> Certificate:
    try:
        days = max(days_left(one) for one in certificates_in(Path(path)))
    except (FinalError, OSError, ValueError) as error:
        return Certificate(owner, path, None, getattr(error, "sentence", str(error)))
    return Certificate(owner, path, days, "")
