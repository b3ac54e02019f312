from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from db import catalog, jobs
from db.jobs import JobState
from db.models import REJECTION_NOTE, Instance, Job, Quarantine, Study
from db.results import WrittenResult, record_rejection_note
from db.session import Database
from tests.workflows.nodes import Clock, destination, encoded_job, make_node, store_source, told
from tests.workflows.pacs import Pacs
from workflows import retention
from workflows.delivery import deliver_job
from workflows.node import Node
from workflows.questions import question_folder
from workflows.reconciliation import reconcile
from workflows.retention import clean_up

DAY = 86400.0
KEYS = "1.2.840.10008.5.1.4.1.1.88.59"


@pytest.fixture
def node(tmp_path: Path, database: Database, clock: Clock, pacs: Pacs) -> Node:
    return make_node(tmp_path, database, clock, destinations=[destination(pacs)])


def sources(node: Node) -> list[str]:
    return [node.archive.relative(path) for path in node.archive.walk()]


def results(node: Node, job_id: int) -> list[bool]:
    return [node.archive.absolute(line["file"]).exists() for line in told(node, job_id)["results"]]


def count(node: Node, model: type) -> int:
    with node.database.reading() as session:
        return session.execute(select(func.count()).select_from(model)).scalar_one()


def test_sources_go_by_age_and_results_later(node: Node, clock: Clock) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    clock.forward(13 * DAY)
    clean_up(node)
    assert len(sources(node)) == 1
    clock.forward(2 * DAY)
    clean_up(node)
    assert sources(node) == []
    assert list((node.archive.root / "studies").iterdir()) == []
    with node.database.reading() as session:
        assert session.scalars(select(Instance.purged_at)).one() == clock()
    assert results(node, job_id) == [True] * 3
    assert reconcile(node.database, node.archive).instances == 0
    clock.forward(90 * DAY)
    clean_up(node)
    assert results(node, job_id) == [False] * 3
    assert told(node, job_id)["state"] == "delivered"
    clock.forward(365 * DAY)
    clean_up(node)
    assert (count(node, Job), count(node, Study), count(node, Instance)) == (0, 0, 0)


def test_a_rejection_note_goes_after_what_it_rejects(node: Node, clock: Clock) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    stored = node.archive.write_result(job_id, "rejection_note_quality.dcm", b"note")
    note = WrittenResult(REJECTION_NOTE, KEYS, "2.25.77", "2.25.78", stored.path, 4, stored.sha256)
    with node.database.session() as session:
        record_rejection_note(session, job_id, note, clock())
        record_rejection_note(session, job_id, note, clock())  # kept once
    assert results(node, job_id) == [True] * 4
    clock.forward(105 * DAY)
    clean_up(node)
    assert results(node, job_id) == [False] * 3 + [True]
    clean_up(node)
    assert results(node, job_id) == [False] * 4
    clock.forward(365 * DAY)
    clean_up(node)
    assert count(node, Job) == 0


def test_what_a_live_or_failed_job_reads_stays(node: Node, clock: Clock) -> None:
    live = encoded_job(node, ["pacs"], study="1.1")
    failed = encoded_job(node, ["pacs"], study="1.2")
    with node.database.session() as session:
        jobs.finish(session, failed, JobState.FAILED, "refused", now=clock())
    clock.forward(100 * DAY)
    clean_up(node)
    assert len(sources(node)) == 2
    assert results(node, live) == results(node, failed) == [True] * 3
    clock.forward(300 * DAY)
    clean_up(node)
    assert [path.split("/")[1] for path in sources(node)] == ["1.1"]
    assert told(node, live)["state"] == "delivering"
    assert not (node.archive.root / "results" / str(failed)).exists()


def test_unproven_results_and_those_without_destination_stay(node: Node, clock: Clock) -> None:
    kept = encoded_job(node, [], study="1.1")
    deliver_job(node, kept)
    clock.forward(1000 * DAY)
    clean_up(node)
    assert results(node, kept) == [True] * 3
    assert sources(node) == []
    assert count(node, Job) == 1


def test_a_study_that_still_grows_stays(node: Node, clock: Clock) -> None:
    deliver_job(node, encoded_job(node, ["pacs"]))
    clock.forward(15 * DAY)
    with node.database.session() as session:
        catalog.register(session, store_source(node, 1))
    clean_up(node)
    assert len(sources(node)) == 1


def test_a_purged_study_may_come_again(node: Node, clock: Clock) -> None:
    deliver_job(node, encoded_job(node, ["pacs"]))
    clock.forward(15 * DAY)
    clean_up(node)
    with node.database.session() as session:
        again = catalog.register(session, store_source(node, 1))
        assert len(catalog.instances_of(session, again.study_id)) == 1
    assert len(sources(node)) == 1


@pytest.mark.parametrize("by", ["reserve", "watermark"])
def test_a_short_disk_thins_finished_studies_early(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs, by: str
) -> None:
    settings: dict[str, Any] = {
        "destinations": [destination(pacs)],
        "retention": {"studies_days": None},
    }
    roomy = make_node(tmp_path, sqlite_database, clock, **settings)
    deliver_job(roomy, encoded_job(roomy, ["pacs"]))
    waiting = encoded_job(roomy, ["pacs"], study="1.9")
    clock.forward(2 * 3600)
    clean_up(roomy)
    assert len(sources(roomy)) == 2
    if by == "watermark":
        settings["retention"]["free_below"] = 1 << 62
    reserve = 1 << 62 if by == "reserve" else 0
    full = make_node(tmp_path, sqlite_database, clock, reserve=reserve, **settings)
    clean_up(full)
    assert [path.split("/")[1] for path in sources(full)] == ["1.9"]
    assert told(full, waiting)["state"] == "delivering"


@pytest.mark.parametrize("days", [30, None])
def test_quarantine_goes_by_its_own_setting(
    tmp_path: Path, sqlite_database: Database, clock: Clock, days: int | None
) -> None:
    kept = {"quarantine_days": days}
    node = make_node(tmp_path, sqlite_database, clock, retention=kept)
    path = node.archive.quarantine(b"bytes", "cut off", {})
    reconcile(sqlite_database, node.archive, now=clock)
    clock.forward(31 * DAY)
    clean_up(node)
    assert path.exists() == path.with_suffix(".json").exists() == (days is None)
    with sqlite_database.reading() as session:
        assert bool(session.scalars(select(Quarantine.resolution)).one()) == (days is not None)


def test_the_quarantine_is_held_to_its_size(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    node = make_node(tmp_path, database, clock, retention={"quarantine_size": "25 B"})
    paths = []
    for _ in range(4):
        paths.append(node.archive.quarantine(b"ten bytes.", "cut off", {}))
        clock.forward(1)
        reconcile(database, node.archive, now=clock)
    clean_up(node)
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert not paths[0].with_suffix(".json").exists()
    with database.reading() as session:
        said = session.scalars(select(Quarantine.resolution).order_by(Quarantine.received_at)).all()
        assert ["quarantine_size" in one for one in said] == [True, True, False, False]


def test_deleting_holds_up_no_writer_for_long(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs, monkeypatch: Any
) -> None:
    node = make_node(tmp_path, sqlite_database, clock, destinations=[destination(pacs)])
    job_id = encoded_job(node, ["pacs"])
    with sqlite_database.session() as session:
        for number in range(2, 6):
            catalog.register(session, store_source(node, number))
    deliver_job(node, job_id)
    cancelled = encoded_job(node, [], study="1.9")
    with sqlite_database.session() as session:
        waiting = select(Job.id).where(Job.state == JobState.WAITING)
        for one in [cancelled, *session.scalars(waiting)]:
            jobs.finish(session, one, JobState.CANCELLED, "enough", now=clock())
    node.archive.quarantine(b"bytes", "cut off", {})
    reconcile(sqlite_database, node.archive, now=clock)
    clock.forward(400 * DAY)

    deleted: list[list[str]] = [["outside"]]

    @event.listens_for(sqlite_database.engine, "before_cursor_execute")
    def noted_statement(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("BEGIN"):
            deleted.append([] if "IMMEDIATE" in statement else ["outside"])

    event.listen(sqlite_database.engine, "commit", lambda _: deleted.append(["outside"]))
    unlink = Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        deleted[-1].append(path.suffix)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    monkeypatch.setattr(retention, "_FILES_AT_ONCE", 2)
    clean_up(node)
    inside = [files for files in deleted if files and files[0] != "outside"]
    assert [len(files) for files in inside] == [2, 2, 1, 1, 3]
    outside = [len(files) - 1 for files in deleted if files and files[0] == "outside"]
    assert sum(outside) == 3 + 2  # delivered results; the quarantined object and its reason


def test_masks_of_old_answers_go(node: Node, clock: Clock) -> None:
    old, fresh = (question_folder(node.home, number) for number in (1, 2))
    for folder, age in ((old, 366 * DAY), (fresh, 364 * DAY)):
        folder.mkdir(parents=True)
        (folder / "interpretation.npz").touch()
        at = clock().timestamp() - age
        os.utime(folder, (at, at))
    clean_up(node)
    assert [old.exists(), fresh.exists()] == [False, True]
