"""All that the pages do, as JSON: the same roles, the same audit trail, documented by OpenAPI.

Programs send ``Authorization: Bearer ubn_...``. Lists are paged by key: hand ``next_before`` to the
next call as ``before``, until it is null.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from dashboard.access import Admin, NodeOf, Operator, Viewer, require
from dashboard.auditing import note
from dashboard.jobs import carry_out
from dashboard.overview import glance
from dashboard.peers import certificates
from dashboard.rendering import render, zone_of
from dashboard.rulebook import check_rules, text_on_disk, write_rules
from dashboard.site import sections_of
from dashboard.trail import collectors_of
from db.accounts import change_user, invite, list_users
from db.audit import audit_page, first_broken
from db.figures import causes
from db.jobs import JobState, job_as_json, list_jobs
from db.listing import as_text
from db.models_access import Role
from db.operation import quarantine_page, rules_version, rules_versions
from db.orders import Order
from db.reports import refusals
from dicom_node.errors import DicomNodeError
from workflows.configuration import check_configuration
from workflows.echoing import echo_destination
from workflows.priors import priors_as_json
from workflows.probing import probe_destination
from workflows.reinjection import reinject
from workflows.rule_trial import try_past

router = APIRouter(prefix="/api")
Number = Annotated[int, Path(ge=0, le=2**53)]
Before = Annotated[int | None, Query(ge=0, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=500)]
Word = Annotated[str | None, Query(max_length=256)]


class Problem(BaseModel):
    """Why a request was not answered, in a sentence."""

    title: str
    detail: str


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "The request cannot be read"},
    401: {"model": Problem, "description": "No login, no token, or a void one"},
    403: {"model": Problem, "description": "The role is not enough, or the request is forged"},
    404: {"model": Problem, "description": "There is no such thing (any more)"},
    409: {
        "model": Problem,
        "description": "It cannot be done now; the sentence says why",
    },
    413: {"model": Problem, "description": "Too large"},
    422: {"model": Problem, "description": "A value is missing or wrong"},
    503: {"model": Problem, "description": "The database or a peer does not answer; try again"},
}


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


class JobLines(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[JobLine]
    next_before: int | None


class JobOrder(BaseModel):
    """What to do with which jobs."""

    order: Order
    jobs: list[Annotated[int, Field(ge=0, le=2**53)]] = Field(min_length=1, max_length=1000)


class JobOutcome(BaseModel):
    """What came of an order for one job."""

    job: int
    done: bool
    sentence: str


class RulesText(BaseModel):
    """A text for ``rules.yaml``; `before` is the one that it was made from."""

    text: str = Field(max_length=200_000)
    before: str = Field(default="", max_length=200_000)
    comment: str = Field(default="", max_length=256)


class RulesTrial(BaseModel):
    """A text to try on what came in during the last days."""

    text: str = Field(max_length=200_000)
    days: int = Field(default=7, ge=1, le=90)


class NewPerson(BaseModel):
    """Somebody to invite."""

    role: Role
    name: str = Field(default="", max_length=64)


class PersonChange(BaseModel):
    """What an account may do from now on."""

    role: Role
    enabled: bool


# ---------------------------------------------------------------------- jobs


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
    with node.database.session() as session:
        note(session, request, "job.list", found=len(page.jobs))
    return JobLines.model_validate({"jobs": page.jobs, "next_before": page.next_before})


@router.get("/jobs/{job_id}", tags=["jobs"])
def job(request: Request, node: NodeOf, actor: Viewer, job_id: Number) -> dict[str, Any]:
    """Tell all of a job: stages, findings, results with their delivery, events."""
    with node.database.reading() as session:
        found = job_as_json(session, job_id, patients=True)
    if found is None:
        raise HTTPException(404)
    with node.database.session() as session:
        note(session, request, "job.view", target=f"job {job_id}")
    return {**found, "priors": priors_as_json(node, job_id)}


@router.post("/jobs/orders", tags=["jobs"])
def order(request: Request, node: NodeOf, actor: Operator, wanted: JobOrder) -> list[JobOutcome]:
    """Retry, restart, cancel or prioritise jobs; says for each what came of it."""
    return [
        JobOutcome(job=one.job_id, done=one.done, sentence=one.sentence)
        for one in carry_out(node, request, wanted.order, wanted.jobs)
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


# ---------------------------------------------------------------------- the node


@router.get("/overview", tags=["node"])
def overview(request: Request, node: NodeOf, actor: Viewer) -> dict[str, Any]:
    """Tell the figures of the first page."""
    found = glance(node, zone_of(request), request.app.state.growth)
    oldest, forecast, disk = found["oldest"], found["forecast"], found["disk"]
    return {
        "received_today": found["received"],
        "states": found["counts"],
        "ended_today": found["ended"],
        "failed": found["failed_open"],
        "last_image_to_proven_seconds": {
            "jobs": found["latency"].jobs,
            "median": found["latency"].median,
            "p95": found["latency"].p95,
        },
        "oldest_waiting": oldest and {"job": oldest[0], "received_at": as_text(oldest[1])},
        "hours": [
            {"begins_at": as_text(hour.begins_at), "delivered": hour.delivered,
             "failed": hour.failed}
            for hour in found["hours"]
        ],
        "queue": {
            "depth": forecast.waiting,
            "ended_last_hour": forecast.ended_last_hour,
            "empty_at": as_text(forecast.empty_at),
        },
        "disk": {
            "free": disk.free,
            "total": disk.total,
            "per_day": disk.per_day,
            "full_in_days": disk.full_in_days,
        },
        "workers": [
            {"name": tile.record.name, "queue": tile.record.queue, "silent": tile.silent,
             "seen_at": as_text(tile.record.seen_at), "memory": tile.record.memory,
             "model": tile.record.model, "device": tile.record.device,
             "jobs": [number for number, _ in tile.jobs]}
            for tile in found["workers"]
        ],
        "missing_workers": found["missing"],
    }  # fmt: skip


@router.get("/model", tags=["node"])
def model(node: NodeOf, actor: Viewer) -> dict[str, Any]:
    """Return the model's card and the digest of its weights."""
    return {"digest": node.model.digest, "card": node.model.card.model_dump(mode="json")}


@router.get("/settings", tags=["node"])
def settings(node: NodeOf, actor: Admin) -> dict[str, Any]:
    """Return the settings in force, without secrets, and every mistake in the files."""
    return {
        "settings": {name: dict(values) for name, values in sections_of(node.settings)},
        "problems": [str(one) for one in check_configuration(node.home)],
    }


# ---------------------------------------------------------------------- quarantine


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
        study = reinject(node, number, actor.name)
    except DicomNodeError as error:
        raise HTTPException(409, f"{error.sentence}.") from error
    with node.database.session() as session:
        note(session, request, "quarantine.reinject", target=f"quarantine {number}")
    return {"study_instance_uid": study}


# ---------------------------------------------------------------------- rules


@router.get("/rules", tags=["rules"])
def rules(node: NodeOf, actor: Viewer) -> dict[str, Any]:
    """Return the text in force and the history."""
    with node.database.reading() as session:
        versions = rules_versions(session)
    return {
        "text": text_on_disk(node),
        "versions": [
            {"id": one.id, "at": as_text(one.at), "account": one.account, "comment": one.comment}
            for one in versions
        ],
    }


@router.get("/rules/versions/{number}", tags=["rules"])
def one_version(node: NodeOf, actor: Viewer, number: Number) -> dict[str, Any]:
    """Return the text of one version."""
    with node.database.reading() as session:
        found = rules_version(session, number)
    if found is None:
        raise HTTPException(404)
    return {"id": found.id, "at": as_text(found.at), "account": found.account, "text": found.text}


@router.post("/rules/try", tags=["rules"])
def try_text(node: NodeOf, actor: Operator, trial: RulesTrial) -> dict[str, Any]:
    """Check a text, and say what it would have made of the studies of the last days."""
    made, problems = check_rules(node, trial.text)
    if made is None:
        raise HTTPException(422, " ".join(problems))
    past = try_past(node, made, node.now() - timedelta(days=trial.days))
    return {
        "studies": past.studies, "taken": past.taken, "jobs": past.jobs, "capped": past.capped,
        "unread_series": past.unread, "left_out": past.examples,
    }  # fmt: skip


@router.put("/rules", tags=["rules"])
def put_rules(request: Request, node: NodeOf, actor: Admin, wanted: RulesText) -> dict[str, str]:
    """Save a text, unless the rules changed since `before`."""
    _, problems = check_rules(node, wanted.text)
    if problems:
        raise HTTPException(422, " ".join(problems))
    if not write_rules(request, node, wanted.text, wanted.before, wanted.comment):
        raise HTTPException(409, "Somebody changed the rules meanwhile: read them again.")
    return {"text": wanted.text}


# ---------------------------------------------------------------------- peers


@router.get("/peers", tags=["peers"])
def peers(node: NodeOf, actor: Operator) -> dict[str, Any]:
    """Tell who may call, where results go, who was refused, and how long certificates hold."""
    with node.database.reading() as session:
        refused = refusals(session)[:500]
    settings = node.settings
    return {
        "peers": [one.model_dump(mode="json") for one in settings.peers],
        # By name, since some have passwords and tokens.
        "destinations": [
            {
                "name": one.name,
                "title": one.title,
                "place": one.place,
                "objects": one.objects,
                "confirm": one.confirm,
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
    destination = node.settings.destination(name)
    if destination is None:
        raise HTTPException(404)
    answer = echo_destination(node, destination)
    with node.database.session() as session:
        note(session, request, "peer.echo", target=name)
    return {"answers": answer.answers, "seconds": answer.seconds, "sentence": answer.sentence}


@router.post("/peers/{name}/probe", tags=["peers"])
def probe(request: Request, node: NodeOf, actor: Operator, name: str) -> dict[str, Any]:
    """Ask a destination what it takes."""
    destination = node.settings.destination(name)
    if destination is None:
        raise HTTPException(404)
    answer = probe_destination(node, destination)
    with node.database.session() as session:
        note(session, request, "peer.probe", target=name)
    accepted = None
    if answer.accepted is not None:
        accepted = {key: sorted(value) for key, value in answer.accepted.items()}
    return {"accepted": accepted, "sentence": answer.sentence, "told": answer.told}


# ---------------------------------------------------------------------- people


@router.get("/me", tags=["people"])
def me(actor: Viewer) -> dict[str, Any]:
    """Tell who asks."""
    return {"name": actor.name, "role": str(actor.role), "by_token": actor.by_token}


@router.get("/people", tags=["people"])
def people(node: NodeOf, actor: Admin) -> list[dict[str, Any]]:
    """List all accounts."""
    with node.database.reading() as session:
        users = list_users(session)
    return [
        {"id": one.id, "name": one.name, "role": str(one.role), "enabled": one.enabled,
         "last_login_at": as_text(one.last_login_at), "locked_until": as_text(one.locked_until)}
        for one in users
    ]  # fmt: skip


@router.post("/people/invitations", tags=["people"], status_code=201)
def invite_one(request: Request, node: NodeOf, actor: Admin, wanted: NewPerson) -> dict[str, str]:
    """Make a one-time link by which somebody chooses a password."""
    with node.database.session() as session:
        secret = invite(
            session, wanted.role, node.now(), created_by=actor.name, name=wanted.name.strip()
        )
        note(session, request, "account.invite", target=wanted.name, role=str(wanted.role))
    return {"path": f"/invitation/{secret}"}


@router.put("/people/{number}", tags=["people"])
def change_person(
    request: Request, node: NodeOf, actor: Admin, number: Number, wanted: PersonChange
) -> dict[str, Any]:
    """Change an account's role, or shut it."""
    with node.database.session() as session:
        user = change_user(session, number, role=wanted.role, enabled=wanted.enabled)
        note(
            session, request, "account.change", target=user.name,
            role=str(wanted.role), enabled=wanted.enabled,
        )  # fmt: skip
    return {
        "id": number, "name": user.name, "role": str(wanted.role), "enabled": wanted.enabled,
    }  # fmt: skip


@router.get("/audit", tags=["audit"])
def audit(
    request: Request,
    node: NodeOf,
    actor: Admin,
    account: Word = None,
    action: Word = None,
    before: Before = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """List the audit trail, newest first."""
    with node.database.reading() as session:
        page = audit_page(session, account=account, action=action, before=before, limit=limit)
    with node.database.session() as session:
        note(session, request, "audit.list")
    return {
        "records": [
            {"id": one.id, "at": as_text(one.at), "account": one.account, "host": one.host,
             "action": one.action, "target": one.target, "outcome": one.outcome,
             "details": one.details, "digest": one.digest}
            for one in page.records
        ],
        "next_before": page.next_before,
    }  # fmt: skip


@router.get("/audit/chain", tags=["audit"])
def audit_chain(node: NodeOf, actor: Admin) -> dict[str, int | None]:
    """Follow the whole chain; names the first record that does not fit."""
    with node.database.reading() as session:
        return {"first_broken": first_broken(session)}


@router.get("/audit/collectors", tags=["audit"])
def audit_collectors(node: NodeOf, actor: Admin) -> dict[str, list[dict[str, Any]]]:
    """List the collectors of syslog, with what they have of the trail and what went wrong."""
    return {
        "collectors": [
            {"name": one.name, "place": one.place, "unsent": state.unsent,
             "last_record": state.record_id, "sent_at": as_text(state.sent_at),
             "failures": state.failures, "problem": state.sentence,
             "next_attempt_at": as_text(state.next_attempt_at)}
            for one, state in collectors_of(node)
        ]
    }  # fmt: skip


# ---------------------------------------------------------------------- description


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request, actor: Viewer) -> Response:
    """Return the OpenAPI description."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
def docs(request: Request, actor: Viewer) -> Response:
    """Show what there is, without any script from elsewhere."""
    return render(request, "api.html", groups=described(request))


def described(request: Request) -> dict[str, list[dict[str, Any]]]:
    """Group the routes of the description by tag, each with the role that it needs."""
    roles = {
        (method, route.path): role_of(route)
        for route in api_routes(request.app)
        for method in route.methods or ()
    }
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in request.app.openapi()["paths"].items():
        for method, told in methods.items():
            groups.setdefault((told.get("tags") or ["other"])[0], []).append(
                {"method": method.upper(), "path": path, "summary": told.get("description", ""),
                 "role": roles.get((method.upper(), path), ""),
                 "parameters": [one["name"] for one in told.get("parameters", [])]}
            )  # fmt: skip
    return groups


def api_routes(app: Any) -> list[APIRoute]:
    """Return all routes of the application."""
    return [
        route
        for router in app.state.routers
        for route in router.routes
        if isinstance(route, APIRoute)
    ]


def role_of(route: APIRoute) -> str:
    """Return the role that a route asks for; empty where it asks for none."""
    needs = [one.call.role for one in route.dependant.dependencies if isinstance(one.call, require)]
    return str(max(needs, key=list(Role).index)) if needs else ""
