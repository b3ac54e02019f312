"""PACS that are down, slow, full or rude, by a simulated clock: each result arrives once, whole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom.events import Event

from db.models import Job
from db.session import Database
from dicom_node.services.commitment import Reference, Report
from tests.workflows.nodes import Clock, destination, encoded_job, make_node, told
from tests.workflows.pacs import Pacs
from workflows.committing import NodeLedger
from workflows.delivery import deliver_job
from workflows.node import Node

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"
)
DAY = 86400.0


class RudePacs(Pacs):
    """Answers A700 to every third object, or aborts each association after two."""

    refuses_third = False
    drops_after_second = False

    def _store(self, event: Event) -> int:
        asked = getattr(self, "asked", 0) + 1
        self.asked = asked
        if self.refuses_third and asked % 3 == 0:
            return 0xA700
        on_this = [number for number, _ in self.stored].count(self._associations)
        if self.drops_after_second and on_this >= 2:
            event.assoc.abort()
            return 0x0000
        return super()._store(event)


def make(tmp_path: Path, database: Database, clock: Clock, pacs: Pacs) -> Node:
    there = destination(pacs, confirm_seconds=0.05)
    retries = {"fast_attempts": 2, "fast_seconds": 0.01, "first_seconds": 10.0}
    return make_node(tmp_path, database, clock, destinations=[there], retries=retries)


def live(node: Node, job_id: int, clock: Clock, until: float) -> float:
    """Do what is due until the job ends, or so many seconds are over; returns the seconds."""
    begun = clock.at
    while (passed := (clock.at - begun).total_seconds()) < until:
        deliver_job(node, job_id)
        with node.database.reading() as session:
            job = session.get_one(Job, job_id)
            if job.finished_at is not None:
                return passed
            clock.at = max(clock.at, job.next_attempt_at)
    return until


def assert_arrived_once(node: Node, pacs: Pacs, jobs: list[int]) -> None:
    """Hold that all results of the jobs are there, each once, as the bytes of their files."""
    files: dict[str, bytes] = {}
    for job_id in jobs:
        job = told(node, job_id)
        assert job["state"] == "delivered", job["wait_reason"]
        results: list[dict[str, Any]] = job["results"]
        for line in results:
            files[line["sop_instance_uid"]] = node.archive.absolute(line["file"]).read_bytes()
    assert sorted(pacs.received) == sorted(files)
    for uid, [data] in pacs.data.items():
        assert files[uid].endswith(data)


def story(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what the log says."""
    return [one.getMessage() for one in caplog.records if one.name.startswith("workflows")]


def events_of(node: Node, job_id: int) -> list[str]:
    """Give what the job's page says."""
    return [str(one["text"]) for one in told(node, job_id)["events"]]


def assert_few(*stories: list[str]) -> None:
    """Hold that a hundred tries with one outcome are told in a few lines each."""
    for lines in stories:
        assert len(lines) <= 12, "\n".join(lines)
        assert any("(try" in line or "confirming:" in line for line in lines)


def test_down_for_an_hour(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "workflows")
    node = make(tmp_path, sqlite_database, clock, pacs)
    pacs.stop()
    job_id = encoded_job(node, ["pacs"])
    assert live(node, job_id, clock, 3600) == 3600
    assert told(node, job_id)["state"] == "delivering"
    pacs.start()
    # Back within the longest pause and its random part.
    assert live(node, job_id, clock, 3600) <= 900 * 1.5
    assert_arrived_once(node, pacs, [job_id])
    lines = story(caplog)
    assert len(lines) <= 6, "\n".join(lines)
    assert "no connection" in lines[0]
    assert "(try 8)" in lines[-2]
    assert "took" in lines[-1]


def test_one_that_files_what_it_took_after_a_day(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "workflows")
    node = make(tmp_path, sqlite_database, clock, pacs)
    job_id = encoded_job(node, ["pacs"])
    for line in told(node, job_id)["results"]:
        pacs.forgets[line["sop_instance_uid"]] = 1_000_000
    assert live(node, job_id, clock, DAY) == DAY
    job = told(node, job_id)
    assert job["state"] == "delivering"
    assert "does not know the object yet" in job["wait_reason"]
    pacs.forgets.clear()
    live(node, job_id, clock, 3600)
    assert_arrived_once(node, pacs, [job_id])
    assert_few(story(caplog), events_of(node, job_id))


def test_one_that_commits_after_a_day(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("workflows.committing._SAME_ASSOCIATION_SECONDS", 0.05)
    caplog.set_level(logging.INFO, "workflows")
    asked: list[Dataset] = []

    def taken(_: object, information: Dataset) -> int:
        asked.append(information)
        return 0

    pacs.stop()
    pacs.commits = taken
    pacs.start()
    there = destination(pacs, confirm="commitment")
    node = make_node(tmp_path, sqlite_database, clock, destinations=[there])
    job_id = encoded_job(node, ["pacs"])
    assert live(node, job_id, clock, DAY - 60) == DAY - 60
    [question] = asked
    uids = [str(one.ReferencedSOPInstanceUID) for one in question.ReferencedSOPSequence]
    # Another process takes the report, after a restart.
    later = Database(node.database.url)
    report = Report(question.TransactionUID, tuple(Reference("1.2", uid) for uid in uids))
    assert NodeLedger(later, lambda: node.settings, node.now).reported("PACS", report)
    later.dispose()
    assert live(node, job_id, clock, 3600) == 0, "looked at as soon as it comes"
    assert_arrived_once(node, pacs, [job_id])
    assert_few(story(caplog), events_of(node, job_id))


@pytest.mark.parametrize("how", ["refuses_third", "drops_after_second"])
def test_one_that_is_rude(
    tmp_path: Path, sqlite_database: Database, clock: Clock, how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "workflows")
    pacs = RudePacs()
    setattr(pacs, how, True)
    pacs.start()
    node = make(tmp_path, sqlite_database, clock, pacs)
    jobs = [encoded_job(node, ["pacs"], study=f"1.2.{number}") for number in range(4, 8)]
    for job_id in jobs:
        live(node, job_id, clock, DAY)
    pacs.stop()
    assert_arrived_once(node, pacs, jobs)
    lines = story(caplog)
    assert len(lines) <= 3 * len(jobs), "\n".join(lines)
    words = {"refuses_third": "answered A700", "drops_after_second": "ended the association"}
    assert any(words[how] in line for line in lines), "\n".join(lines)
