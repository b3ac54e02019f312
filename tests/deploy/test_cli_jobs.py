"""People give jobs another chance, or end them, from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from db import catalog, jobs
from db.jobs import JobState
from db.models import Job
from db.session import Database
from deploy.cli import app
from tests.databases import START
from tests.db.arrivals import arrival, claimed, queued_job, state_of, waiting_job
from workflows.home import Home


def call(home: Path, *arguments: str) -> tuple[int, str]:
    """Run a command; return exit code and everything it said."""
    result = CliRunner().invoke(app, [*arguments, "--home", str(home)])
    return result.exit_code, result.output


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = Home(tmp_path / "home")
    home.make_folders()
    home.write_defaults()
    return home.root


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{home / 'database.sqlite'}")
    database.upgrade()
    yield database
    database.dispose()


def failed(database: Database, study: str) -> int:
    job_id = queued_job(database, study)
    with database.session() as session:
        jobs.finish(session, job_id, JobState.FAILED, "the PACS refuses us", now=START)
    return job_id


def test_all_failed_jobs_go_on_after_the_pacs_was_mended(home: Path, database: Database) -> None:
    first, second = failed(database, "1.2.3"), failed(database, "1.2.4")
    other = waiting_job(database, "1.2.5")
    code, said = call(home, "jobs", "failures")
    assert code == 0
    assert "2 jobs in" in said and "the PACS refuses us" in said
    assert f"unibiomed-node jobs retry {second} {first}" in said
    code, said = call(home, "jobs", "retry", "--failed")
    assert (code, said) == (0, f"Job {first} goes on: queued.\nJob {second} goes on: queued.\n")
    assert state_of(database, other) is JobState.WAITING
    assert call(home, "jobs", "failures") == (0, "No job has failed.\n")


def test_a_job_that_waits_is_hurried_and_one_that_is_worked_on_is_left(
    home: Path, database: Database
) -> None:
    job_id = queued_job(database)
    assert call(home, "jobs", "retry", str(job_id))[0] == 0
    claimed(database, job_id, JobState.QUEUED, START.replace(year=START.year + 50))
    code, said = call(home, "jobs", "retry", str(job_id), "999")
    assert code == 1
    assert f"Job {job_id} is left as it is: a worker has it (queued)." in said
    assert "There is no job 999 any more." in said


def test_a_cancelled_job_is_taken_from_its_worker(home: Path, database: Database) -> None:
    job_id = queued_job(database)
    lease = claimed(database, job_id, JobState.QUEUED)
    assert call(home, "jobs", "cancel", str(job_id))[0] == 0
    assert state_of(database, job_id) is JobState.CANCELLED
    with pytest.raises(jobs.LostLease), database.session() as session:
        jobs.heartbeat(session, lease, 60, START)
    code, said = call(home, "jobs", "cancel", str(job_id))
    assert code == 1 and "cancelled" in said


def test_a_job_comes_before_others(home: Path, database: Database) -> None:
    job_id = queued_job(database)
    assert call(home, "jobs", "prioritise", str(job_id)) == (0, f"Job {job_id} is stat now.\n")
    with database.reading() as session:
        assert session.get_one(Job, job_id).priority == 0
    code, said = call(home, "jobs", "prioritise", str(job_id), "--to", "soon")
    assert code == 2 and "routine" in said


def test_what_cannot_be_done_is_said_in_a_sentence(home: Path) -> None:
    said = (2, "Say which jobs: their numbers, or --failed.\n")
    assert call(home, "jobs", "retry") == said
    code, text = call(home, "jobs", "cancel", "1")
    assert code == 1
    assert "has not run yet" in text
    code, text = call(home / "nowhere", "jobs", "retry", "1")
    assert code == 1
    assert "is no node's home" in text


def test_a_job_tells_of_objects_that_came_again_with_other_bytes(
    home: Path, database: Database
) -> None:
    job_id = waiting_job(database)
    assert "conflicts" not in call(home, "job", str(job_id))[1]
    with database.session() as session:
        catalog.register(session, arrival(1, sha256="0" * 64, path="beside~0.dcm", beside=True))
    told = " ".join(call(home, "job", str(job_id))[1].split())
    assert "1 object of this study came again under the same SOP Instance UID" in told
    assert '"conflicts": 1' in call(home, "job", str(job_id), "--json")[1]


def test_withdrawing_needs_a_reason_and_something_that_was_sent(
    home: Path, database: Database
) -> None:
    code, said = call(home, "jobs", "withdraw", "1", "--reason", "mood", "--because", "wrong side")
    assert code == 2 and "quality, safety, retention" in said
    code, said = call(home, "jobs", "withdraw", "77", "--because", "wrong side")
    assert code == 1 and "There is no job 77." in said
    assert call(home, "jobs", "withdraw", "1", "--because", " ")[0] == 2
    number = failed(database, "1.2.3")
    code, said = call(home, "jobs", "withdraw", str(number), "--because", "wrong side")
    assert code == 1 and "has no results" in said
