from __future__ import annotations

import multiprocessing
import threading
from datetime import datetime

import pytest
from sqlalchemy import select

from db import jobs
from db.jobs import IllegalTransition, JobState, Lease, LostLease
from db.models import Job, JobEvent, JobStage
from db.session import Database
from tests.databases import START, later
from tests.db.arrivals import brought_to, claimed, queued_job, state_of, waiting_job


def stages(database: Database, job_id: int) -> list[tuple[str, int, bool]]:
    with database.reading() as session:
        rows = session.scalars(
            select(JobStage).where(JobStage.job_id == job_id).order_by(JobStage.id)
        )
        return [(str(row.stage), row.attempt, row.ended_at is not None) for row in rows]


def test_a_job_is_claimed_once(database: Database) -> None:
    job_id = queued_job(database)
    lease = claimed(database, job_id, JobState.QUEUED)
    with database.session() as session:
        assert jobs.claim(session, job_id, "other", JobState.QUEUED, 30, START) is None
    assert lease.owner == "worker"


def test_a_job_is_not_claimed_before_its_time_nor_from_another_state(database: Database) -> None:
    job_id = queued_job(database)
    with database.session() as session:
        assert jobs.claim(session, job_id, "w", JobState.QUEUED, 30, later(-1)) is None
        assert jobs.claim(session, job_id, "w", JobState.ENCODING, 30, START) is None
        assert jobs.claim(session, job_id + 99, "w", JobState.QUEUED, 30, START) is None


def test_only_resting_states_are_claimed(sqlite_database: Database) -> None:
    with sqlite_database.session() as session, pytest.raises(IllegalTransition):
        jobs.claim(session, 1, "w", JobState.INFERRING, 30, START)


def test_tokens_only_grow(database: Database) -> None:
    job_id = queued_job(database)
    tokens = []
    for number in range(3):
        lease = claimed(database, job_id, JobState.QUEUED, later(100 * number))
        tokens.append(lease.token)
        with database.session() as session:
            jobs.release_expired(session, later(100 * number + 50), max_attempts=9)
    assert tokens == sorted(set(tokens))


def test_a_worker_thought_dead_writes_nothing_more(database: Database) -> None:
    job_id = queued_job(database)
    stale = claimed(database, job_id, JobState.QUEUED, seconds=10)
    with database.session() as session:
        jobs.release_expired(session, later(11), max_attempts=3)
    fresh = claimed(database, job_id, JobState.QUEUED, later(11))
    for attempt in (
        lambda session: jobs.advance(session, stale, JobState.PREPARING, later(12)),
        lambda session: jobs.heartbeat(session, stale, 30, later(12)),
        lambda session: jobs.guard(session, stale, intensity="from the dead"),
        lambda session: jobs.finish(session, stale, JobState.FAILED, "no", now=later(12)),
        lambda session: jobs.postpone(
            session, stale, JobState.QUEUED, "no", later(50), now=later(12)
        ),
    ):
        with pytest.raises(LostLease), database.session() as session:
            attempt(session)
    with database.session() as session:
        jobs.advance(session, fresh, JobState.PREPARING, later(12))
    assert state_of(database, job_id) is JobState.PREPARING


def test_reaching_a_resting_state_gives_the_lease_back(database: Database) -> None:
    job_id = queued_job(database)
    lease = brought_to(database, job_id, JobState.INFERRING)
    with database.session() as session:
        jobs.advance(session, lease, JobState.ENCODING, later(5), "3 findings")
    with pytest.raises(LostLease), database.session() as session:
        jobs.heartbeat(session, lease, 30, later(6))
    with database.reading() as session:
        assert [(due.job_id, due.state) for due in jobs.due(session, later(6))] == [
            (job_id, JobState.ENCODING)
        ]


def test_ends_and_steps_back_are_not_steps_on(sqlite_database: Database) -> None:
    job_id = queued_job(sqlite_database)
    lease = brought_to(sqlite_database, job_id, JobState.PREPARING)
    for wrong in (JobState.QUEUED, JobState.FAILED, JobState.DELIVERING):
        with pytest.raises(IllegalTransition), sqlite_database.session() as session:
            jobs.advance(session, lease, wrong, START)


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    job_id = queued_job(database)
    lease = claimed(database, job_id, JobState.QUEUED)
    with pytest.raises(ZeroDivisionError), database.session() as session:
        jobs.advance(session, lease, JobState.PREPARING, START)
        raise ZeroDivisionError
    assert state_of(database, job_id) is JobState.QUEUED


def test_waiting_on_changes_the_reason_only(database: Database) -> None:
    job_id = waiting_job(database)
    for number in range(3):
        lease = claimed(database, job_id, JobState.WAITING, later(10 * number))
        with database.session() as session:
            jobs.postpone(
                session,
                lease,
                JobState.WAITING,
                f"{number} s of quiet",
                later(10 * number + 5),
                now=later(10 * number),
            )
    assert stages(database, job_id) == [("received", 1, True), ("waiting", 1, False)]
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.wait_reason, job.attempts) == ("2 s of quiet", 0)
        assert job.next_attempt_at == later(25)


def test_a_postponed_step_starts_anew_and_counts(database: Database) -> None:
    job_id = queued_job(database)
    lease = brought_to(database, job_id, JobState.CONFIRMING)
    with database.session() as session:
        jobs.postpone(session, lease, JobState.DELIVERING, "the PACS is down", later(60), now=START)
    assert state_of(database, job_id) is JobState.DELIVERING
    assert stages(database, job_id)[-3:] == [
        ("delivering", 1, True),
        ("confirming", 1, True),
        ("delivering", 2, False),
    ]
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.wait_reason, job.attempts) == ("the PACS is down", 1)
        assert jobs.due(session, later(59)) == []
    with pytest.raises(IllegalTransition), database.session() as session:
        lease = claimed(database, job_id, JobState.DELIVERING, later(60))
        jobs.postpone(session, lease, JobState.QUEUED, "wrong", later(61), now=later(60))


def test_an_end_keeps_its_sentence(database: Database) -> None:
    job_id = queued_job(database)
    lease = brought_to(database, job_id, JobState.PREPARING)
    with database.session() as session:
        assert jobs.finish(session, lease, JobState.FAILED, "no pixel data", now=later(3))
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.error, job.finished_at, job.lease_owner) == ("no pixel data", later(3), None)
        assert job.failed_stage is JobState.PREPARING
        texts = session.scalars(select(JobEvent.text).where(JobEvent.job_id == job_id)).all()
    assert texts[-1] == "failed: no pixel data"
    assert stages(database, job_id)[-1] == ("failed", 1, True)


def test_an_operator_takes_the_job_from_its_worker(database: Database) -> None:
    job_id = queued_job(database)
    lease = brought_to(database, job_id, JobState.INFERRING)
    with database.session() as session:
        assert jobs.finish(session, job_id, JobState.CANCELLED, "by an operator", now=START)
        assert not jobs.finish(session, job_id, JobState.CANCELLED, "twice", now=START)
    with pytest.raises(LostLease), database.session() as session:
        jobs.advance(session, lease, JobState.ENCODING, START)


def test_the_heartbeat_keeps_the_lease(database: Database) -> None:
    job_id = queued_job(database)
    lease = claimed(database, job_id, JobState.QUEUED, seconds=10)
    with database.session() as session:
        jobs.heartbeat(session, lease, 10, later(9), progress=0.5)
    with database.session() as session:
        assert jobs.release_expired(session, later(15), max_attempts=3) == []
        assert jobs.release_expired(session, later(20), max_attempts=3) == [
            (job_id, JobState.QUEUED)
        ]


def race(url: str, job_ids: list[int], name: str, at: datetime) -> list[Lease]:
    database = Database(url)
    won = []
    for job_id in job_ids:
        with database.session() as session:
            lease = jobs.claim(session, job_id, name, JobState.QUEUED, 30, at)
        if lease is not None:
            won.append(lease)
    database.dispose()
    return won


def test_of_many_claims_one_wins_among_threads(database: Database) -> None:
    job_ids = [queued_job(database, f"1.2.{number}") for number in range(10)]
    won: list[Lease] = []
    start = threading.Barrier(6)

    def run(name: str) -> None:
        start.wait()
        won.extend(race(database.url, job_ids, name, START))

    threads = [threading.Thread(target=run, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lease.job_id for lease in won) == job_ids


def test_of_many_claims_one_wins_among_processes(database: Database) -> None:
    job_ids = [queued_job(database, f"1.2.{number}") for number in range(10)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        calls = [(database.url, job_ids, f"p{number}", START) for number in range(3)]
        won = [lease for leases in pool.starmap(race, calls) for lease in leases]
        pool.close()
        pool.join()
    assert sorted(lease.job_id for lease in won) == job_ids
