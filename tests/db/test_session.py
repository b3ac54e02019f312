from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

import db.models_access
import db.models_operation
import db.models_reader  # noqa: F401 - their tables belong to the same metadata
from db.models import Base, Quarantine
from db.session import Database, is_passing
from tests.databases import START


def test_models_and_migrations_agree(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_partial_indexes_agree(sqlite_database: Database, tmp_path: Path) -> None:
    # Alembic does not compare the conditions of partial indexes.
    made = Database(f"sqlite:///{tmp_path / 'made.sqlite'}")
    Base.metadata.create_all(made.engine)
    found = []
    for database in (made, sqlite_database):
        with database.reading() as session:
            rows = session.execute(
                text("SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name")
            )
            found.append(
                [
                    (name, " ".join(sql.split()))
                    for name, sql in rows
                    if sql and not name.startswith("sqlite_")
                ]
            )
    made.dispose()
    assert found[0] == [one for one in found[1] if "alembic" not in one[0]]


def test_upgrade_twice_changes_nothing(database: Database) -> None:
    database.upgrade()
    with database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM job")).scalar_one() == 0


def upgrade(url: str) -> None:
    database = Database(url)
    database.upgrade()
    database.dispose()


def test_processes_that_start_together_upgrade_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'database.sqlite'}"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(upgrade, [url] * 3)
        pool.close()
        pool.join()
    database = Database(url)
    with database.reading() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == 2
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    database.dispose()


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.session() as writing:
        writing.add(Quarantine(path="q", reason="r", received_at=START))
        writing.flush()
        with database.reading() as reading:
            assert reading.query(Quarantine).count() == 0
    with database.reading() as reading:
        assert reading.query(Quarantine).count() == 1


def test_writers_wait_for_each_other(database: Database) -> None:
    with database.session() as session:
        session.add(Quarantine(path="q", reason="", size=0, received_at=START))

    def count() -> None:
        for _ in range(20):
            with database.session() as session:
                row = session.query(Quarantine).with_for_update().one()
                row.size += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.query(Quarantine).one().size == 80


def test_a_forked_process_opens_its_own_connections(sqlite_database: Database) -> None:
    with sqlite_database.session() as session:
        session.add(Quarantine(path="parent", reason="", received_at=START))

    def child() -> None:
        with sqlite_database.session() as session:
            session.add(Quarantine(path=f"child of {os.getppid()}", reason="", received_at=START))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    with sqlite_database.reading() as session:
        assert session.query(Quarantine).count() == 2


def test_errors_that_pass_and_errors_that_do_not(tmp_path: Path, database: Database) -> None:
    absent = Database("postgresql://nobody@127.0.0.1:1/none", busy_seconds=1)
    with pytest.raises(OperationalError) as refused, absent.session() as session:
        session.execute(text("SELECT 1"))
    assert is_passing(refused.value)
    with pytest.raises(IntegrityError) as broken, database.session() as session:
        session.execute(text("INSERT INTO quarantine (path) VALUES (NULL)"))
    assert not is_passing(broken.value)


def test_a_statement_that_sqlite_refuses_does_not_pass(sqlite_database: Database) -> None:
    too_deep = " OR ".join(["id = 1"] * 2000)
    for statement in (f"SELECT id FROM quarantine WHERE {too_deep}", "SELECT id FROM nothing"):
        with sqlite_database.reading() as session, pytest.raises(OperationalError) as refused:
            session.execute(text(statement))
        assert not is_passing(refused.value), statement


def test_a_database_file_that_cannot_be_opened_may_come_back(tmp_path: Path) -> None:
    absent = Database(f"sqlite:///{tmp_path / 'share' / 'node.sqlite'}")
    (tmp_path / "share").rmdir()
    with pytest.raises(OperationalError, match="unable to open") as away:
        absent.engine.connect()
    assert is_passing(away.value)
    absent.dispose()


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        ("08006", True),
        ("40001", True),
        ("40P01", True),
        ("53300", True),
        ("57P01", True),
        ("55P03", True),
        ("57014", True),
        ("54001", False),
        ("42601", False),
        ("42501", False),
        ("58030", True),
    ],
)
def test_postgresql_tells_by_its_state_what_passes(state: str, passes: bool) -> None:
    answer = psycopg.errors.lookup(state)("said by the server")
    error = DBAPIError.instance("SELECT 1", {}, answer, psycopg.Error)
    assert isinstance(error, DBAPIError)
    assert is_passing(error) is passes


def test_a_locked_database_is_given_up_after_the_time(sqlite_database: Database) -> None:
    other = Database(sqlite_database.url, busy_seconds=0.2)
    with sqlite_database.session() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(OperationalError, match="locked") as locked, other.session() as second:
            second.execute(text("SELECT 1"))
    assert is_passing(locked.value)
    other.dispose()


def test_errors_name_no_patient(sqlite_database: Database) -> None:
    # What an error says goes to the log.
    with pytest.raises(OperationalError) as raised, sqlite_database.reading() as session:
        session.execute(text("SELECT 1 FROM nothing WHERE name = :name"), {"name": "DOE^JANE"})
    assert "DOE" not in str(raised.value)
