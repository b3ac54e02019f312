"""Rules: text, history, trial, saving."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request, UploadFile
from pydantic import BaseModel, Field

from dashboard.access import Admin, NodeOf, Operator, Viewer
from dashboard.api.values import Number
from dashboard.rulebook import (
    check_rules,
    text_on_disk,
    try_uploaded,
    worth_a_look,
    write_rules,
)
from db.listing import as_text
from db.operation import rules_version, rules_versions
from dicom_node.errors import FinalError
from workflows.node import Node
from workflows.rule_trial import try_past
from workflows.rules import Rules

router = APIRouter(prefix="/api")


class RulesText(BaseModel):
    """A text for ``rules.yaml``; `before` is the one that it was made from."""

    text: str = Field(max_length=200_000)
    before: str = Field(default="", max_length=200_000)
    comment: str = Field(default="", max_length=256)


class RulesTrial(BaseModel):
    """A text to try on what came in during the last days."""

    text: str = Field(max_length=200_000)
    days: int = Field(default=7, ge=1, le=90)


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
    made = _checked(node, trial.text)
    past = try_past(node, made, node.now() - timedelta(days=trial.days))
    return {
        "studies": past.studies, "taken": past.taken, "jobs": past.jobs, "capped": past.capped,
        "unread_series": past.unread, "left_out": past.examples,
        "warnings": worth_a_look(node, made, trial.text),
    }  # fmt: skip


@router.post("/rules/try/file", tags=["rules"])
def try_text_on_file(
    node: NodeOf,
    actor: Operator,
    text: Annotated[str, Form(max_length=200_000)],
    file: UploadFile,
) -> dict[str, Any]:
    """Check a text, and say which jobs one image would become, which is kept nowhere."""
    made = _checked(node, text)
    try:
        plan = try_uploaded(node, made, file)
    except FinalError as error:
        raise HTTPException(422, f"{error.sentence}.") from error
    return {
        "jobs": [
            {"rule": one.rule.name, "targets": one.targets, "destinations": one.destinations}
            for one in plan.pairs
        ],
        "left_out": [{"rule": one.rule, "because": one.text} for one in plan.reasons],
        "warnings": worth_a_look(node, made, text),
    }


def _checked(node: Node, text: str) -> Rules:
    made, problems = check_rules(node, text)
    if made is None:
        raise HTTPException(422, " ".join(problems))
    return made


@router.put("/rules", tags=["rules"])
def put_rules(request: Request, node: NodeOf, actor: Admin, wanted: RulesText) -> dict[str, str]:
    """Save a text, unless the rules changed since `before`."""
    _, problems = check_rules(node, wanted.text)
    if problems:
        raise HTTPException(422, " ".join(problems))
    if not write_rules(request, node, wanted.text, wanted.before, wanted.comment):
        raise HTTPException(409, "Somebody changed the rules meanwhile: read them again.")
    return {"text": wanted.text}
