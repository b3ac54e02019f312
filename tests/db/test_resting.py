from __future__ import annotations

import pytest

from db import catalog, jobs
from db.jobs import JobState
from db.models import Job
from db.results import draw_identifiers
from db.session import Database
from tests.databases import START, later
from tests.db.arrivals import arrival, brought_to, claimed, queued_job, state_of, waiting_job


@pytest.mark.parametrize(
    ("state", "resting"),
    [
        (JobState.QUEUED, JobState.QUEUED),
        (JobState.PREPARING, JobState.QUEUED),
        (JobState.INFERRING, JobState.QUEUED),
        (JobState.ENCODING, JobState.ENCODING),
        (JobState.VALIDATING, JobState.ENCODING),
        (JobState.DELIVERING, JobState.DELIVERING),
        (JobState.CONFIRMING, JobState.DELIVERING),
    ],
)
def test_a_lost_worker_sends_the_job_back_to_its_resting_state(
    sqlite_database: Database, state: JobState, resting: JobState
) -> None:
    job_id = queued_job(sqlite_database)
    brought_to(sqlite_database, job_id, state)
    with sqlite_database.session() as session:
        assert jobs.release_expired(session, later(31), max_attempts=3) == [(job_id, resting)]
    with sqlite_database.reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.attempts, job.lost_leases) == (resting, 1, 1)


def test_a_node_that_starts_alone_need_not_wait_for_the_leases_of_the_dead(
    database: Database,
) -> None:
    held = queued_job(database)
    brought_to(database, held, JobState.INFERRING)
    with database.session() as session:
        assert jobs.forget_workers(session, START) == 1
        assert jobs.release_expired(session, START, max_attempts=3) == [(held, JobState.QUEUED)]
        assert jobs.forget_workers(session, START) == 0


def test_a_step_that_kills_its_workers_fails_with_a_sentence(database: Database) -> None:
    job_id = queued_job(database)
    for number in range(3):
        claimed(database, job_id, JobState.QUEUED, later(100 * number))
        with database.session() as session:
            jobs.release_expired(session, later(100 * number + 50), max_attempts=3)
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert job.state is JobState.FAILED
        assert "lost 3 times" in job.error
        assert "out of memory" in job.error


def test_postponing_does_not_count_towards_lost_workers(database: Database) -> None:
    job_id = queued_job(database)
    lease = brought_to(database, job_id, JobState.DELIVERING)
    for number in range(5):
        with database.session() as session:
            at = later(10 * number)
            jobs.postpone(session, lease, JobState.DELIVERING, "PACS down", at, now=at)
        lease = claimed(database, job_id, JobState.DELIVERING, later(10 * number))
    with database.session() as session:
        assert jobs.release_expired(session, later(1000), max_attempts=2) == [
            (job_id, JobState.DELIVERING)
        ]


def test_due_names_the_urgent_first_and_not_what_was_announced(database: Database) -> None:
    slow, urgent = queued_job(database, "1.2.1"), queued_job(database, "1.2.2")
    waiting = waiting_job(database, "1.2.4")
    with database.session() as session:
        session.get_one(Job, urgent).priority = 0
    with database.session() as session:
        assert [one.job_id for one in jobs.due(session, START)] == [urgent, slow, waiting]
        jobs.announced(session, [urgent, slow], START)
    with database.session() as session:
        assert [one.job_id for one in jobs.due(session, later(59))] == [waiting]
        assert [one.job_id for one in jobs.due(session, later(60))] == [urgent, slow, waiting]
        assert jobs.hurry(session, slow, START)
    with database.session() as session:
        assert [one.job_id for one in jobs.due(session, later(2))] == [slow, waiting]


def test_a_held_job_is_neither_due_nor_hurried(database: Database) -> None:
    job_id = queued_job(database)
    claimed(database, job_id, JobState.QUEUED)
    with database.session() as session:
        assert jobs.due(session, later(1)) == []
        assert not jobs.hurry(session, job_id, later(1))


def test_a_failed_job_reopens_at_the_step_that_failed(database: Database) -> None:
    job_id = queued_job(database)
    lease = brought_to(database, job_id, JobState.CONFIRMING)
    with database.session() as session:
        jobs.finish(session, lease, JobState.FAILED, "refused", now=START)
        assert jobs.reopen(session, job_id, "by an operator", now=later(5)) is JobState.DELIVERING
    claimed(database, job_id, JobState.DELIVERING, later(5))
    with database.session() as session:
        assert jobs.reopen(session, job_id, "again", now=later(6)) is None


def test_a_failed_job_does_not_reopen_beside_its_successor(database: Database) -> None:
    first = queued_job(database)
    with database.session() as session:
        jobs.finish(session, first, JobState.FAILED, "refused", now=START)
        key = session.get_one(Job, first).pairing_key
    other = waiting_job(database, "1.2.77")
    lease = claimed(database, other, JobState.WAITING)
    with database.session() as session:
        session.get_one(Job, other).pairing_key = key
        jobs.finish(session, first, JobState.FAILED, "refused", now=START)
        session.flush()
        assert jobs.reopen(session, first, "again", now=later(5)) is None
        jobs.heartbeat(session, lease, 30, START)


@pytest.mark.parametrize(
    "end", [JobState.CANCELLED, JobState.FAILED, JobState.NOT_APPLICABLE], ids=str
)
def test_a_study_that_ended_before_it_became_jobs_waits_again(
    database: Database, end: JobState
) -> None:
    job_id = waiting_job(database)
    with database.session() as session:
        jobs.finish(session, job_id, end, "no rule fits", now=START)
        assert jobs.reopen(session, job_id, "the rules were mended", now=START) is JobState.WAITING
    claimed(database, job_id, JobState.WAITING)


def test_a_study_waits_only_once(database: Database) -> None:
    first = waiting_job(database)
    with database.session() as session:
        jobs.finish(session, first, JobState.CANCELLED, "test images", now=START)
    with database.session() as session:
        catalog.register(session, arrival(9))
        assert jobs.reopen(session, first, "again", now=START) is None
    assert state_of(database, first) is JobState.CANCELLED


def test_from_the_start_means_new_uids(database: Database) -> None:
    job_id = queued_job(database)
    lease = brought_to(database, job_id, JobState.CONFIRMING)
    with database.session() as session:
        draw_identifiers(session, lease, {"uid": "1.2"})
        jobs.finish(session, lease, JobState.FAILED, "its file is gone", now=START)
        assert jobs.reopen(session, job_id, "x", now=START, from_start=True) is JobState.QUEUED
    lease = brought_to(database, job_id, JobState.ENCODING)
    with database.session() as session:
        assert draw_identifiers(session, lease, {"uid": "1.3"}) == {"uid": "1.3"}
