"""Task Performer: claim, have done, tell, complete, give up; at a manager by real HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from db.catalog import instances_of, study_by_uid
from db.models import Claim, WorklistContact
from db.performing import latest_claims
from db.session import Database
from dicom_node.services.performer_words import input_address
from tests.factories import write_ct_series
from tests.factories.scripted_web import says, scripted_web
from tests.workflows.managers import BEARER, Manager, manager_of, settings_for
from tests.workflows.nodes import Clock, destination, encoded_job, make_node, told
from tests.workflows.pacs import Pacs
from tests.workflows.whole_node import ct_volume, take_in
from tests.workflows.whole_node import make_node as make_whole_node
from workflows.delivery import deliver_job
from workflows.node import Node
from workflows.performing import perform_worklists

ITEM = "2.25.1"
STUDY = "1.2.3"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    node = make_whole_node(tmp_path / "manager")
    paths = write_ct_series(tmp_path / "ct", ct_volume())
    take_in(node, paths)
    with manager_of(node) as running:
        yield running
    node.database.dispose()


def performer(
    tmp_path: Path, database: Database, clock: Clock, manager: Manager, **changes: Any
) -> Node:
    return make_node(
        tmp_path / "performer",
        database,
        clock,
        worklists=[settings_for(manager.url, **changes)],
        destinations=changes.pop("destinations", []),
    )


def turn(node: Node, clock: Clock) -> None:
    clock.forward(3600)
    perform_worklists(node)


def claim_of(node: Node, uid: str = ITEM) -> Claim | None:
    with node.database.reading() as session:
        return next((one for one in latest_claims(session, 10) if one.workitem_uid == uid), None)


@pytest.mark.ihe("AIW-I", "Task Performer", "RAD-81", "RAD-82", "RAD-83", "RAD-84", "RAD-85")
def test_from_claim_to_completion(
    tmp_path: Path, database: Database, clock: Clock, pacs: Pacs, manager: Manager
) -> None:
    node = make_node(
        tmp_path / "performer", database, clock,
        worklists=[settings_for(manager.url, fetch=False)], destinations=[destination(pacs)],
    )  # fmt: skip
    manager.create(ITEM, STUDY)
    manager.create("2.25.2", STUDY, station="ANOTHER")
    turn(node, clock)
    assert manager.state(ITEM) == "IN PROGRESS" and manager.state("2.25.2") == "SCHEDULED"
    claim = claim_of(node)
    assert claim is not None and claim.state == "performing"
    assert "00081195" not in manager.get(ITEM), "the Transaction UID is nobody else's"
    # Without it nobody changes the workitem, and it cannot be claimed again.
    for transaction, state in (("1.9.9", "COMPLETED"), ("1.9.9", "IN PROGRESS")):
        body = [{
            "00741000": {"vr": "CS", "Value": [state]},
            "00081195": {"vr": "UI", "Value": [transaction]},
        }]  # fmt: skip
        taken = httpx.put(
            f"{manager.url}/workitems/{ITEM}/state", json=body, headers=BEARER, timeout=60
        )
        assert taken.status_code == 409, taken.text
    job_id = encoded_job(node, ["pacs"])
    turn(node, clock)
    [progress] = manager.get(ITEM)["00741002"]["Value"]
    assert 50 < progress["00741004"]["Value"][0] < 100
    deliver_job(node, job_id)
    turn(node, clock)
    done = manager.get(ITEM)
    assert done["00741000"]["Value"] == ["COMPLETED"]
    [performed] = done["00741216"]["Value"]
    assert performed["00404028"]["Value"][0]["00080100"]["Value"] == ["UNIBIOMED"]
    assert performed["00404019"]["Value"][0]["00080100"]["Value"] == ["110003"]
    outputs = performed["00404033"]["Value"]
    named = {
        one["00081155"]["Value"][0] for output in outputs for one in output["00081199"]["Value"]
    }
    assert named == {line["sop_instance_uid"] for line in told(node, job_id)["results"]}
    assert outputs[0]["0040E021"]["Value"][0]["00080054"]["Value"] == ["UNIBIOMED"]
    claim = claim_of(node)
    assert claim is not None and (claim.state, claim.outcome) == ("ended", "COMPLETED")


@pytest.mark.ihe("AIW-I", "Task Performer", "RAD-107")
def test_images_are_fetched_from_the_manager(
    tmp_path: Path, sqlite_database: Database, clock: Clock, manager: Manager
) -> None:
    study = httpx.get(f"{manager.url}/studies", headers=BEARER, timeout=60).json()[0]["0020000D"][
        "Value"
    ][0]
    node = performer(tmp_path, sqlite_database, clock, manager)
    manager.create(ITEM, study)
    turn(node, clock)
    turn(node, clock)
    with sqlite_database.reading() as session:
        held = study_by_uid(session, study)
        assert held is not None
        assert len(instances_of(session, held.id)) == 8
    [progress] = manager.get(ITEM)["00741002"]["Value"]
    assert "8 images were fetched" in progress["00741006"]["Value"][0]


def test_a_wish_to_cancel_ends_the_jobs(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs, manager: Manager
) -> None:
    node = performer(tmp_path, sqlite_database, clock, manager, fetch=False)
    manager.create(ITEM, STUDY)
    turn(node, clock)
    job_id = encoded_job(node, [])
    manager.cancel(ITEM)
    assert manager.state(ITEM) == "IN PROGRESS", "its performer decides"
    turn(node, clock)
    assert told(node, job_id)["state"] == "cancelled"
    item = manager.get(ITEM)
    assert item["00741000"]["Value"] == ["CANCELED"]
    assert "performers" in item["00741002"]["Value"][0]["00741238"]["Value"][0]


def test_without_images_it_is_given_up_in_the_end(
    tmp_path: Path, sqlite_database: Database, clock: Clock, manager: Manager
) -> None:
    node = performer(tmp_path, sqlite_database, clock, manager, wait_hours=3.0)
    manager.create(ITEM, "1.2.3.4.5.6")
    turn(node, clock)
    turn(node, clock)
    [progress] = manager.get(ITEM)["00741002"]["Value"]
    assert "cannot be fetched" in progress["00741006"]["Value"][0]
    assert manager.state(ITEM) == "IN PROGRESS"
    for _ in range(2):
        turn(node, clock)
    item = manager.get(ITEM)
    assert item["00741000"]["Value"] == ["CANCELED"]
    reason = item["00741002"]["Value"][0]["00741238"]["Value"][0]
    assert "within 3 h" in reason and "has not arrived" in reason


@pytest.mark.parametrize("steps", ["claim", "end"])
def test_a_lost_answer_leaves_nothing_hanging(
    tmp_path: Path, sqlite_database: Database, clock: Clock, manager: Manager, pacs: Pacs,
    steps: str,
) -> None:  # fmt: skip
    node = make_node(
        tmp_path / "performer", sqlite_database, clock,
        worklists=[settings_for(manager.url, fetch=False)], destinations=[destination(pacs)],
    )  # fmt: skip
    manager.create(ITEM, STUDY)
    manager.worklist.losses = 1 if steps == "claim" else 0
    turn(node, clock)
    claim = claim_of(node)
    assert claim is not None
    assert claim.state == ("claiming" if steps == "claim" else "performing")
    assert manager.state(ITEM) == "IN PROGRESS"
    turn(node, clock)
    claim = claim_of(node)
    assert claim is not None and claim.state == "performing"
    deliver_job(node, encoded_job(node, ["pacs"]))
    manager.worklist.losses = 1 if steps == "end" else 0
    turn(node, clock)
    assert manager.state(ITEM) == "COMPLETED"
    turn(node, clock)
    claim = claim_of(node)
    assert claim is not None and (claim.state, claim.outcome) in (
        ("ended", "COMPLETED"), ("ended", "taken away"),
    )  # fmt: skip


def test_who_is_slower_leaves_it_to_the_other(
    tmp_path: Path, sqlite_database: Database, clock: Clock, manager: Manager
) -> None:
    node = performer(tmp_path, sqlite_database, clock, manager, fetch=False)
    manager.create(ITEM, STUDY)
    assert manager.worklist.change_state(ITEM, "IN PROGRESS", "1.2.99", "another")
    turn(node, clock)
    assert claim_of(node) is None
    # And one that is not addressed to it, it does not even see.
    manager.create("2.25.3", STUDY, station="ELSEWHERE")
    turn(node, clock)
    assert claim_of(node, "2.25.3") is None


def test_a_manager_that_is_busy_or_away_is_asked_ever_more_seldom(
    tmp_path: Path, sqlite_database: Database, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with scripted_web() as scripted:
        scripted.answers += [says(503, Retry_After="77")] * 3
        node = make_node(
            tmp_path, sqlite_database, clock,
            worklists=[{"name": "manager", "url": scripted.url, "poll_seconds": 10.0}],
        )  # fmt: skip
        waits = []
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                turn(node, clock)
                with sqlite_database.reading() as session:
                    contact = session.get_one(WorklistContact, "manager")
                    waits.append((contact.next_at - clock()).total_seconds())
        assert waits[0] == 77 and waits[2] >= 77
        assert contact.failures == 3 and "503" in contact.sentence
        assert len(caplog.records) == 1, "one line, not one for each try"
    perform_worklists(node)
    with sqlite_database.reading() as session:
        assert session.get_one(WorklistContact, "manager").failures == 3, "it is not due yet"


def test_a_workitem_sends_us_and_our_credentials_nowhere_else() -> None:
    def address(url: str) -> str:
        place = {"0040E025": {"Value": [{"00081190": {"vr": "UR", "Value": [url]}}]}}
        item = {"0020000D": {"vr": "UI", "Value": ["1.2"]}, **place}
        return input_address({"00404021": {"vr": "SQ", "Value": [item]}}, "https://here/rs")

    assert address("https://here/rs/studies/1.2/series/1.3") == "/studies/1.2/series/1.3"
    for url in (
        "https://evil/rs/studies/1.2", "https://here/rs/../admin", "https://here/rsx/studies/1",
        "https://here/rs/studies/../../admin", "https://here/rs/studies/1?x=1", "", "file:///etc",
    ):  # fmt: skip
        assert address(url) == "/studies/1.2"
