"""Questions to the model, as pages see them: what may be asked, what was answered, sending it.

No model and no engine here: `workflows.answering` answers, in the worker that holds the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy.orm import Session

from db.questions import QuestionState, question_by_id, send_answer
from dicom_node.objects.segmentation_reading import SegmentRead
from dicom_node.objects.segments import segments_of
from inference.findings import Interpretation, Mask
from inference.prompts import clean_target
from inference.tasks import Task, TaskKind
from workflows import stored_interpretation
from workflows.home import Home
from workflows.node import Node
from workflows.stored_interpretation import StoredInterpretationError

__all__ = [
    "QUESTION_SECONDS",
    "NotSendableError",
    "question_folder",
    "segments_of_answer",
    "send_to_pacs",
    "task_of",
    "words_of",
]

QUESTION_SECONDS: Final = 600.0
"""How long a person's question may wait and run, all in all."""
_MOST_TARGETS: Final = 20


def question_folder(home: Home, question_id: int) -> Path:
    """Return where the masks of an answer lie."""
    return home.work / f"question-{question_id}"


def segments_of_answer(
    interpretation: Interpretation,
) -> tuple[list[SegmentRead], list[tuple[int, Mask]]]:
    """Return an answer's masks as the segments that a Segmentation of it would have.

    Returns
    -------
    segments, masks
        Number, label and colour of each; number and mask (frames, rows, columns) of each.
    """
    segments = segments_of(interpretation)
    return (
        [SegmentRead(one.number, one.finding.target, one.term.colour, "") for one in segments],
        [(one.number, one.mask) for one in segments],
    )


class NotSendableError(Exception):
    """The answer cannot be sent; the text is a sentence."""


def task_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Check what a page or a program asks, and write it in the one way the database keeps.

    Raises
    ------
    ValueError
        It cannot be asked; the text says why.
    """
    task = Task.from_json(told)
    if len(task.targets) > _MOST_TARGETS:
        raise ValueError(f"{len(task.targets)} targets: at most {_MOST_TARGETS} at once")
    return task.to_json()


def words_of(task: Mapping[str, Any]) -> str:
    """Say in a few words what was asked."""
    asked = Task.from_json(task)
    if asked.kind is TaskKind.REGION_CLASSIFICATION:
        return f"What is in the box on slice {_frame(asked) + 1}?"
    if asked.kind is TaskKind.REGION_REPORT:
        return f"Describe the box on slice {_frame(asked) + 1}"
    if asked.question:
        return asked.question
    if asked.targets:
        return f"Find: {', '.join(asked.targets)}"
    return asked.kind.replace("_", " ").capitalize()


def _frame(task: Task) -> int:
    return 0 if task.region is None else task.region.frame


def _names(interpretation: Interpretation) -> list[str]:
    """Return what the answer speaks of, as a job names its targets."""
    names: dict[str, None] = {}
    for finding in interpretation.findings:
        with suppress(ValueError):  # words of a free answer, which are no target
            names[clean_target(finding.target)] = None
    return list(names) or ["finding"]


def send_to_pacs(
    node: Node,
    session: Session,
    question_id: int,
    *,
    account: str,
    destinations: Sequence[str] | None = None,
) -> int:
    """Make a job of an answer, which encodes, checks and delivers it like any other.

    Parameters
    ----------
    node, session
        The node, and an open transaction.
    question_id
        The answered question.
    account
        Who sends.
    destinations
        Names of node.yaml; None for all of them.

    Returns
    -------
    int
        The job; the same one for a second call.

    Raises
    ------
    NotSendableError
        There is nothing that could be sent, or nowhere to send it.
    """
    question = question_by_id(session, question_id)
    if question is None or question.state is not QuestionState.ANSWERED:
        raise NotSendableError("This question has no answer that could be sent.")
    names = [destination.name for destination in node.settings.destinations]
    if not names:
        raise NotSendableError(
            "node.yaml names no destination, so there is no PACS to send this to."
        )
    unknown = sorted(set(destinations or ()) - set(names))
    if unknown or destinations == []:
        raise NotSendableError(
            f"node.yaml has no destination {unknown[0]!r}; it has {', '.join(names)}."
            if unknown
            else "Choose at least one destination."
        )
    kept = question_folder(node.home, question_id)
    try:
        stored = stored_interpretation.read(kept)
    except StoredInterpretationError as error:
        raise NotSendableError(f"The masks are not kept any more ({error}); ask again.") from error
    chosen = [name for name in names if destinations is None or name in destinations]
    job = send_answer(
        session,
        question,
        account=account,
        targets=_names(stored.interpretation),
        destinations=chosen,
        now=node.now(),
    )
    # Durable before the transaction that makes the job ends.
    stored_interpretation.write(node.home.work_folder(job.id), stored)
    return job.id
