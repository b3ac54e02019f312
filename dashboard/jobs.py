"""The list of jobs, and the page of one job."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import Response

from dashboard.access import NodeOf, Viewer
from dashboard.auditing import note
from dashboard.rendering import render
from db.jobs import JobState, job_as_json, list_jobs
from workflows.node import Node

router = APIRouter(include_in_schema=False)


@router.get("/jobs")
def jobs_page(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    state: Annotated[list[JobState] | None, Query()] = None,
    modality: str | None = None,
    rule: str | None = None,
    search: str | None = None,
    before: int | None = None,
) -> Response:
    """List the jobs, newest first."""
    with node.database.reading() as session:
        page = list_jobs(
            session,
            states=state or (),
            modality=modality or None,
            rule=rule or None,
            search=search or None,
            before=before,
        )
    return render(request, "jobs.html", page=page, chosen=[str(one) for one in state or ()])


@router.get("/jobs/{job_id}")
def job_page(request: Request, node: NodeOf, actor: Viewer, job_id: int) -> Response:
    """Show one job."""
    with node.database.reading() as session:
        job = job_as_json(session, job_id)
    if job is None:
        raise HTTPException(404)
    if request.headers.get("x-live") is None:
        with node.database.session() as session:
            note(session, request, "job.view", target=f"job {job_id}")
    return render(request, "job.html", job=job, viewer_link=viewer_link(node, job))


def viewer_link(node: Node, job: dict[str, Any]) -> str | None:
    """Return the address of the job's study in the site's viewer; None where none is set."""
    address = node.settings.dashboard.viewer_url
    if address is None:
        return None
    query = urlencode({"StudyInstanceUIDs": job["study_instance_uid"]})
    return f"{address}{'&' if '?' in address else '?'}{query}"
