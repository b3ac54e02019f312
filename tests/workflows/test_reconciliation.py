from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from db import catalog
from db.models import Instance, Job, Quarantine
from db.session import Database
from tests.workflows.nodes import Clock, make_node, store_source
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


def test_a_file_that_cannot_be_read_is_named_and_left(
    tmp_path: Path, sqlite_database: Database, clock: Clock
) -> None:
    node = make_node(tmp_path, sqlite_database, clock)
    broken = store_source(node, 1)
    node.archive.absolute(broken.path).write_bytes(b"no DICOM")
    done = reconcile(sqlite_database, node.archive, now=clock)
    assert (done.instances, done.unreadable) == (0, (broken.path,))


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
