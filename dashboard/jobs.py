"""The list of jobs, the page of one job, and what people order there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, HTTPException, Path, Query, Request
from starlette.background import BackgroundTask
from starlette.responses import RedirectResponse, Response

from dashboard.access import NodeOf, Operator, Viewer
from dashboard.auditing import note
from dashboard.entry import local_target
from dashboard.images import images_of
from dashboard.rendering import render, say
from dashboard.scenes import first_frame, scene_of_page
from dashboard.timeline import timeline_of
from db.figures import filter_values
from db.jobs import JobState, job_as_json, jobs_of_study, list_jobs
from db.orders import Order, Outcome, give
from db.results import present_targets, with_results
from db.studies import jobs_with_images
from workflows.node import Node
from workflows.priors import priors_as_json

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

router = APIRouter(include_in_schema=False)

Since = Literal["1h", "24h", "7d", "30d"]
SPANS: Final[dict[str, timedelta]] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
Number = Annotated[int, Path(ge=0, le=2**53)]
Word = Annotated[str | None, Query(max_length=256)]
_PAGE: Final = 50
_MOST_AT_ONCE: Final = 1000


@router.get("/jobs")
def jobs_page(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    state: Annotated[list[JobState | Literal[""]] | None, Query(max_length=20)] = None,
    modality: Word = None,
    rule: Word = None,
    since: Annotated[Since | Literal[""], Query()] = "",
    search: Word = None,
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> Response:
    """List the jobs, newest first."""
    now = node.now()
    chosen = [JobState(one) for one in state or () if one]
    with node.database.reading() as session:
        page = list_jobs(
            session,
            states=chosen,
            modality=modality or None,
            rule=rule or None,
            search=(search or "").strip() or None,
            received_since=now - SPANS[since] if since else None,
            before=before,
            limit=_PAGE,
            patients=True,
        )
        values = filter_values(session)
        critical = critical_jobs(node, session, page.jobs)
        pictured = with_results(session, [job["id"] for job in page.jobs])
        imaged = jobs_with_images(session, pictured)
    if search and request.headers.get("x-live") is None:
        with node.database.session() as session:
            note(session, request, "patient.search", found=len(page.jobs))
    return render(
        request,
        "jobs.html",
        page=page,
        critical=critical,
        pictured=pictured,
        imaged=imaged,
        chosen=[str(one) for one in chosen],
        modality=modality or "",
        rule=rule or "",
        since=since,
        search=search or "",
        before=before,
        values=values,
        spans=list(SPANS),
        filtered=bool(chosen or modality or rule or since or search),
    )


@router.post("/jobs/orders")
def order_many(
    request: Request,
    node: NodeOf,
    actor: Operator,
    order: Annotated[Order, Form()],
    job: Annotated[list[int] | None, Form(max_length=_MOST_AT_ONCE)] = None,
    back: Annotated[str, Form(max_length=2048)] = "/jobs",
) -> Response:
    """Give an order for the ticked jobs, or for the one of a job's page."""
    response = RedirectResponse(local_target(back), 303)
    if not job:
        return say(response, "Tick the jobs first.", bad=True)
    outcomes = carry_out(node, request, order, job)
    done = [one for one in outcomes if one.done]
    left = [one for one in outcomes if not one.done]
    if len(outcomes) == 1:
        return say(response, outcomes[0].sentence, bad=bool(left))
    text = f"{len(done)} of {len(outcomes)} jobs: {order}."
    if left:
        text += f" {left[0].sentence}" + (f" And {len(left) - 1} more." if len(left) > 1 else "")
    return say(response, text, bad=not done)


def carry_out(node: Node, request: Request, order: Order, job_ids: list[int]) -> list[Outcome]:
    """Give an order and note it in the audit trail, both or neither."""
    actor = request.state.actor
    with node.database.session() as session:
        outcomes = give(session, order, job_ids, actor.name, node.now())
        for one in outcomes:
            note(
                session, request, f"job.{order}", target=f"job {one.job_id}",
                outcome="success" if one.done else "refused",
            )  # fmt: skip
    return outcomes


@router.get("/jobs/{job_id}")
def job_page(request: Request, node: NodeOf, actor: Viewer, job_id: Number) -> Response:
    """Show one job."""
    with node.database.reading() as session:
        job = job_as_json(session, job_id, patients=True)
        others = [] if job is None else jobs_of_study(session, job_id)
        critical = set() if job is None else critical_jobs(node, session, [job])
    if job is None:
        raise HTTPException(404, "There is no such job. Records of old jobs are deleted in time.")
    if request.headers.get("x-live") is None:
        with node.database.session() as session:
            note(session, request, "job.view", target=f"job {job_id}")
    images = images_of(request)
    scene = scene_of_page(node, images, job_id)
    index, first_slice = first_frame(scene, request.query_params.get("slice", ""))
    page = render(
        request,
        "job.html",
        job=job,
        others=others,
        critical=bool(critical),
        priors=priors_as_json(node, job_id),
        timeline=timeline_of(job["stages"], node.now()),
        viewer_link=viewer_link(node, job),
        scene=scene,
        first_slice=first_slice,
    )
    if index is not None and request.headers.get("x-live") is None:
        # Decoded while the page is on its way; the browser asks for it as soon as it has its head.
        page.background = BackgroundTask(images.foresee, job_id, index)
    return page


def critical_jobs(node: Node, session: Session, listed: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the jobs whose rule calls one of their findings critical."""
    rules = {job["id"]: node.configuration.rules.rule(job["rule"]) for job in listed}
    asked = {number: rule for number, rule in rules.items() if rule is not None and rule.critical}
    found = present_targets(session, list(asked)) if asked else {}
    return {number for number, targets in found.items() if asked[number].critical_of(targets)}


def viewer_link(node: Node, job: dict[str, Any]) -> str | None:
    """Return the address of the job's study in the site's viewer; None where none is set."""
    address = node.settings.dashboard.viewer_url
    if address is None:
        return None
    query = urlencode({"StudyInstanceUIDs": job["study_instance_uid"]})
    return f"{address}{'&' if '?' in address else '?'}{query}"
