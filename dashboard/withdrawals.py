"""Withdraw the results of a job: the form of a job's page, and what the interface does."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import NodeOf, Operator, client_host
from dashboard.auditing import note
from dashboard.rendering import plain, say
from dashboard.viewer_api import Number
from db.models import Job
from dicom_node.errors import DicomNodeError, FinalError
from dicom_node.objects.fallback_key_objects import Rejection
from workflows.audit_messages import into_file
from workflows.node import Node
from workflows.withdrawal import Withdrawn, withdraw

router = APIRouter(include_in_schema=False)
LONGEST_REASON: Final = 1000


@router.post("/jobs/{job_id}/withdrawal")
def withdraw_page(
    request: Request,
    node: NodeOf,
    actor: Operator,
    job_id: Number,
    reason: Annotated[Rejection, Form()],
    because: Annotated[str, Form(max_length=LONGEST_REASON)],
) -> Response:
    """Withdraw all results of a job."""
    response = RedirectResponse(f"/jobs/{job_id}", 303)
    try:
        outcomes = withdraw_as_asked(request, node, job_id, reason, because)
    except DicomNodeError as error:
        return say(response, f"{error.sentence[:1].upper()}{error.sentence[1:]}.", bad=True)
    told = [f"{one.destination}: {one.sentence}." for one in outcomes]
    left = any(not one.done for one in outcomes)
    return say(response, " ".join(["This node gives the results out no more.", *told]), bad=left)


def withdraw_as_asked(
    request: Request, node: Node, job_id: int, reason: Rejection, because: str
) -> list[Withdrawn]:
    """Withdraw in the name of who asks; raises as `workflows.withdrawal.withdraw`.

    404 where there is no such job. What is refused stands in the audit trail, too.
    """
    with node.database.reading() as session:
        if session.get(Job, job_id) is None:
            raise HTTPException(404, "There is no such job (any more).")
    # A note that holds what `plain` puts in place of control characters would be kept back.
    words = " ".join(plain(because, LONGEST_REASON).replace("\ufffd", " ").split())
    who = request.state.actor.name
    if not words:
        raise FinalError("say why in words: people at the PACS will ask")
    try:
        return withdraw(
            node, job_id, reason, words, who, into_file(node), host=client_host(request)
        )
    except DicomNodeError:
        with node.database.session() as session:
            note(session, request, "results.withdraw", target=f"job {job_id}", outcome="refused")
        raise
