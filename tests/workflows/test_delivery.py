from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from db import jobs
from db.figures import causes, echoes
from db.jobs import JobState
from db.session import Database
from tests.workflows.nodes import Clock, destination, encoded_job, make_node, told
from tests.workflows.pacs import COMPREHENSIVE_3D_SR, ENHANCED_SR, SEG, Pacs
from workflows.delivery import deliver_job
from workflows.node import Node

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"
)

SEG_UID, MEASURED_UID, GROUNDED_UID = "2.25.11", "2.25.12", "2.25.13"
ALL = [SEG_UID, MEASURED_UID, GROUNDED_UID]


@pytest.fixture
def node(tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs) -> Node:
    return make_node(tmp_path, sqlite_database, clock, destinations=[destination(pacs)])


@pytest.fixture
def other() -> Iterator[Pacs]:
    pacs = Pacs()
    pacs.start()
    yield pacs
    pacs.stop()


def confirmed(job: dict[str, object]) -> list[bool]:
    results = job["results"]
    assert isinstance(results, list)
    return [line["confirmed"] for line in results]


def test_results_arrive_in_order_on_one_association_and_are_proven(
    tmp_path: Path, database: Database, clock: Clock, pacs: Pacs
) -> None:
    node = make_node(tmp_path, database, clock, destinations=[destination(pacs)])
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert (job["state"], confirmed(job)) == ("delivered", [True] * 3)
    assert job["wait_reason"] == "stored and proven at pacs (by C-FIND)"
    assert pacs.received == ALL
    assert len({association for association, _ in pacs.stored}) == 1
    for line in job["results"]:
        sent = dcmread(node.archive.absolute(line["file"]))
        kept = (node.archive.absolute(line["file"])).read_bytes()
        assert kept.endswith(pacs.data[str(sent.SOPInstanceUID)][0])
    assert [stage["stage"] for stage in job["stages"]][-3:] == [
        "delivering",
        "confirming",
        "delivered",
    ]


def test_a_delivery_shows_that_the_destination_is_there(node: Node, clock: Clock) -> None:
    with node.database.reading() as session:
        assert echoes(session) == {}
    deliver_job(node, encoded_job(node, ["pacs"]))
    with node.database.reading() as session:
        heard = echoes(session)["pacs"]
    assert heard.answers and heard.answered_at == clock()
    assert heard.sentence == "took 3 objects"


def test_a_second_message_does_no_harm(node: Node, pacs: Pacs) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    assert deliver_job(node, job_id) == []
    assert pacs.received == ALL


def test_one_destination_down_does_not_keep_the_other_waiting(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs, other: Pacs
) -> None:
    destinations = [destination(pacs), destination(other, "research")]
    node = make_node(tmp_path, sqlite_database, clock, destinations=destinations)
    pacs.stop()
    job_id = encoded_job(node, ["pacs", "research"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert (job["state"], job["attempts"]) == ("delivering", 1)
    assert "no connection" in job["wait_reason"]
    assert other.received == ALL
    deliver_job(node, job_id)  # too early: the pause is not over
    assert told(node, job_id)["attempts"] == 1
    pacs.start()
    clock.forward(60)
    deliver_job(node, job_id)
    assert told(node, job_id)["state"] == "delivered"
    assert (pacs.received, other.received) == (ALL, ALL)


def test_a_silent_destination_is_not_called_for_each_job(
    tmp_path: Path, database: Database, clock: Clock, pacs: Pacs, other: Pacs
) -> None:
    destinations = [destination(pacs), destination(other, "research")]
    node = make_node(tmp_path, database, clock, destinations=destinations)
    first = encoded_job(node, ["pacs"])
    second = encoded_job(node, ["pacs", "research"], study="1.2.4")
    pacs.stop()
    deliver_job(node, first)
    pacs.start()
    clock.forward(1)
    deliver_job(node, second)
    assert "not called" in str(told(node, second)["wait_reason"])
    assert (pacs.received, len(other.received)) == ([], 3)
    clock.forward(60)
    for job_id in (second, first):
        deliver_job(node, job_id)
        assert told(node, job_id)["state"] == "delivered"


def test_a_silent_destination_is_told_once_for_all_jobs_that_wait(
    node: Node, pacs: Pacs, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = [encoded_job(node, ["pacs"], study=f"1.2.{number}") for number in range(6)]
    for _ in range(2):
        caplog.clear()
        pacs.stop()
        deliver_job(node, waiting[0])
        with caplog.at_level(logging.DEBUG, "workflows"):
            for job_id in waiting[1:]:
                deliver_job(node, job_id)
        lines = [(one.levelname, one.getMessage()) for one in caplog.records]
        of_jobs = [level for level, line in lines if "not called" in line]
        assert of_jobs == ["DEBUG"] * len(waiting[1:])
        [level] = [level for level, line in lines if line.startswith("pacs gives no answer; jobs")]
        assert level == "WARNING"
        for job_id in waiting[1:]:
            assert "not called" in str(told(node, job_id)["wait_reason"])
        pacs.start()
        clock.forward(60)
        deliver_job(node, waiting.pop(0))
        clock.forward(60)


@pytest.mark.parametrize("how", ["A700", "drop"])
def test_an_attempt_goes_on_where_the_last_one_broke_off(
    node: Node, pacs: Pacs, clock: Clock, how: str
) -> None:
    if how == "A700":
        pacs.statuses[MEASURED_UID] = [0xA700]
    else:
        pacs.drops.add(MEASURED_UID)
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "delivering"
    assert confirmed(job) == [True, False, False]
    clock.forward(60)
    deliver_job(node, job_id)
    assert told(node, job_id)["state"] == "delivered"
    assert pacs.received == ALL


def test_a_refused_report_fails_the_job_and_the_rest_is_there(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    pacs = Pacs(classes=(SEG, ENHANCED_SR))
    pacs.start()
    node = make_node(tmp_path, sqlite_database, clock, destinations=[destination(pacs)])
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "failed"
    assert "does not take Comprehensive 3D SR" in job["error"]
    assert "allow this class there for UNIBIOMED, or take" in job["error"]
    assert (
        "take its kind out of objects of pacs in node.yaml and reload, then retry the job"
        in job["error"]
    )
    assert confirmed(job) == [True, False, True]
    pacs.stop()
    # The administrator allows the class and retries the job.
    pacs.classes = (SEG, COMPREHENSIVE_3D_SR, ENHANCED_SR)
    pacs.start()
    with node.database.session() as session:
        assert jobs.reopen(session, job_id, "retried", now=clock()) is JobState.DELIVERING
    deliver_job(node, job_id)
    pacs.stop()
    assert told(node, job_id)["state"] == "delivered"
    assert pacs.received == [SEG_UID, GROUNDED_UID, MEASURED_UID]


def test_a_kind_that_is_no_longer_to_be_sent_holds_up_no_job(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    """Neither one that failed over it and is retried, nor one that waits for its next try."""
    pacs = Pacs(classes=(SEG, ENHANCED_SR))
    pacs.start()
    before = make_node(tmp_path, database, clock, destinations=[destination(pacs)])
    failed, waits = encoded_job(before, ["pacs"]), encoded_job(before, ["pacs"], study="1.2.4")
    deliver_job(before, failed)
    pacs.statuses["2.25.21"] = [0xA700]
    deliver_job(before, waits)
    states = [told(before, job)["state"] for job in (failed, waits)]
    assert states == ["failed", "delivering"]
    less = destination(pacs, objects=["segmentation", "grounded_report"])
    node = make_node(tmp_path, database, clock, destinations=[less])
    clock.forward(60)
    with database.session() as session:
        assert jobs.reopen(session, failed, "retried", now=clock()) is JobState.DELIVERING
    for job_id in (failed, waits):
        deliver_job(node, job_id)
        job = told(node, job_id)
        assert job["state"] == "delivered", job["error"]
        text = "pacs gets no measurement report: its objects in node.yaml list none now"
        assert [event["text"] for event in job["events"]].count(text) == 1
    pacs.stop()
    assert pacs.received == [SEG_UID, GROUNDED_UID, "2.25.21", "2.25.23"]


def test_who_takes_no_kind_that_the_job_has_is_not_said_to_hold_them(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    pacs = Pacs()
    pacs.start()
    none = destination(pacs, objects=["secondary_capture"])
    node = make_node(tmp_path, sqlite_database, clock, destinations=[none])
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    pacs.stop()
    job = told(node, job_id)
    assert job["state"] == "delivered" and pacs.received == []
    assert "no destination takes any of it (objects in node.yaml)" in job["wait_reason"]


def test_who_takes_none_of_the_classes_is_to_be_told_what_to_allow(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    pacs = Pacs(classes=("1.2.840.10008.5.1.4.1.1.7",))
    pacs.start()
    node = make_node(tmp_path, sqlite_database, clock, destinations=[destination(pacs)])
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    pacs.stop()
    job = told(node, job_id)
    assert job["state"] == "failed"
    assert "takes none of the offered classes" in job["error"]
    assert "allow them there for UNIBIOMED, then retry the job" in job["error"]


def test_reports_do_not_go_without_their_segmentation(node: Node, pacs: Pacs) -> None:
    pacs.statuses[SEG_UID] = [0xC000]
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "failed"
    why, reports = job["error"].split("; ")
    assert "answered C000" in why
    assert "its log may say what it objects to" in why and "then retry the job" in why
    assert reports == "the reports are not sent to pacs without the segmentation"
    assert pacs.received == []
    # Another job of the same fate is the same dead letter.
    pacs.statuses["2.25.21"] = [0xC000]
    other = encoded_job(node, ["pacs"], study="1.2.4")
    deliver_job(node, other)
    with node.database.reading() as session:
        [cause] = causes(session)
    assert sorted(cause.jobs) == [job_id, other]


def test_what_the_pacs_does_not_know_is_sent_again(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs
) -> None:
    impatient = [destination(pacs, confirm_seconds=0.2)]
    node = make_node(tmp_path, sqlite_database, clock, destinations=impatient)
    pacs.forgets[GROUNDED_UID] = 1000
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert (job["state"], confirmed(job)) == ("delivering", [True, True, False])
    assert "its C-FIND does not know the object" in job["wait_reason"]
    # Asked again, it is not sent again; only after two days it counts as lost there.
    clock.forward(3600)
    deliver_job(node, job_id)
    assert pacs.received == ALL
    clock.forward(48 * 3600)
    for _ in range(2):
        deliver_job(node, job_id)
        pacs.forgets.clear()
        clock.forward(3600)
    assert told(node, job_id)["state"] == "delivered"
    assert pacs.received == [*ALL, GROUNDED_UID]
    first, second = pacs.data[GROUNDED_UID]
    assert first == second


def test_a_pacs_that_indexes_late_is_asked_again(node: Node, pacs: Pacs) -> None:
    pacs.forgets[SEG_UID] = 3
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    assert told(node, job_id)["state"] == "delivered"
    assert pacs.received == ALL


def test_a_pacs_that_cannot_be_asked_is_not_sent_twice(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    pacs = Pacs(finds=False)
    pacs.start()
    node = make_node(tmp_path, sqlite_database, clock, destinations=[destination(pacs)])
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "failed"
    assert "set confirm: none" in job["error"]
    with node.database.session() as session:
        jobs.reopen(session, job_id, "retried", now=clock())
    lenient = make_node(
        tmp_path, sqlite_database, clock, destinations=[destination(pacs, confirm="none")]
    )
    deliver_job(lenient, job_id)
    pacs.stop()
    job = told(node, job_id)
    assert (job["state"], pacs.received) == ("delivered", ALL)
    assert job["wait_reason"] == "stored and proven at pacs (by its C-STORE status alone)"


def test_without_destinations_the_results_stay_in_the_nodes_archive(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    node = make_node(tmp_path, sqlite_database, clock)
    job_id = encoded_job(node, [])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "delivered"
    assert job["wait_reason"] == "kept in the node's own archive; no destination is configured"


@pytest.mark.parametrize("mishap", ["changed", "missing"])
def test_other_bytes_than_were_validated_are_never_sent(
    node: Node, pacs: Pacs, mishap: str
) -> None:
    job_id = encoded_job(node, ["pacs"])
    path = node.archive.absolute(told(node, job_id)["results"][1]["file"])
    if mishap == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"y")
    else:
        path.unlink()
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "failed"
    assert "restore it from a backup" in job["error"].lower()
    assert pacs.received == []


def test_a_destination_that_was_removed_is_named(node: Node, pacs: Pacs) -> None:
    job_id = encoded_job(node, ["pacs", "gone"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "failed"
    assert "'gone' is not in node.yaml any more" in job["error"]
    assert confirmed(job)[0::2] == [True, True, True]


def test_a_cancelled_job_stops_sending(node: Node, pacs: Pacs, clock: Clock) -> None:
    job_id = encoded_job(node, ["pacs"])

    def cancel(uid: str) -> None:
        with node.database.session() as session:
            jobs.finish(session, job_id, JobState.CANCELLED, "by an operator", now=clock())

    pacs.on_store = cancel
    deliver_job(node, job_id)
    assert told(node, job_id)["state"] == "cancelled"
    assert pacs.received == [SEG_UID]


def test_it_gives_up_after_the_last_attempt(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs
) -> None:
    pacs.stop()
    node = make_node(
        tmp_path,
        sqlite_database,
        clock,
        destinations=[destination(pacs)],
        retries={"fast_attempts": 2, "fast_seconds": 0.01, "attempts": 3},
    )
    job_id = encoded_job(node, ["pacs"])
    for _ in range(3):
        deliver_job(node, job_id)
        clock.forward(3600)
    job = told(node, job_id)
    assert job["state"] == "failed"
    assert "given up after 3 attempts" in job["error"]
    assert {line["attempts"] for line in job["results"]} == {3}


def rejecting(pacs: Pacs, *, rejects: bool) -> None:
    """Let a PACS know nobody, as while it starts, or everybody."""
    pacs.stop()
    pacs.knows = ("NOBODY",) if rejects else ()
    pacs.start()


def test_a_pacs_that_rejects_us_while_it_restarts_gets_the_results_afterwards(
    tmp_path: Path, database: Database, clock: Clock, pacs: Pacs
) -> None:
    node = make_node(tmp_path, database, clock, destinations=[destination(pacs)])
    rejecting(pacs, rejects=True)
    job_id, other = encoded_job(node, ["pacs"]), encoded_job(node, ["pacs"], study="1.2.4")
    for one in (job_id, other):
        deliver_job(node, one)
        job = told(node, one)
        assert job["state"] == "delivering"
        assert "does not know our AE title UNIBIOMED; add it" in job["wait_reason"]
        assert "while it restarts" in job["wait_reason"]
    rejecting(pacs, rejects=False)
    clock.forward(60)
    deliver_job(node, job_id)
    assert told(node, job_id)["state"] == "delivered"


def test_a_pacs_that_goes_on_rejecting_us_fails_the_job_before_long(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs
) -> None:
    settings = {"fast_attempts": 1, "rejected_attempts": 3}
    node = make_node(
        tmp_path, sqlite_database, clock, destinations=[destination(pacs)], retries=settings
    )
    pacs.stop()
    job_id = encoded_job(node, ["pacs"])
    for _ in range(5):  # a PACS that was away for long uses up nothing of this
        deliver_job(node, job_id)
        clock.forward(3600)
    rejecting(pacs, rejects=True)
    states = []
    for _ in range(3):
        deliver_job(node, job_id)
        clock.forward(3600)
        states.append(told(node, job_id)["state"])
    assert states == ["delivering", "delivering", "failed"]
    assert "given up after 8 attempts" in told(node, job_id)["error"]
    assert pacs.received == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"hides_series": True}, "AIR-42: a query does not find the object"),
        ({"renames": "SR 2"}, "AIR-42: the query answers another SeriesDescription"),
    ],
)
def test_what_queries_answer_for_the_results_is_looked_at(
    node: Node, pacs: Pacs, changes: dict[str, Any], words: str | None
) -> None:
    for name, value in changes.items():
        setattr(pacs, name, value)
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "delivered", "the objects are there all the same"
    said = [event["text"] for event in job["events"] if "AIR-42" in event["text"]]
    assert len(said) == (3 if words else 0)
    assert all(words in text for text in said if words)
