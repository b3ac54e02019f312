from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from db import catalog
from db.catalog import Arrival
from db.models import Instance, Job, Quarantine, Study
from db.session import Database
from db.states import JobState
from tests.workflows.nodes import Clock, make_node, store_source
from workflows.node import Node
from workflows.reconciliation import reconcile


def test_what_the_database_lost_is_registered_again(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    node = make_node(tmp_path, database, clock)
    known = store_source(node, 1)
    store_source(node, 2)
    store_source(node, 2, text="other bytes")
    lost = store_source(node, 1, study="1.7")
    with database.session() as session:
        catalog.register(session, known)
    done = reconcile(database, node.archive, now=clock)
    assert (done.instances, done.unreadable) == (3, ())
    with database.reading() as session:
        rows = {row.path: row for row in session.scalars(select(Instance))}
        assert rows[lost.path].sha256 == lost.sha256
        assert rows[lost.path].size == lost.size
        assert sorted(row.conflict for row in rows.values()) == [False, False, False, True]
        assert len(session.scalars(select(Job)).all()) == 2
    assert reconcile(database, node.archive, now=clock).instances == 0


def test_what_is_received_now_is_left_to_the_listener(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    node = make_node(tmp_path, sqlite_database, clock)
    stored = node.archive.absolute(store_source(node, 1).path)
    start = datetime.fromtimestamp(stored.stat().st_mtime, UTC)
    early, late = start - timedelta(seconds=1), start + timedelta(seconds=1)

    def found(before: datetime, stopped: bool = False) -> int:
        return reconcile(
            sqlite_database, node.archive, now=clock, before=before, stopped=lambda: stopped
        ).instances

    assert found(early) == 0
    assert found(late, stopped=True) == 0
    assert found(late) == 1


def tear(node: Node, stored: Arrival) -> Path:
    """Leave of a file what a power cut may leave: its name, and the beginning of its bytes."""
    path = node.archive.absolute(stored.path)
    os.truncate(path, path.stat().st_size - 3)
    return path


def test_a_torn_file_goes_to_quarantine_and_makes_room_for_the_same_object(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    node = make_node(tmp_path, database, clock)
    torn = tear(node, store_source(node, 1))
    empty = node.archive.absolute(store_source(node, 2).path)
    os.truncate(empty, 0)
    done = reconcile(database, node.archive, now=clock)
    assert (done.instances, done.quarantined, done.unreadable) == (0, 2, ())
    assert not torn.exists() and not empty.exists()
    with database.reading() as session:
        rows = session.scalars(select(Quarantine).order_by(Quarantine.sop_instance_uid)).all()
        assert "cut off" in rows[0].reason and "send" in rows[0].reason
        assert rows[0].sop_instance_uid == "1.2.3.1.1"
        assert all(node.archive.absolute(row.path).exists() for row in rows)
    again = store_source(node, 1)
    assert not again.beside
    assert reconcile(database, node.archive, now=clock).quarantined == 0


def test_what_was_sent_again_before_the_torn_file_was_found_takes_its_place(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    node = make_node(tmp_path, database, clock)
    whole = store_source(node, 1)
    kept = node.archive.absolute(whole.path).read_bytes()
    tear(node, whole)
    again = store_source(node, 1)
    other = store_source(node, 1, text="other bytes")
    assert again.beside and other.beside
    with database.session() as session:
        for arrival in (again, other):
            assert catalog.register(session, arrival).outcome == "conflict"
    done = reconcile(database, node.archive, now=clock)
    assert (done.instances, done.quarantined) == (1, 1)
    with database.reading() as session:
        rows = {row.path: row.conflict for row in session.scalars(select(Instance))}
        assert rows == {whole.path: False, other.path: True}
        study = session.scalars(select(Study)).one()
        assert (study.number_of_instances, study.conflicts) == (1, 1)
        assert session.scalars(select(Job.state)).all() == [JobState.WAITING]
    assert node.archive.absolute(whole.path).read_bytes() == kept
    assert not node.archive.absolute(again.path).exists()
    assert reconcile(database, node.archive, now=clock).instances == 0


def test_quarantine_is_taken_up_with_its_reason(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    node = make_node(tmp_path, database, clock)
    node.archive.quarantine(b"bytes", "cut off", {"calling_ae_title": "A", "host": "h"})
    silent = node.archive.quarantine(b"bytes", "unknown", {})
    silent.with_suffix(".json").unlink()
    assert reconcile(database, node.archive, now=clock).quarantined == 2
    assert reconcile(database, node.archive, now=clock).quarantined == 0
    with database.reading() as session:
        reasons = {
            row.path: (row.reason, row.calling_ae_title, row.peer_host)
            for row in session.scalars(select(Quarantine))
        }
    assert ("cut off", "A", "h") in reasons.values()
    assert "its reason was not written" in reasons[node.archive.relative(silent)][0]
