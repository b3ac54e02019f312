"""What could not be taken up, and the way back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request

from dashboard.access import NodeOf, Operator
from dashboard.api.values import Before, Limit, Number
from dashboard.auditing import note
from dashboard.intake import header_of, noted
from db.listing import as_text
from db.operation import quarantine_entry, quarantine_page
from dicom_node.errors import DicomNodeError
from workflows.reinjection import discard, reinject

router = APIRouter(prefix="/api")


@router.get("/quarantine", tags=["quarantine"])
def quarantine(
    node: NodeOf, actor: Operator, before: Before = None, limit: Limit = 100, resolved: bool = False
) -> dict[str, Any]:
    """List what could not be taken up, the newest first."""
    with node.database.reading() as session:
        entries, following = quarantine_page(session, before=before, limit=limit, resolved=resolved)
    return {
        "entries": [
            {"id": one.id, "reason": one.reason, "size": one.size,
             "sop_class_uid": one.sop_class_uid, "sop_instance_uid": one.sop_instance_uid,
             "calling_ae_title": one.calling_ae_title, "host": one.peer_host,
             "received_at": as_text(one.received_at), "resolved_at": as_text(one.resolved_at),
             "resolution": one.resolution}
            for one in entries
        ],
        "next_before": following,
    }  # fmt: skip


@router.post("/quarantine/{number}/reinject", tags=["quarantine"])
def reinject_one(request: Request, node: NodeOf, actor: Operator, number: Number) -> dict[str, str]:
    """Take an object up again; says which study it belongs to."""
    try:
        with noted(node, request, "quarantine.reinject", number):
            study = reinject(node, number, actor.name)
    except DicomNodeError as error:
        raise HTTPException(409, f"{error.sentence}.") from error
    return {"study_instance_uid": study}


@router.get("/quarantine/{number}/header", tags=["quarantine"])
def header(request: Request, node: NodeOf, actor: Operator, number: Number) -> dict[str, Any]:
    """Return the elements of an object, or the sentence that says why it cannot be read."""
    with node.database.reading() as session:
        entry = quarantine_entry(session, number)
    if entry is None:
        raise HTTPException(404, "There is no such object in quarantine.")
    elements, problem = header_of(node, entry.path, masked=False)
    with node.database.session() as session:
        note(session, request, "quarantine.view", target=f"quarantine {number}")
    return {
        "elements": [
            {"tag": tag, "vr": vr, "name": name, "value": value}
            for tag, vr, name, value in elements
        ],
        "problem": problem,
    }


@router.post("/quarantine/{number}/discard", tags=["quarantine"], status_code=204)
def discard_one(request: Request, node: NodeOf, actor: Operator, number: Number) -> None:
    """Delete an object for good."""
    try:
        with noted(node, request, "quarantine.discard", number):
            discard(node, number, actor.name)
    except DicomNodeError as error:
        raise HTTPException(409, f"{error.sentence}.") from error
