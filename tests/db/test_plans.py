"""No question that is asked often reads a table that grows: SQLite's plans, without statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from db.conditions import Between, Condition, Like, OneOf
from db.figures import causes, ended_since, hours, latency_since, oldest_waiting, received_since
from db.listing import list_jobs
from db.query import describe, find
from db.query_keys import COUNTS, KEYS
from db.session import Database
from db.states import JobState
from tests.databases import START
from tests.db.test_query import add_result, arrivals, fill

GROWING = {"instance", "job", "result", "series", "study"}
STUDIES: dict[str, dict[str, Condition]] = {
    "a patient": {"PatientID": OneOf(("P1",))},
    "an accession number": {"AccessionNumber": OneOf(("A1",))},
    "some UIDs": {"StudyInstanceUID": OneOf(("1.2.3", "1.2.4"))},
    "a day": {"StudyDate": Between("20240101", "20240101")},
    "a day and modality": {
        "StudyDate": Between("20240101", "20240101"), "ModalitiesInStudy": OneOf(("CT",)),
    },
    "a name's beginning": {"PatientName": Like(("Doe^J*",))},
    "a name's middle on a day": {
        "PatientName": Like(("*oe*",)), "StudyDate": Between("20240101", "20240101"),
    },
}  # fmt: skip
PAGES: dict[str, Callable[[Session], Any]] = {
    "newest": lambda session: list_jobs(session, before=900),
    "failed": lambda session: list_jobs(session, states=[JobState.FAILED]),
    "modality and rule": lambda session: list_jobs(session, modality="CT", rule="thorax"),
    "search": lambda session: list_jobs(session, search="doe"),
    "a week": lambda session: list_jobs(session, received_since=START),
    "received": lambda session: received_since(session, START),
    "ended": lambda session: ended_since(session, START),
    "hours": lambda session: hours(session, START),
    "latency": lambda session: latency_since(session, START),
    "oldest": oldest_waiting,
    "causes": causes,
}


@contextmanager
def plans(database: Database) -> Iterator[list[str]]:
    """Collect what SQLite would do for each statement."""
    told: list[str] = []

    def explain(
        connection: Any, cursor: Any, statement: str, given: Any, context: Any, many: bool
    ) -> None:
        if statement.startswith("SELECT"):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", given)
            told.extend(row[-1] for row in rows)

    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        yield told
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)


def scanned(told: list[str]) -> set[str]:
    """Return the growing tables that are read from end to end, not from a place in an index."""
    steps = [one.split() for one in told]
    return {step[1] for step in steps if step[0] == "SCAN" and step[1] in GROWING}


@pytest.fixture
def filled(sqlite_database: Database) -> Database:
    fill(sqlite_database, arrivals(6))
    add_result(sqlite_database, "1.2.3", "2.25.1")
    return sqlite_database


def test_nobody_gathers_statistics(filled: Database) -> None:
    """Of a young database they would stand when it has grown; `Database` has the figures."""
    with filled.reading() as session:
        tables = set(session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
    assert "job" in tables
    assert "sqlite_stat1" not in tables


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_query_with_all_counts(filled: Database, kind: str) -> None:
    wanted = {*KEYS, *COUNTS, "ModalitiesInStudy"}
    with plans(filled) as told, filled.reading() as session:
        describe(session, find(session, "study", STUDIES[kind]), wanted)
    assert told and scanned(told) == set()


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_of_the_dashboard(filled: Database, kind: str) -> None:
    with plans(filled) as told, filled.reading() as session:
        PAGES[kind](session)
    assert told and scanned(told) == set()
