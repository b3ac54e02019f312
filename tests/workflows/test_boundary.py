"""Errors become states at one place, and a lease is kept while a stage works."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError, ProgrammingError

from db.jobs import JobState, Lease, LostLease, advance, finish, release_expired
from db.models import Job
from dicom_node.errors import FinalError, RetriableError
from inference.errors import (
    CheckpointError,
    DeviceLostError,
    FinalInferenceError,
    NotCoveredError,
    RetriableInferenceError,
)
from tests.factories import write_ct_series
from tests.workflows.whole_node import Clock, ct_volume, make_node, take_in
from workflows import lease_keeper
from workflows.boundary import attend, pause_seconds
from workflows.consider import consider_study
from workflows.dispatch import Dispatch
from workflows.errors import NotApplicableError
from workflows.lease_keeper import DeadlineError, LeaseKeeper
from workflows.node import Node
from workflows.settings import RetrySettings

PATIENCE = 60.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(tmp_path: Path, clock: Clock) -> Iterator[Node]:
    """Return a node with job 1 queued."""
    node = make_node(
        tmp_path / "home",
        clock,
        jobs={"lease_seconds": 1.0, "deadline_seconds": 30.0},
        retries={"attempts": 3, "first_seconds": 10.0, "longest_seconds": 15.0},
    )
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    assert [one.state for one in consider_study(node, 1)] == [JobState.QUEUED]
    clock.ahead = timedelta()
    with node.database.session() as session:
        session.get_one(Job, 1).next_attempt_at = clock()
    yield node
    node.database.dispose()


def job(node: Node) -> Job:
    with node.database.reading() as session:
        return session.get_one(Job, 1)


def attend_raising(node: Node, error: Exception) -> list[Dispatch]:
    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        raise error

    return attend(node, 1, JobState.QUEUED, work)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FinalError("The file is cut off."), "The file is cut off."),
        (FinalInferenceError("no finite number"), "no finite number"),
        (KeyError("secret of the patient"), "an unexpected error (KeyError)"),
        (DeadlineError(), "longer than 30 s (jobs.deadline_seconds in node.yaml)"),
    ],
)
def test_what_a_retry_cannot_cure_fails_with_a_sentence(
    node: Node, error: Exception, said: str
) -> None:
    assert attend_raising(node, error) == []
    after = job(node)
    assert after.state is JobState.FAILED
    assert said in after.error
    assert "patient" not in after.error
    assert after.lease_owner is None


@pytest.mark.parametrize(
    "error", [NotCoveredError("not in the card"), NotApplicableError("not in the card")]
)
def test_what_the_model_was_not_made_for_is_not_a_failure(node: Node, error: Exception) -> None:
    attend_raising(node, error)
    assert (job(node).state, job(node).wait_reason) == (JobState.NOT_APPLICABLE, "not in the card")


@pytest.mark.parametrize(
    "error",
    [
        RetriableError("the PACS is away"),
        RetriableInferenceError("memory ran out"),
        OperationalError("select", {}, Exception("database is locked")),
        OSError(errno.ENOSPC, "No space left on device", "/home/work/1"),
        MemoryError(),
        CheckpointError("/models/card.yaml is missing."),
    ],
)
def test_what_a_retry_may_cure_is_tried_again_with_growing_pauses(
    node: Node, clock: Clock, error: Exception
) -> None:
    pauses = []
    for attempt in (1, 2):
        attend_raising(node, error)
        after = job(node)
        assert (after.state, after.attempts) == (JobState.QUEUED, attempt)
        pauses.append((after.next_attempt_at - clock()).total_seconds())
        clock.forward(pauses[-1] + 0.01)
    assert 7 < pauses[0] < 12.6 and 11 < pauses[1] < 18.8
    attend_raising(node, error)
    assert job(node).state is JobState.FAILED
    assert "given up after 3 attempts" in job(node).error


def test_a_full_disk_is_named_with_its_place(node: Node) -> None:
    attend_raising(node, OSError(errno.ENOSPC, "No space left on device", "/home/work/1"))
    assert job(node).wait_reason == "No space left on device (/home/work/1); free space"


def test_a_lost_device_ends_the_process_once_the_job_is_put_back(node: Node) -> None:
    states: list[JobState] = []

    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        raise DeviceLostError("the device cuda failed (illegal access); its worker starts anew")

    attend(node, 1, JobState.QUEUED, work, abandon=lambda: states.append(job(node).state))
    assert states == [JobState.QUEUED]
    assert "illegal access" in job(node).wait_reason


def test_a_job_that_is_not_there_is_left_alone(node: Node) -> None:
    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        raise AssertionError("must not run")

    assert attend(node, 1, JobState.ENCODING, work) == []
    assert attend(node, 99, JobState.QUEUED, work) == []
    assert job(node).state is JobState.QUEUED


def test_the_lease_outlives_a_long_stage(node: Node) -> None:
    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        first = job(node).lease_expires_at
        assert first is not None
        keeper.report(0.25)
        waited = threading.Event()
        for _ in range(1200):
            waited.wait(0.05)
            now = job(node)
            assert now.lease_expires_at is not None
            if now.lease_expires_at > first + timedelta(seconds=1):
                assert now.progress == 0.25
                return [Dispatch(1, JobState.QUEUED, 1)]
        raise AssertionError("the lease was not renewed")

    # The keeper writes real times.
    assert attend(replace(node), 1, JobState.QUEUED, work)


def test_a_worker_that_lost_its_job_stops_and_writes_nothing(node: Node, clock: Clock) -> None:
    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        with node.database.session() as session:
            finish(session, 1, JobState.CANCELLED, "an operator did it", now=clock())
        waited = threading.Event()
        for _ in range(1200):
            waited.wait(0.05)
            keeper.report(0.5)
        raise AssertionError("was not told")

    assert attend(node, 1, JobState.QUEUED, work) == []
    assert job(node).state is JobState.CANCELLED


def test_a_successors_work_is_not_overwritten(node: Node, clock: Clock) -> None:
    def late(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        with node.database.session() as session:
            release_expired(session, clock() + timedelta(hours=1), 3)

        def successor(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
            with node.database.session() as session:
                advance(session, lease, JobState.PREPARING, clock())
                finish(session, lease, JobState.NOT_APPLICABLE, "by the successor", now=clock())
            return []

        clock.forward(3601)
        attend(node, 1, JobState.QUEUED, successor)
        with node.database.session() as session:
            advance(session, lease, JobState.PREPARING, clock())
        raise AssertionError("the token was old")

    assert attend(node, 1, JobState.QUEUED, late) == []
    assert job(node).state is JobState.NOT_APPLICABLE


def test_a_stage_is_told_of_its_deadline_and_abandoned_when_it_hangs(node: Node) -> None:
    left = threading.Event()
    lease = Lease(1, "nobody", 12345)
    with LeaseKeeper(
        node.database, lease, lease_seconds=0.2, deadline_seconds=0.05, abandon=left.set
    ) as keeper:
        assert left.wait(PATIENCE), "a hanging stage ends its process"
        with pytest.raises((DeadlineError, LostLease)):
            keeper.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lease_that_cannot_be_renewed_any_more_counts_as_lost(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ProgrammingError("update", {}, Exception("no such column"))

    monkeypatch.setattr(lease_keeper, "heartbeat", broken)
    waited = threading.Event()
    with (
        LeaseKeeper(
            node.database, Lease(1, "nobody", 1), lease_seconds=0.2, deadline_seconds=PATIENCE
        ) as keeper,
        pytest.raises(LostLease),
    ):
        while True:
            waited.wait(0.02)
            keeper.check()


@given(st.integers(0, 10_000), st.floats(0.1, 100), st.floats(100, 10_000))
def test_pauses_double_up_to_a_limit(attempts: int, first: float, longest: float) -> None:
    retries = RetrySettings(first_seconds=first, longest_seconds=longest)
    pause = pause_seconds(attempts, retries)
    expected = min(longest, first * 2.0 ** min(attempts, 64))
    assert 0.75 * expected <= pause <= 1.25 * expected
