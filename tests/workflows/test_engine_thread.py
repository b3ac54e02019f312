"""The thread that owns the model: turns, priorities, errors, stopping."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from dicom_node.errors import RetriableError
from inference.findings import Interpretation
from inference.tasks import Task
from workflows.engine_thread import Engine, EngineThread, Question, Steps

PATIENCE = 60.0


class Recorder:
    """Answers one slice per step, and notes the order; `gate` holds it before each step."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.gate = threading.Semaphore(1000)

    def answer_steps(
        self,
        images: np.ndarray,
        *,
        modality: str,
        kind: str,
        tasks: Sequence[Task],
        **_geometry: object,
    ) -> Steps:
        for index in range(len(images)):
            assert self.gate.acquire(timeout=PATIENCE)
            self.order.append(tasks[0].targets[0])
            if tasks[0].targets[0] == "broken":
                raise ZeroDivisionError
            yield (index + 1) / len(images)
        return Interpretation((), "recorder", "1", "digest", tasks[0].targets[0], len(images))


def question(name: str, frames: int = 3) -> Question:
    return Question(np.zeros((frames, 2, 2), np.float32), "CT", "volume", (Task.segment(name),))


def ignore(fraction: float) -> None:
    """Take a progress report."""


@contextmanager
def running(load: Callable[[], Engine]) -> Iterator[EngineThread]:
    thread = EngineThread(load)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def test_jobs_of_one_priority_take_turns_and_urgent_ones_go_first() -> None:
    model = Recorder()
    model.gate = threading.Semaphore(0)
    with running(lambda: model) as engine:
        first = engine.submit(question("a"), priority=6, progress=ignore)
        answers = [engine.submit(question("b"), priority=6, progress=ignore)]
        answers.append(engine.submit(question("stat", 2), priority=0, progress=ignore))
        model.gate.release(100)
        for answer in (first, *answers):
            answer.result(PATIENCE)
    # "a" may have begun before the others came; from then on the urgent one goes first.
    rest = model.order[1:] if model.order[0] == "a" else model.order
    assert rest[:2] == ["stat", "stat"]
    routine = [name for name in rest[2:]]
    assert routine[:4] in (["b", "a", "b", "a"], ["a", "b", "a", "b"])
    assert first.result().intensity == "a"


def test_progress_is_reported_and_its_error_ends_the_job() -> None:
    model = Recorder()
    seen: list[float] = []

    def stop_at_half(fraction: float) -> None:
        seen.append(fraction)
        if fraction >= 0.5:
            raise InterruptedError("the lease is lost")

    with running(lambda: model) as engine:
        answer = engine.submit(question("a", 4), priority=6, progress=stop_at_half)
        with pytest.raises(InterruptedError):
            answer.result(PATIENCE)
    assert seen == [0.25, 0.5]
    assert model.order == ["a", "a"]


def test_an_error_is_the_answer_of_its_own_job_only() -> None:
    with running(Recorder) as engine:
        broken = engine.submit(question("broken"), priority=6, progress=ignore)
        good = engine.submit(question("good"), priority=6, progress=ignore)
        with pytest.raises(ZeroDivisionError):
            broken.result(PATIENCE)
        assert good.result(PATIENCE).frames == 3


def test_a_question_that_was_taken_back_takes_no_more_turns() -> None:
    model = Recorder()
    model.gate = threading.Semaphore(0)
    with running(lambda: model) as engine:
        blocked = engine.submit(question("a", 1), priority=0, progress=ignore)
        taken_back = engine.submit(question("b"), priority=6, progress=ignore)
        assert taken_back.cancel()
        model.gate.release(100)
        blocked.result(PATIENCE)
        engine.submit(question("c"), priority=6, progress=ignore).result(PATIENCE)
    assert "b" not in model.order


def test_jobs_get_a_retriable_answer_when_the_thread_stops() -> None:
    model = Recorder()
    model.gate = threading.Semaphore(0)
    engine = EngineThread(lambda: model)
    engine.start()
    running_job = engine.submit(question("a"), priority=6, progress=ignore)
    waiting_job = engine.submit(question("b"), priority=6, progress=ignore)
    waiting_job.cancel()
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    # Once it knows that it is stopping, it takes nothing more; until then this waits like the rest.
    while not (late := engine.submit(question("c"), priority=6, progress=ignore)).done():
        late.cancel()
    model.gate.release(100)
    stopper.join(PATIENCE)
    with pytest.raises(RetriableError, match="stopping"):
        running_job.result(PATIENCE)
    with pytest.raises(RetriableError, match="stopping"):
        engine.submit(question("c"), priority=6, progress=ignore).result(PATIENCE)


def test_loading_is_tried_again_for_the_next_job() -> None:
    attempts: list[int] = []

    def load() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("no such folder")
        return Recorder()

    with running(load) as engine:
        first = engine.submit(question("a"), priority=6, progress=ignore)
        with pytest.raises(RetriableError, match="no such folder"):
            first.result(PATIENCE)
        second = engine.submit(question("a"), priority=6, progress=ignore)
        assert second.result(PATIENCE).frames == 3
