"""The one thread that owns the model: jobs hand in their pixels and wait.

A device is used best by one thread with one model in memory. The jobs of a worker prepare their
pixels side by side in the worker's own threads; here they take turns, one small batch of slices
each, so that a short urgent job does not wait for the end of a long one.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import RetriableError
from inference.findings import Interpretation
from inference.tasks import Task
from workflows.pixel_room import PixelRoom

_LOG = logging.getLogger(__name__)

Progress = Callable[[float], None]
Steps = Generator[float, None, Interpretation]


@dataclass(frozen=True, eq=False, slots=True)
class Question:
    """What a job asks the model; the arguments of `inference.engine.Engine.answer_steps`.

    Attributes
    ----------
    images
        Rescaled values (frames, rows, columns), or 8-bit RGB (frames, rows, columns, 3).
    modality, kind
        In the words of the card.
    tasks
        What is asked, one or several things.
    spacing
        Millimetres between frames, rows, columns; None where they are not known.
    axes
        (3, 3): millimetres to the patient's left, back and head of a step along frames, rows and
        columns; None where they are not known.
    window
        First VOI window of the header, in the unit of the values; None where it has none.
    """

    images: NDArray[Any]
    modality: str
    kind: Literal["volume", "images"]
    tasks: tuple[Task, ...]
    spacing: tuple[float, float, float] | None = None
    axes: NDArray[np.float64] | None = None
    window: tuple[float, float] | None = None


class Engine(Protocol):
    """The model, as the jobs use it."""

    def answer_steps(
        self,
        images: NDArray[Any],
        *,
        modality: str,
        kind: Literal["volume", "images"],
        tasks: Sequence[Task],
        spacing: tuple[float, float, float] | None = None,
        axes: NDArray[np.float64] | None = None,
        window: tuple[float, float] | None = None,
    ) -> Steps:
        """Yield the fraction done after each small batch of slices; return the findings."""
        ...


@dataclass(slots=True)
class _Turn:
    """A job that takes its turns on the device."""

    question: Question
    priority: int
    number: int
    progress: Progress
    answer: Future[Interpretation] = field(default_factory=Future)
    steps: Steps | None = None


class EngineThread:
    """Loads the model once and lets jobs take turns on it.

    Parameters
    ----------
    load
        Loads the model; called in the engine's own thread, again after it failed.
    room
        For the pixels of the jobs that hand in questions, or prepare to.

    Notes
    -----
    Of the jobs that wait, those of the smallest priority number take turns; the others wait
    until these are done. An error of one job is that job's answer and touches no other.
    """

    def __init__(self, load: Callable[[], Engine], room: PixelRoom | None = None) -> None:
        self.room = PixelRoom() if room is None else room
        self._load = load
        self._engine: Engine | None = None
        self._turns: list[_Turn] = []
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._stopping = False
        self._load_error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to load the model; returns at once."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop after the running batch; jobs that wait get a RetriableError."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def submit(
        self,
        question: Question,
        *,
        priority: int,
        progress: Progress,
    ) -> Future[Interpretation]:
        """Hand a job in.

        Parameters
        ----------
        question
            What the model is asked.
        priority
            0 first.
        progress
            Called from the engine's thread with the fraction done; what it raises ends the job.

        Returns
        -------
        Future
            Of the findings. Cancelling it takes the job out before its next batch.
        """
        turn = _Turn(question, priority, next(self._numbers), progress)
        with self._changed:
            if self._stopping:
                turn.answer.set_exception(_stopped())
            else:
                self._turns.append(turn)
                self._changed.notify_all()
        return turn.answer

    def _run(self) -> None:
        self._try_to_load()
        while (turn := self._next_turn()) is not None:
            if self._engine is None and not self._try_to_load():
                error = self._load_error
                self._end(turn, RetriableError(f"the model could not be loaded: {error}"))
                continue
            self._take(turn)

    def _try_to_load(self) -> bool:
        try:
            self._engine = self._load()
        # The model is foreign code and data: whatever is wrong with it must reach the jobs, and
        # not end the thread that they wait for.
        except Exception as error:
            _LOG.exception("the model could not be loaded")
            self._load_error = error
            return False
        _LOG.info("the model is loaded")
        return True

    def _next_turn(self) -> _Turn | None:
        """Wait for the job whose turn it is; None when the thread should end."""
        with self._changed:
            while not self._turns and not self._stopping:
                self._changed.wait()
            if self._stopping:
                for turn in self._turns:
                    if turn.answer.set_running_or_notify_cancel():
                        turn.answer.set_exception(_stopped())
                self._turns.clear()
                return None
            turn = min(self._turns, key=lambda one: (one.priority, one.number))
            # Behind its equals for the next time: they take turns.
            turn.number = next(self._numbers)
            return turn

    def _take(self, turn: _Turn) -> None:
        """Run one batch of a job."""
        if turn.answer.cancelled():
            self._end(turn, None)
            return
        try:
            if turn.steps is None:
                assert self._engine is not None  # noqa: S101 - loaded before any turn
                turn.steps = steps_of(self._engine, turn.question)
            turn.progress(next(turn.steps))
        except StopIteration as finished:
            self._end(turn, finished.value)
        # Handed to the job that waits for it, whose task decides what it means.
        except Exception as error:
            self._end(turn, error)

    def _end(self, turn: _Turn, outcome: Interpretation | Exception | None) -> None:
        with self._changed:
            self._turns.remove(turn)
        if turn.steps is not None:
            turn.steps.close()
        if not turn.answer.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            turn.answer.set_exception(outcome)
        elif outcome is not None:
            turn.answer.set_result(outcome)


def steps_of(engine: Engine, question: Question) -> Steps:
    """Begin to answer a question."""
    return engine.answer_steps(
        question.images,
        modality=question.modality,
        kind=question.kind,
        tasks=question.tasks,
        spacing=question.spacing,
        axes=question.axes,
        window=question.window,
    )


def _stopped() -> RetriableError:
    return RetriableError("the worker is stopping; another one takes the job")
