"""The command ``backup``: a copy that a node starts from, taken while another one writes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from db.jobs import JobState
from db.session import Database
from deploy.cli import app
from tests.db.arrivals import queued_job, state_of
from workflows.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make_folders()
    home.write_defaults()
    return home


def backup(home: Home, folder: Path) -> tuple[int, str]:
    """Run the command; return exit code and everything it said."""
    result = CliRunner().invoke(app, ["backup", str(folder), "--home", str(home.root)])
    return result.exit_code, result.output


def test_a_copy_has_what_was_committed_and_nothing_of_what_was_not(
    home: Home, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{home.database}")
    database.upgrade()
    job = queued_job(database, "1.2.3")
    with sqlite3.connect(home.database) as writing:  # as a node that writes at this moment
        writing.execute("UPDATE job SET error = 'half a change'")
        code, said = backup(home, tmp_path / "monday")
        writing.rollback()
    assert code == 0, said
    assert "database.sqlite, node.yaml, rules.yaml" in said and str(home.archive) in said
    copied = Home(tmp_path / "monday")
    assert copied.root.stat().st_mode & 0o777 == 0o700
    assert copied.database.stat().st_mode & 0o777 == 0o600
    assert copied.node_yaml.read_bytes() == home.node_yaml.read_bytes()
    assert {path.name for path in copied.root.iterdir()} == {
        "database.sqlite", "node.yaml", "rules.yaml",
    }  # fmt: skip
    restored = Database(f"sqlite:///{copied.database}")
    restored.upgrade()
    assert state_of(restored, job) is JobState.QUEUED
    with sqlite3.connect(copied.database) as reading:
        assert reading.execute("SELECT count(*) FROM job WHERE error <> ''").fetchone() == (0,)
    restored.dispose()
    database.dispose()


def test_an_older_backup_is_not_written_over(home: Home, tmp_path: Path) -> None:
    Database(f"sqlite:///{home.database}").upgrade()
    assert backup(home, tmp_path / "monday")[0] == 0
    before = (tmp_path / "monday" / "database.sqlite").read_bytes()
    code, said = backup(home, tmp_path / "monday")
    assert code == 1 and "Name a new folder" in said
    assert (tmp_path / "monday" / "database.sqlite").read_bytes() == before


def test_a_damaged_database_is_no_backup(home: Home, tmp_path: Path) -> None:
    home.database.write_bytes(b"no database" * 500)
    code, said = backup(home, tmp_path / "monday")
    assert code == 1 and "file is not a database" in said
    assert not (tmp_path / "monday" / "database.sqlite").exists()


def test_a_servers_database_is_left_to_the_server(home: Home, tmp_path: Path) -> None:
    url = "postgresql://node:secret@db.example.org/node"
    home.node_yaml.write_text(yaml.safe_dump({"database": {"url": url}}))
    code, said = backup(home, tmp_path / "monday")
    assert code == 0 and "pg_dump" in said and "secret" not in said
    assert {path.name for path in (tmp_path / "monday").iterdir()} == {"node.yaml", "rules.yaml"}


def test_where_no_node_is_nothing_is_written(tmp_path: Path) -> None:
    code, said = backup(Home(tmp_path / "none"), tmp_path / "monday")
    assert code == 1 and "no node's home" in said
    assert not (tmp_path / "monday").exists()
