"""Wrong passwords by address, counted by several processes at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from db.login_hosts import blocked_until, count_failure
from db.models_access import LoginHost
from db.session import Database
from tests.databases import START, later


def test_none_of_those_who_fail_at_once_goes_uncounted(database: Database) -> None:
    ready = threading.Barrier(4)

    def fail(_: int) -> list[bool]:
        ready.wait(30)
        told = []
        for _ in range(5):
            with database.session() as session:
                told.append(count_failure(session, "192.0.2.7", START, 20) is not None)
        return told

    with ThreadPoolExecutor(4) as people:
        told = [one for each in people.map(fail, range(4)) for one in each]
    assert told.count(True) == 1  # the twentieth
    with database.reading() as session:
        assert blocked_until(session, "192.0.2.7", later(899)) == later(900)
        assert blocked_until(session, "192.0.2.7", later(900)) is None
        assert blocked_until(session, "192.0.2.8", START) is None


def test_addresses_that_are_done_with_are_forgotten(database: Database) -> None:
    with database.session() as session:
        assert count_failure(session, "192.0.2.7", START, 1) == later(900)
        assert count_failure(session, "192.0.2.8", START, 9) is None
        count_failure(session, "192.0.2.9", later(899), 9)
        assert len(session.scalars(select(LoginHost)).all()) == 3
        count_failure(session, "192.0.2.9", later(900), 9)
        assert [one.host for one in session.scalars(select(LoginHost))] == ["192.0.2.9"]
