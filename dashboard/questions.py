"""Ask the model about any images of the archive; only "send" writes to a PACS."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, HTTPException, Request
from fastapi.openapi.models import Example
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dashboard.access import NodeOf, Operator, Viewer
from dashboard.auditing import note
from dashboard.scenes import answer_scene
from dashboard.stacks import source_of, sources_of_series
from dashboard.viewer_api import ImagesOf, Number, packed_masks
from db.questions import (
    AskedQuestion,
    NewQuestion,
    ask,
    cancel,
    question_as_json,
    question_by_id,
    questions_of,
)
from workflows.node import Node
from workflows.questions import (
    QUESTION_SECONDS,
    NotSendableError,
    send_to_pacs,
    task_of,
    words_of,
)

router = APIRouter(prefix="/api", tags=["questions"])

_MOST_SHOWN: Final = 50
_EXAMPLES: Final[dict[str, Example]] = {
    "find something": {"value": {"kind": "segmentation", "targets": ["hippocampus"]}},
    "what is in a box (top, left, bottom, right)": {
        "value": {
            "kind": "region_classification",
            "region": {"frame": 12, "box": [40, 50, 80, 90]},
        }
    },
    "a question": {"value": {"kind": "grounded_question", "question": "Is there a tumour?"}},
}


@router.post("/series/{series_id}/parts/{part}/questions", status_code=201)
def ask_question(
    request: Request,
    node: NodeOf,
    images: ImagesOf,
    actor: Operator,
    series_id: Number,
    part: Number,
    task: Annotated[dict[str, Any], Body(openapi_examples=_EXAMPLES)],
) -> Any:
    """Ask about one part of a series; `task` as `inference.tasks` writes it.

    The answer is fetched from ``/api/questions/{id}`` until its state is no longer queued or
    running.
    """
    try:
        checked = task_of(task)
    except ValueError as error:
        raise HTTPException(400, f"This cannot be asked: {error}.") from error
    series, sources, instances = sources_of_series(node, series_id)
    source = source_of(sources, part)
    ids = {one.sop_instance_uid: one.id for one in instances}
    new = NewQuestion(
        study_id=series.study_id,
        series_instance_uid=series.series_instance_uid,
        modality=source.modality,
        source_kind=source.kind,
        instance_ids=[ids[uid] for uid in source.sop_instance_uids],
        frame_numbers=source.frame_numbers,
        task=checked,
    )
    with node.database.session() as session:
        question = ask(
            session,
            new,
            account=actor.name,
            now=node.now(),
            deadline_seconds=QUESTION_SECONDS,
        )
        note(session, request, "question.ask", target=f"question {question.id}", **_kind(checked))
    return _told(question)


def _kind(task: dict[str, Any]) -> dict[str, Any]:
    return {"kind": task["kind"]}


@router.get("/series/{series_id}/parts/{part}/questions")
def list_questions(
    node: NodeOf, images: ImagesOf, actor: Operator, series_id: Number, part: Number
) -> Any:
    """List what was asked about one part of a series, newest first."""
    series, sources, instances = sources_of_series(node, series_id)
    source = source_of(sources, part)
    ids = {one.sop_instance_uid: one.id for one in instances}
    asked_about = [ids[uid] for uid in source.sop_instance_uids]
    with node.database.reading() as session:
        found = questions_of(session, series.study_id, _MOST_SHOWN)
    same = [
        one
        for one in found
        if one.instance_ids == asked_about and one.frame_numbers == list(source.frame_numbers)
    ]
    return {"questions": [_told(one) for one in same]}


@router.get("/questions/{question_id}")
def get_question(
    request: Request, node: NodeOf, images: ImagesOf, actor: Operator, question_id: Number
) -> Any:
    """Return a question, how far it is, and its answer."""
    question = _question(node, question_id)
    return _told(question)


@router.get("/questions/{question_id}/masks", response_class=Response)
def masks(node: NodeOf, images: ImagesOf, actor: Viewer, question_id: Number) -> Response:
    """Return the masks of an answer as run lengths: see `dashboard.masks`."""
    question = _question(node, question_id)
    return packed_masks(images.masks_of_answer(question).body)


@router.post("/questions/{question_id}/cancel")
def cancel_question(
    request: Request, node: NodeOf, images: ImagesOf, actor: Operator, question_id: Number
) -> Any:
    """Take a question back that is not answered yet."""
    _question(node, question_id)
    with node.database.session() as session:
        cancel(session, question_id, node.now())
        note(session, request, "question.cancel", target=f"question {question_id}")
    question = _question(node, question_id)
    return _told(question)


class Sending(BaseModel):
    """Where an answer goes: names of destinations; left out for all."""

    model_config = ConfigDict(extra="forbid")

    destinations: Annotated[list[str], Field(max_length=100)] | None = None


@router.post("/questions/{question_id}/send")
def send_question(
    request: Request,
    node: NodeOf,
    actor: Operator,
    question_id: Number,
    sending: Sending | None = None,
) -> Any:
    """Write an answer as SEG and SR and send it: a job does it, by the way of every result.

    A second call changes nothing and names the same job.
    """
    _question(node, question_id)
    try:
        with node.database.session() as session:
            job_id = send_to_pacs(
                node,
                session,
                question_id,
                account=actor.name,
                destinations=None if sending is None else sending.destinations,
            )
            note(session, request, "question.send", target=f"job {job_id}", question=question_id)
    except NotSendableError as error:
        raise HTTPException(409, str(error)) from error
    question = _question(node, question_id)
    return _told(question)


def _question(node: Node, question_id: int) -> AskedQuestion:
    with node.database.reading() as session:
        question = question_by_id(session, question_id)
    if question is None:
        raise HTTPException(404, "There is no such question (any more).")
    return question


def _told(question: AskedQuestion) -> dict[str, Any]:
    frames = len(question.frame_numbers) or len(question.instance_ids)
    return {
        **question_as_json(question),
        "words": words_of(question.task),
        "scene": answer_scene(question, frames),
    }
