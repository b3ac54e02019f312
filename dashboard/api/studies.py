"""The studies of the archive: the way to the numbers of series that other routes ask for."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request

from dashboard.access import NodeOf, Viewer
from dashboard.api.values import Before, Limit, Number
from dashboard.auditing import note
from dashboard.studies import series_with_parts, targets_for
from db.listing import as_text, patient_line
from db.models import Study
from db.studies import list_studies, series_of, study_of

router = APIRouter(prefix="/api")


@router.get("/studies", tags=["studies"])
def studies(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    search: Annotated[str, Query(max_length=128)] = "",
    before: Before = None,
    limit: Limit = 50,
) -> dict[str, Any]:
    """List the studies of the archive, newest first; `search` takes a patient, accession or UID."""
    with node.database.reading() as session:
        page = list_studies(session, search=search, before=before, limit=limit)
        lines = [_line(one) for one in page.studies]
    with node.database.session() as session:
        note(session, request, "studies.list", searched=bool(search))
    return {"studies": lines, "next_before": page.next_before}


@router.get("/studies/{study_id}", tags=["studies"])
def study(request: Request, node: NodeOf, actor: Viewer, study_id: Number) -> dict[str, Any]:
    """Return a study with its series."""
    with node.database.reading() as session:
        found = study_of(session, study_id)
        series = series_of(session, study_id)
        line = None if found is None else _line(found)
    if line is None:
        raise HTTPException(404, "There is no such study (any more).")
    with node.database.session() as session:
        note(session, request, "study.view", target=f"study {study_id}")
    return line | {
        "series": [
            {"id": one.id, "series_instance_uid": one.series_instance_uid,
             "modality": one.modality, "series_number": one.series_number,
             "series_description": one.series_description, "instances": one.number_of_instances}
            for one in series
        ]
    }  # fmt: skip


@router.get("/series/{series_id}", tags=["studies"])
def series(request: Request, node: NodeOf, actor: Viewer, series_id: Number) -> dict[str, Any]:
    """Return a series with its parts (phases, stacks, single images) and what the model knows."""
    found, parts = series_with_parts(node, series_id)
    with node.database.session() as session:
        note(session, request, "images.view", target=f"series {series_id}")
    return {
        "id": found.id, "study": found.study_id,
        "series_instance_uid": found.series_instance_uid,
        "parts": [
            {"part": number, "kind": one.kind, "frames": one.shape[0], "rows": one.shape[1],
             "columns": one.shape[2], "modality": one.modality, "notes": list(one.notes),
             "targets": targets_for(node, one.modality)}
            for number, one in enumerate(parts)
        ],
    }  # fmt: skip


def _line(study: Study) -> dict[str, Any]:
    return {
        "id": study.id,
        "study_instance_uid": study.study_instance_uid,
        **patient_line(study),
        "instances": study.number_of_instances,
        "last_received_at": as_text(study.last_received_at),
    }
