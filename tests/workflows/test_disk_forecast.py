"""The day on which the disk is full: for the log, the command line and the metrics."""

from __future__ import annotations

import json
import logging
import shutil
from collections import namedtuple
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from db.catalog import register
from db.models import Instance
from db.session import Database
from deploy.cli import app
from tests.databases import *  # noqa: F403
from tests.databases import START
from tests.factories import write_ct_series
from tests.workflows import whole_node
from tests.workflows.nodes import Clock, make_node, store_source
from tests.workflows.whole_node import ct_volume, take_in
from workflows.disk_forecast import Disk, Intake, forecast_disk, intake_of
from workflows.node import Node
from workflows.retention import clean_up

Usage = namedtuple("Usage", "total used free")


def forecast(node: Node, intake: Intake, free: float, monkeypatch: pytest.MonkeyPatch) -> Disk:
    usage = Usage(10**15, 0, int(free) + node.settings.storage.reserve)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    return forecast_disk(node, intake)


def test_a_disk_that_is_full_soon_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = whole_node.make_node(tmp_path)
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    intake = intake_of(node, node.now())
    with node.database.reading() as session:
        assert intake.received == session.scalar(select(func.sum(Instance.size)))
    # Of the first hour: all of it came within one at the most.
    assert intake.per_day == pytest.approx(24 * intake.received)
    disk = forecast(node, intake, 3 * intake.per_day, monkeypatch)
    assert disk.full_in_days == pytest.approx(3, abs=0.01)
    with caplog.at_level(logging.WARNING, "workflows.disk_forecast"):
        clean_up(node)
    day = disk.full_at(node.now())
    assert day is not None and f"{day:%Y-%m-%d}" in caplog.text
    shown = CliRunner().invoke(app, ["disk", "--home", str(tmp_path)])
    assert f"It is full on {day:%Y-%m-%d} (at the rate of the first hour)." in shown.stdout, (
        shown.output
    )
    told = json.loads(CliRunner().invoke(app, ["disk", "--json", "--home", str(tmp_path)]).stdout)
    assert told["full_in_days"] == pytest.approx(3, abs=0.01)
    assert "Too early" in forecast(node, intake, 10**12, monkeypatch).sentence
    assert CliRunner().invoke(app, ["disk", "--home", str(tmp_path / "no")]).exit_code == 1
    node.database.dispose()


def test_on_a_fresh_node_it_is_too_early_to_tell(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    node = make_node(tmp_path, sqlite_database, clock, retention={"studies_days": None})
    before = intake_of(node, clock())
    assert "Nothing came in yet" in forecast_disk(node, before).sentence
    # The rate is computed now and then; what came in since is not in it yet.
    came(node)
    disk = forecast_disk(node, before)
    assert disk.sentence == "Too early to tell: images came in that are not counted yet."
    assert disk.per_day is None and disk.full_in_days is None
    clock.forward(5 * 3600)
    after = intake_of(node, clock())
    disk = forecast(node, after, 20 * after.per_day, monkeypatch)
    assert disk.full_in_days is None
    assert disk.sentence == "Too early to tell: all that is known is the first 5 hours."


def came(node: Node, times: int = 1) -> int:
    """Take in some instances; returns the bytes of one."""
    for _ in range(times):
        with node.database.session() as session:
            number = session.scalar(select(func.count(Instance.id))) or 0
            arrival = store_source(node, number + 1)
            register(session, arrival)
    return arrival.size


def test_a_young_node_goes_by_its_whole_days(tmp_path: Path, sqlite_database: Database) -> None:
    clock = Clock()
    node = make_node(tmp_path, sqlite_database, clock)
    size = came(node)

    def rate_at(day: float, days: float) -> float:
        intake = intake_of(node, START + timedelta(days=day))
        assert intake.days == days
        return intake.per_day / size

    assert rate_at(0.5, 0.5) == pytest.approx(2)
    clock.forward(1.5 * 86400)
    came(node, 3)
    assert rate_at(1.6, 1) == pytest.approx(3)  # not the day before, which has half a day more
    assert rate_at(2.0, 2) == pytest.approx(2)
    assert rate_at(6.9, 6) == pytest.approx(3 / 6)
    assert rate_at(8.0, 7) == pytest.approx(3 / 7)
    clock.forward(18.5 * 86400)
    quiet = forecast_disk(node, intake_of(node, clock()))
    assert quiet.sentence == "Nothing came in for a week: no forecast."
    short = make_node(tmp_path, sqlite_database, clock, retention={"studies_days": 3})
    assert intake_of(short, START + timedelta(days=8)).days == 3


def full_by_ledger(before: float, after: float, age: float, keep: int, free: float) -> float | None:
    """Fill a disk hour by hour: what came before, what comes, what goes after `keep` days."""
    hours = 24 * keep
    ledger = [before / 24 if hour < 24 * age else 0.0 for hour in range(hours)]  # newest first
    used = 0.0
    for hour in range(3 * hours):
        used += after / 24 - ledger.pop()
        ledger.insert(0, after / 24)
        if used >= free:
            return (hour + 1) / 24
    return None


@pytest.mark.parametrize("age", [2, 10, 60])
@pytest.mark.parametrize("before", [40.0, 100.0, 180.0])
@pytest.mark.parametrize("free", [150.0, 900.0, 1_250.0, 2_000.0])
def test_what_retention_deletes_is_taken_into_account(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch,
    age: float, before: float, free: float,
) -> None:  # fmt: skip
    keep, after, scale = 14, 100.0, 10**9
    node = make_node(tmp_path, sqlite_database, Clock(), retention={"studies_days": keep})
    kept_days = min(age, keep)
    kept = int(before * kept_days * scale)
    intake = Intake(int(7 * after * scale), 7.0, kept, kept_days)
    disk = forecast(node, intake, free * scale, monkeypatch)
    expected = full_by_ledger(before, after, kept_days, keep, free)
    if expected is None:
        assert disk.full_in_days is None and "deleted after 14 days" in disk.sentence
    else:
        assert disk.full_in_days == pytest.approx(expected, abs=0.1)
