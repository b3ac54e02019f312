"""The day on which the disk is full: for the log, the command line and the metrics."""

from __future__ import annotations

import json
import logging
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from db.models import Instance
from deploy.cli import app
from tests.factories import write_ct_series
from tests.workflows.whole_node import ct_volume, make_node, take_in
from workflows.disk_forecast import forecast_disk, growth_per_day
from workflows.retention import clean_up

Usage = namedtuple("Usage", "total used free")


def test_a_disk_that_is_full_soon_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(tmp_path)
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    per_day = growth_per_day(node, node.now())
    with node.database.reading() as session:
        assert per_day * 7 == pytest.approx(session.scalar(select(func.sum(Instance.size))))
    usage = Usage(10**12, 0, int(3 * per_day))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    disk = forecast_disk(node, per_day)
    assert disk.full_in_days == pytest.approx(3, abs=0.01)
    with caplog.at_level(logging.WARNING, "workflows.disk_forecast"):
        clean_up(node)
    day = disk.full_at(node.now())
    assert day is not None and f"{day:%Y-%m-%d}" in caplog.text
    shown = CliRunner().invoke(app, ["disk", "--home", str(tmp_path)])
    assert f"it is full on {day:%Y-%m-%d}" in shown.stdout, shown.output
    told = json.loads(CliRunner().invoke(app, ["disk", "--json", "--home", str(tmp_path)]).stdout)
    assert told["full_in_days"] == pytest.approx(3, abs=0.01)
    usage = Usage(10**12, 0, 10**12)
    assert "Not in sight" in forecast_disk(node, per_day).sentence
    assert CliRunner().invoke(app, ["disk", "--home", str(tmp_path / "no")]).exit_code == 1
    node.database.dispose()


def test_on_a_fresh_node_it_is_too_early_to_tell(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    before = growth_per_day(node, node.now())
    assert before == 0.0
    assert "Nothing came in" in forecast_disk(node, before).sentence
    # The rate is computed now and then; what came in since is not in it yet.
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    disk = forecast_disk(node, before)
    assert disk.sentence == "Too early to tell: images came in that are not counted yet."
    assert disk.per_day is None and disk.full_in_days is None
    node.database.dispose()
