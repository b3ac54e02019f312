"""The database: engine, transactions, schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

from db.outage import DATABASE_ERRORS, Outage, is_passing, is_refused_value

__all__ = ["DATABASE_ERRORS", "Database", "is_passing", "is_refused_value", "migration_config"]
_READING = "unibiomed_reading"


class Database:
    """One SQLite file or PostgreSQL database.

    Parameters
    ----------
    url
        ``sqlite:////absolute/path`` or ``postgresql+psycopg://...`` (plain ``postgresql://`` and
        ``postgres://`` are taken as psycopg 3).
    busy_seconds
        How long a writer waits for another one before it gives up with an error.
    flush_commits
        Whether a commit in SQLite waits for the disk; see below before turning it off.

    Notes
    -----
    SQLite runs in WAL mode, so that readers never wait, with ``synchronous=FULL``: a commit is
    on the disk when it returns. Less would let a power cut undo "these UIDs were drawn" or "this
    result was sent" after the fact, and the study would then be delivered twice.

    Only what can be made again from durable files may be written with ``flush_commits=False``
    (``synchronous=NORMAL``). Such a commit survives the end of the process, also by ``kill -9``;
    a power cut can take the last ones back, whole and in order: the log has one sequence, so no
    later commit outlives an earlier one, and a flushing commit of anybody flushes all before it.

    Nothing gathers statistics in SQLite (``ANALYZE``, ``PRAGMA optimize``), on purpose. Measured
    with 150 000 jobs and 1.5 million instances in steps of SQLite's virtual machine, to 500
    steps: the 22 questions of the dashboard and of C-FIND take the same without them, with an
    ``analysis_limit`` of 1000, and with all rows counted, as an index stands for each of them.
    With statistics from the day when each table had six rows, which then stand until somebody
    gathers them anew, it reads whole tables: the newest jobs take 2 556 000 steps instead of
    3000, a C-FIND by name 18 million instead of fewer than 500, one by day more than 50 million
    instead of 57 000.
    """

    def __init__(self, url: str, *, busy_seconds: float = 10.0, flush_commits: bool = True) -> None:
        self.url = _psycopg(url)
        self.busy_seconds = busy_seconds
        self._flush_commits = flush_commits
        self._pid = os.getpid()
        self._outage = Outage()
        self._engine = self._make_engine()
        # The same pool and events, but transactions that only read.
        self._reading_engine = self._engine.execution_options(**{_READING: True})

    @property
    def engine(self) -> Engine:
        """The engine, safe to use in a process that was forked after this object was made."""
        if os.getpid() != self._pid:
            # Connections must not be shared with the parent; leave the parent's open.
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return self._engine

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session for writing; commit at the end, roll back on any error."""
        with (
            self._outage.watched(),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that only reads: one consistent view, and no writer has to wait."""
        _ = self.engine
        with (
            self._outage.watched(),
            Session(self._reading_engine, expire_on_commit=False) as session,
        ):
            yield session

    def watched(self) -> AbstractContextManager[None]:
        """Have an outage told of that shows in a block which holds a connection of its own."""
        return self._outage.watched()

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema to a revision, safely when several processes start at once."""
        with self.engine.connect() as connection:
            if self.is_sqlite:
                # The journal mode is kept in the file, and is set outside a transaction.
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7311482)")
            command.upgrade(migration_config(connection), revision)
            connection.commit()

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _make_engine(self) -> Engine:
        # Parameters are hidden in errors: they name patients, and errors go to the log.
        url = make_url(self.url)
        if url.get_backend_name() == "sqlite":
            if url.database and url.database != ":memory:":
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(
                url, hide_parameters=True, connect_args={"timeout": self.busy_seconds}
            )
            event.listen(engine, "connect", self._prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        milliseconds = int(self.busy_seconds * 1000)
        return create_engine(
            url,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "connect_timeout": max(2, int(self.busy_seconds)),
                # A server that vanished without a word is given up after this time.
                "tcp_user_timeout": milliseconds,
                "options": f"-c lock_timeout={milliseconds} -c timezone=UTC",
            },
        )

    def _prepare_sqlite(self, connection: Any, record: object) -> None:
        # The driver's own transaction control is off: it begins too late and never "immediate".
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA synchronous={'FULL' if self._flush_commits else 'NORMAL'}")


def migration_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the migrations inside this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _psycopg(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        return f"postgresql+psycopg{separator}{rest}"
    return url


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: one that starts as a reader and writes later fails with
    # "database is locked" without any waiting when another writer came in between.
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
