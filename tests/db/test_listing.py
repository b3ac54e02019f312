from __future__ import annotations

from db import jobs
from db.jobs import JobState
from db.reports import intake_report, job_list
from db.session import Database
from tests.databases import START
from tests.db.arrivals import queued_job, waiting_job


def ids(page: jobs.JobPage) -> list[int]:
    return [job["id"] for job in page.jobs]


def test_pages_go_by_key(database: Database) -> None:
    made = [queued_job(database, f"1.{number}") for number in range(1, 6)]
    with database.reading() as session:
        first = jobs.list_jobs(session, limit=2)
        second = jobs.list_jobs(session, limit=2, before=first.next_before)
        last = jobs.list_jobs(session, limit=2, before=second.next_before)
        assert ids(first) + ids(second) + ids(last) == made[::-1]
        assert last.next_before is None
        assert [job["id"] for job in job_list(session, limit=3)] == made[:1:-1]
        assert len(job_list(session, limit=None)) == 5


def test_filters(database: Database) -> None:
    queued, waiting = queued_job(database, "1.1"), waiting_job(database, "1.2")
    with database.session() as session:
        jobs.finish(session, queued, JobState.FAILED, "no", now=START)
    with database.reading() as session:
        assert ids(jobs.list_jobs(session, states=[JobState.FAILED])) == [queued]
        assert ids(jobs.list_jobs(session, modality="CT")) == [queued]
        assert ids(jobs.list_jobs(session, rule="default")) == [queued]
        assert ids(jobs.list_jobs(session, search="1.2")) == [waiting]
        assert ids(jobs.list_jobs(session, study_instance_uid="1.2")) == [waiting]
        assert ids(jobs.list_jobs(session, search="P1")) == [waiting, queued]
        assert ids(jobs.list_jobs(session, search="%")) == []


def test_the_intake_report_counts(database: Database) -> None:
    waiting_job(database)
    with database.reading() as session:
        report = intake_report(session)
    assert (report["studies"], report["instances"], report["conflicts"]) == (1, 3, 0)
