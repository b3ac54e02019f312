"""Answers to people's questions, beside the jobs: a thread of the worker that holds the model.

People wait for an answer, so a question waits for no job: it has a thread of its own, and among
the turns on the device it comes first. The question lies in the database; whichever worker sees
it first leases it, and one that falls silent loses it to the next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from db.questions import (
    AskedQuestion,
    QuestionState,
    TakenAwayError,
    answer,
    beat,
    end,
    instances_asked,
    take,
    waits,
)
from db.session import is_passing
from dicom_node.errors import DicomNodeError
from dicom_node.objects.segments import segments_of
from inference.errors import DeviceLostError, InferenceError, NotCoveredError
from inference.findings import Finding, Interpretation
from inference.tasks import Task
from workflows import interpret, stored_interpretation
from workflows.engine_thread import EngineThread
from workflows.errors import NotApplicableError
from workflows.node import Node
from workflows.questions import question_folder
from workflows.stored_interpretation import StoredInterpretation

__all__ = ["Answering", "answer_next"]

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 0.4
_PAUSE_SECONDS: Final = 5.0
_LEASE_SECONDS: Final = 20.0
_BEFORE_ALL_JOBS: Final = -1


class Answering:
    """The thread that looks for questions and answers them, one at a time.

    Parameters
    ----------
    node, engine
        Where the questions lie, and what answers them.
    abandon
        Ends the process; called when its device is lost for good.
    """

    def __init__(
        self, node: Node, engine: EngineThread, abandon: Callable[[], None] | None = None
    ) -> None:
        self._node = node
        self._engine = engine
        self._abandon = abandon
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="questions", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the question at hand."""
        self._stopping.set()

    def _run(self) -> None:
        pause = _LOOK_SECONDS
        while not self._stopping.wait(pause):
            pause = _LOOK_SECONDS
            try:
                while answer_next(self._node, self._engine):
                    pass
            except DeviceLostError:
                if self._abandon is not None:
                    self._abandon()
            except SQLAlchemyError as error:
                pause = _PAUSE_SECONDS
                if not is_passing(error):
                    _LOG.exception("questions wait: the database did not understand")


def answer_next(node: Node, engine: EngineThread) -> bool:
    """Answer the question that waits longest; False when none waits.

    Raises
    ------
    DeviceLostError
        After the question was ended: nothing works on the device any more in this process.
    SQLAlchemyError
        The database; the question's lease runs out.
    """
    with node.database.reading() as session:
        if not waits(session, node.now()):
            return False
    with node.database.session() as session:
        question = take(session, node.now(), _LEASE_SECONDS)
    if question is None:
        return False
    try:
        _answer(node, engine, question)
    except TakenAwayError as error:
        _LOG.info("%s", error)
    except (NotCoveredError, NotApplicableError) as error:
        _end(node, question, QuestionState.NOT_COVERED, _sentence(error))
    except DeviceLostError as error:
        _end(node, question, QuestionState.FAILED, _sentence(error))
        raise
    except (DicomNodeError, InferenceError, OSError, MemoryError) as error:
        _end(node, question, QuestionState.FAILED, _sentence(error))
    except SQLAlchemyError:
        raise
    # The boundary: whatever else goes wrong is this question's end and not the worker's.
    except Exception as error:
        _LOG.exception("question %d failed unexpectedly", question.id)
        sentence = (
            f"An unexpected error ({type(error).__name__}) in the node's software; "
            f"log/worker-gpu.log of the node has the details. Please report it."
        )
        _end(node, question, QuestionState.FAILED, sentence)
    return True


def _answer(node: Node, engine: EngineThread, question: AskedQuestion) -> None:
    with node.database.reading() as session:
        instances = instances_asked(session, question)
    paths = [node.archive.absolute(one.path) for one in instances]
    uids = [one.sop_instance_uid for one in instances]
    source = interpret.one_source(paths, uids, question.frame_numbers)
    folder = question_folder(node.home, question.id)
    prepared = interpret.prepare(source, folder)
    _beat(node, question, 0.0)
    task = Task.from_json(question.task)
    asked = interpret.question_of(prepared, [task], node.model.card)
    found = _wait(node, question, engine, asked)
    stored = StoredInterpretation(found, source.sop_instance_uids, task)
    stored_interpretation.write(folder, stored)
    measurements = interpret.measure_findings(prepared, found, lambda part: None)
    numbers = {segment.index: segment.number for segment in segments_of(found)}
    findings = [
        _told(one, numbers.get(index), measurements[index].as_json() if index in numbers else {})
        for index, one in enumerate(found.findings)
    ]
    model = {
        "name": found.model_name,
        "version": found.model_version,
        "digest": found.model_digest,
        "intensity": found.intensity,
    }
    with node.database.session() as session:
        answer(
            session,
            question.id,
            question.lease_token,
            node.now(),
            findings=findings,
            model=model,
        )


def _wait(node: Node, question: AskedQuestion, engine: EngineThread, asked: Any) -> Interpretation:
    """Wait for the engine, telling how far it is; what was taken away is taken back from it."""
    done = [0.0]

    def progress(fraction: float) -> None:
        done[0] = fraction

    future: Future[Interpretation] = engine.submit(
        asked, priority=_BEFORE_ALL_JOBS, progress=progress
    )
    try:
        while True:
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except StillRunning:
                if future.done():
                    return future.result()
            _beat(node, question, done[0])
    finally:
        future.cancel()


def _beat(node: Node, question: AskedQuestion, progress: float) -> None:
    with node.database.session() as session:
        beat(session, question.id, question.lease_token, node.now(), _LEASE_SECONDS, progress)


def _end(node: Node, question: AskedQuestion, state: QuestionState, sentence: str) -> None:
    try:
        with node.database.session() as session:
            end(session, question.id, question.lease_token, state, sentence, node.now())
    except TakenAwayError as error:
        _LOG.info("%s", error)


def _sentence(error: BaseException) -> str:
    said = getattr(error, "sentence", None) or str(error) or type(error).__name__
    return f"{said[:1].upper()}{said[1:]}"


def _told(finding: Finding, segment: int | None, measurements: dict[str, Any]) -> dict[str, Any]:
    return {
        "target": finding.target,
        "text": finding.text,
        "phrase": finding.phrase,
        "prompt": finding.prompt,
        "presence": finding.presence.value,
        "confidence": float(finding.confidence),
        "predicted_iou": None if finding.predicted_iou is None else float(finding.predicted_iou),
        "key_frame": None if finding.key_frame is None else int(finding.key_frame),
        "task": finding.task,
        "segment_number": segment,
        "measurements": measurements,
    }
