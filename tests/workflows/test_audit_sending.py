"""The audit trail on its way to collectors: nothing lost, nothing unsaid."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import delete, update

from db.audit import audit_page, record
from db.audit_positions import CollectorState, claim, collector_states
from db.models_access import AuditRecord
from db.session import Database
from deploy.demo_pacs import free_port
from tests.databases import *  # noqa: F403
from tests.factories.syslog_collector import Collector, Message
from tests.workflows.nodes import Clock, make_node
from workflows.audit_sending import send_audit
from workflows.node import Node


@pytest.fixture
def clock() -> Clock:
    return Clock()


def node_for(folder: Path, database: Database, clock: Clock, port: int, **more: Any) -> Node:
    entry = {"name": "repository", "host": "127.0.0.1", "port": port, "transport": "tcp", **more}
    return make_node(folder, database, clock, audit=[entry])


def act(node: Node, *actions: str) -> None:
    for action in actions:
        with node.database.session() as session:
            record(session, at=node.now(), account="Ada", action=action)


def state_of(node: Node) -> CollectorState:
    with node.database.reading() as session:
        return collector_states(session, ["repository"])[0]


def actions(messages: list[Message]) -> list[str]:
    """Return what was done, in order."""
    return [
        kind.attrib["csd-code"]
        for one in messages
        for kind in ElementTree.fromstring(one.text).iter("EventTypeCode")
        if kind.attrib["codeSystemName"] == "99UNIBIOMED"
    ]


def test_what_was_recorded_while_it_was_away_comes_once_it_is_there(
    tmp_path: Path, database: Database, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    node = node_for(tmp_path, database, clock, port)
    act(node, "a", "b")
    pauses = []
    for _ in range(9):
        assert send_audit(node) == 0
        told = state_of(node)
        assert told.next_attempt_at is not None
        pauses.append((told.next_attempt_at - clock()).total_seconds())
        assert send_audit(node) == 0  # too early: it is not called
        clock.forward(pauses[-1])
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert "cannot be reached" in told.sentence
    assert (told.unsent, told.failures) == (2, 9)
    act(node, "c")
    with Collector(port=port) as collector:
        again = make_node(tmp_path, database, clock, audit=node.settings.model_dump()["audit"])
        assert send_audit(again) == 3  # as after a restart: nothing but the database is known
        assert actions(collector.got(3)) == ["a", "b", "c"]
        assert send_audit(node) == 0
        assert collector.messages.empty()
    told = state_of(node)
    assert (told.unsent, told.failures, told.sentence) == (0, 0, "")
    assert told.sent_at == clock()
    lines = [one.getMessage() for one in caplog.records if "audit trail" in one.getMessage()]
    assert len(lines) == 2, lines


def test_more_than_one_batch_comes_in_order(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    with Collector() as collector:
        node = node_for(tmp_path, sqlite_database, clock, collector.port)
        with node.database.session() as session:
            for number in range(1100):
                record(session, at=clock(), account="Ada", action=str(number))
        assert send_audit(node) == 1100
        assert actions(collector.got(1100)) == [str(number) for number in range(1100)]
        assert collector.connections == 3


def test_a_message_is_what_ps3_15_asks_for(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    with Collector() as collector:
        node = node_for(tmp_path, sqlite_database, clock, collector.port)
        act(node, "job.view")
        send_audit(node)
        (told,) = collector.got(1)
    assert (told.priority, told.application, told.kind) == (85, "UNIBIOMED", "DICOM+RFC3881")
    assert told.time == "2026-03-01T08:00:00.000Z"


def test_two_senders_do_not_send_the_same(tmp_path: Path, database: Database, clock: Clock) -> None:
    with Collector() as collector:
        node = node_for(tmp_path, database, clock, collector.port)
        act(node, "a")
        with database.session() as session:
            held = claim(session, "repository", clock(), 120)
        assert held is not None
        assert send_audit(node) == 0
        clock.forward(121)  # the other one died
        assert send_audit(node) == 1
        collector.got(1)


def test_a_trail_that_was_put_back_is_told_and_sent_anew(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    with Collector() as collector:
        node = node_for(tmp_path, database, clock, collector.port)
        act(node, "a", "b", "c")
        send_audit(node)
        collector.got(3)
        with database.session() as session:  # as from a backup of before "b"
            session.execute(delete(AuditRecord).where(AuditRecord.id > 1))
        act(node, "d")
        send_audit(node)
        assert actions(collector.got(3)) == ["a", "d", "audit.gap"]
    with database.reading() as session:
        gap = audit_page(session, action="audit.gap").records[0]
    assert "record 3 was sent to repository and is not in the trail" in gap.details["what"]


def test_a_record_that_was_changed_before_it_was_sent_is_told(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    with Collector() as collector:
        node = node_for(tmp_path, sqlite_database, clock, collector.port)
        act(node, "a", "b")
        with sqlite_database.session() as session:
            session.execute(update(AuditRecord).where(AuditRecord.id == 2).values(account="Eve"))
        send_audit(node)
        assert actions(collector.got(3)) == ["a", "b", "audit.gap"]


def test_a_certificate_that_is_not_there_is_said(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    node = node_for(
        tmp_path,
        sqlite_database,
        clock,
        6514,
        transport="tls",
        certificate=str(tmp_path / "no.pem"),
    )
    act(node, "a")
    assert send_audit(node) == 0
    assert "no.pem cannot be used" in state_of(node).sentence
