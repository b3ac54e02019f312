"""Jobs: list, tell, order; failed ones by cause."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, Field

from dashboard.access import NodeOf, Operator, Viewer
from dashboard.api.values import Before, Limit, Number, Word
from dashboard.auditing import note
from dashboard.jobs import carry_out, critical_jobs
from dashboard.withdrawals import LONGEST_REASON, withdraw_as_asked
from db.figures import causes
from db.jobs import JobState, job_as_json, list_jobs
from db.listing import as_text
from db.orders import Order
from dicom_node.errors import DicomNodeError
from dicom_node.objects.fallback_key_objects import Rejection
from workflows.priors import priors_as_json

router = APIRouter(prefix="/api")


class JobLine(BaseModel):
    """A job in few words."""

    id: int
    study_instance_uid: str
    series_instance_uid: str
    state: JobState
    wait_reason: str
    error: str
    rule: str
    modality: str
    description: str
    priority: int
    attempts: int
    progress: float | None
    received_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    patient_name: str
    patient_id: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_date: str
    study_description: str
    critical: bool


class JobLines(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[JobLine]
    next_before: int | None


class JobOrder(BaseModel):
    """What to do with which jobs."""

    order: Order
    jobs: list[Annotated[int, Field(ge=0, le=2**53)]] = Field(min_length=1, max_length=1000)


class WithdrawalWish(BaseModel):
    """Why results are withdrawn: the code that archives act on, and words for people."""

    reason: Rejection
    because: str = Field(min_length=1, max_length=LONGEST_REASON, pattern=r"\S")


class WithdrawalOutcome(BaseModel):
    """What became of the results at one destination that has them."""

    destination: str
    done: bool
    sentence: str


class JobOutcome(BaseModel):
    """What came of an order for one job."""

    job: int
    done: bool
    sentence: str


@router.get("/jobs", tags=["jobs"])
def jobs(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    state: Annotated[list[JobState] | None, Query(max_length=20)] = None,
    modality: Word = None,
    rule: Word = None,
    study_instance_uid: Word = None,
    search: Word = None,
    received_since: datetime | None = None,
    before: Before = None,
    limit: Limit = 50,
) -> JobLines:
    """List jobs, newest first."""
    if received_since is not None and received_since.tzinfo is None:
        raise HTTPException(422, "received_since: write a time zone, such as Z")
    with node.database.reading() as session:
        page = list_jobs(
            session, states=state or (), modality=modality, rule=rule, search=search,
            study_instance_uid=study_instance_uid, received_since=received_since,
            before=before, limit=limit, patients=True,
        )  # fmt: skip
        critical = critical_jobs(node, session, page.jobs)
    with node.database.session() as session:
        note(session, request, "job.list", found=len(page.jobs))
    lines = [{**line, "critical": line["id"] in critical} for line in page.jobs]
    return JobLines.model_validate({"jobs": lines, "next_before": page.next_before})


@router.get("/jobs/{job_id}", tags=["jobs"])
def job(request: Request, node: NodeOf, actor: Viewer, job_id: Number) -> dict[str, Any]:
    """Tell all of a job: stages, findings, results with their delivery, events."""
    with node.database.reading() as session:
        found = job_as_json(session, job_id, patients=True)
        critical = set() if found is None else critical_jobs(node, session, [found])
    if found is None:
        raise HTTPException(404)
    with node.database.session() as session:
        note(session, request, "job.view", target=f"job {job_id}")
    return {**found, "critical": bool(critical), "priors": priors_as_json(node, job_id)}


@router.post("/jobs/orders", tags=["jobs"])
def order(request: Request, node: NodeOf, actor: Operator, wanted: JobOrder) -> list[JobOutcome]:
    """Retry, restart, cancel or prioritise jobs; says for each what came of it."""
    return [
        JobOutcome(job=one.job_id, done=one.done, sentence=one.sentence)
        for one in carry_out(node, request, wanted.order, wanted.jobs)
    ]


@router.post("/jobs/{job_id}/withdrawal", tags=["jobs"])
def withdrawal(
    request: Request, node: NodeOf, actor: Operator, job_id: Number, wanted: WithdrawalWish
) -> list[WithdrawalOutcome]:
    """Withdraw the results of a job that has ended: here, and by a note to each destination."""
    try:
        outcomes = withdraw_as_asked(request, node, job_id, wanted.reason, wanted.because)
    except DicomNodeError as error:
        raise HTTPException(409, f"{error.sentence}.") from error
    return [
        WithdrawalOutcome(destination=one.destination, done=one.done, sentence=one.sentence)
        for one in outcomes
    ]


@router.get("/failures", tags=["jobs"])
def failures(node: NodeOf, actor: Viewer) -> list[dict[str, Any]]:
    """Group the failed jobs by cause."""
    with node.database.reading() as session:
        found = causes(session)
    return [
        {"stage": one.stage, "sentence": one.sentence, "last_at": as_text(one.last_at),
         "jobs": one.jobs}
        for one in found
    ]  # fmt: skip
