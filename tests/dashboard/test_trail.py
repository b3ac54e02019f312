"""What the pages tell of the audit trail and of its collectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.audit import audit_page
from db.models_access import Role
from db.session import Database
from deploy.demo_pacs import free_port
from tests.dashboard.conftest import Browser
from tests.factories.syslog_collector import Collector
from tests.workflows.nodes import Clock, encoded_job, make_node
from workflows.audit_sending import send_audit
from workflows.node import Node

PORT = free_port()


@pytest.fixture
def node(tmp_path: Path, sqlite_database: Database, clock: Clock) -> Node:
    entry = {"name": "repository", "host": "127.0.0.1", "port": PORT, "transport": "tcp"}
    node = make_node(tmp_path, sqlite_database, clock, audit=[entry])
    node.home.write_defaults()
    return node


def test_a_collector_that_is_away_is_seen_everywhere(
    browser: Browser, node: Node, clock: Clock
) -> None:
    client = browser(Role.ADMIN)
    send_audit(node)
    overview = client.get("/").text
    assert "does not reach “repository”" in overview
    assert "transport right? 1 record waits;" in overview
    page = client.get("/audit").text
    assert "cannot be reached" in page and "right? Tried 1 time;" in page
    assert "Nothing is lost" in page
    (told,) = client.get("/api/audit/collectors").json()["collectors"]
    assert (told["unsent"], told["failures"]) == (2, 1)
    assert told["next_attempt_at"] == "2026-03-01T08:00:05.000+00:00"
    figures = client.get("/metrics").text
    assert 'unibiomed_audit_collector_up{collector="repository"} 0.0' in figures
    assert 'unibiomed_audit_unsent_records{collector="repository"} 2.0' in figures
    clock.forward(5)
    with Collector(port=PORT) as collector:
        send_audit(node)
        collector.got(2)
    assert "does not reach" not in client.get("/").text
    assert "up to date" in client.get("/audit").text
    assert 'unibiomed_audit_collector_up{collector="repository"} 1.0' in client.get("/metrics").text


def test_a_look_at_the_trail_is_in_the_trail(browser: Browser, node: Node) -> None:
    client = browser(Role.ADMIN)
    client.get("/audit")
    records = client.get("/api/audit").json()["records"]
    assert [one["action"] for one in records] == ["audit.list", "login"]


def test_whom_somebody_looked_at_stays_known(browser: Browser, node: Node) -> None:
    job = encoded_job(node, [])
    browser(Role.VIEWER).get(f"/jobs/{job}")
    with node.database.reading() as session:
        look = audit_page(session, action="job.view").records[0]
    assert look.details["study"] == "1.2.3"
