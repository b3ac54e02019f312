"""What the node committed to stays until an archive holds it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from db.catalog import instances_of
from db.models import Instance, Study
from db.promises import promised_studies
from db.session import Database
from deploy.cli import app
from dicom_node.services.commitment import Reference
from dicom_node.services.storage_scu import send
from tests.workflows.nodes import Clock, destination, encoded_job, make_node
from tests.workflows.pacs import COMPREHENSIVE_3D_SR, ENHANCED_SR, SEG, Pacs
from tests.workflows.test_retention import DAY, sources
from workflows.committing import NodeLedger, report_commitments
from workflows.delivery import deliver_job
from workflows.disk_forecast import Intake, forecast_disk
from workflows.network import destination_of
from workflows.node import Node
from workflows.retention import clean_up

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def with_images(pacs: Pacs) -> Pacs:
    """Let the PACS take images, too."""
    pacs.stop()
    pacs.classes = (SEG, COMPREHENSIVE_3D_SR, ENHANCED_SR, CT)
    pacs.start()
    return pacs


def committing_node(
    tmp_path: Path, database: Database, clock: Clock, pacs: Pacs, **retention: Any
) -> Node:
    """Make a node that has committed to one of two studies, whose jobs are delivered."""
    node = make_node(
        tmp_path, database, clock, destinations=[destination(pacs)], retention=retention
    )
    for study in ("1.1", "1.2"):
        deliver_job(node, encoded_job(node, ["pacs"], study=study))
    ledger = NodeLedger(database, lambda: node.settings, clock)
    asked = [Reference(CT, "1.1.1.1"), Reference(CT, "1.1.1.99")]
    assert ledger.requested("MODALITY", "1.2.3.4", asked)
    # It cannot be told, as nobody knows where it listens; but it is kept before it is told.
    assert report_commitments(node) == 0
    return node


def kept(node: Node) -> list[str]:
    return [path.split("/")[1] for path in sources(node)]


def test_what_was_committed_goes_once_the_archive_holds_it(
    tmp_path: Path,
    database: Database,
    clock: Clock,
    with_images: Pacs,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pacs = with_images
    node = committing_node(tmp_path, database, clock, pacs, archive="pacs")
    clock.forward(15 * DAY)
    clean_up(node)
    assert kept(node) == ["1.1"], "the other study goes by its age"
    assert "pacs (PACS at 127.0.0.1" in caplog.text and "does not have all" in caplog.text
    caplog.clear()
    pacs.stop()
    clean_up(node)
    assert kept(node) == ["1.1"]
    assert "no connection" in caplog.text
    pacs.start()
    there = destination_of(node.settings.destinations[0], node.settings.tls)  # type: ignore[arg-type]
    [path] = [node.archive.absolute(path) for path in sources(node)]
    assert all(one.is_stored for one in send([path], there, calling_ae_title="MODALITY"))
    clean_up(node)
    assert kept(node) == []
    with database.reading() as session:
        assert promised_studies(session) == 0
        assert session.scalar(select(func.count()).where(Instance.purged_at.is_not(None))) == 2


def test_without_an_archive_it_stays_for_good(
    tmp_path: Path, database: Database, clock: Clock, with_images: Pacs,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    node = committing_node(tmp_path, database, clock, with_images)
    # Fourteen days of this rate have room, twenty have not.
    free = shutil.disk_usage(node.home.archive).free - node.settings.storage.reserve
    intake = Intake(free // 10, 2.0, free // 10, 2.0)
    assert forecast_disk(node, intake).full_in_days == pytest.approx(20, abs=1)
    archived = make_node(
        tmp_path,
        database,
        clock,
        destinations=[destination(with_images)],
        retention={"archive": "pacs"},
    )
    assert "Not in sight" in forecast_disk(archived, intake).sentence
    clock.forward(1000 * DAY)
    with caplog.at_level(logging.WARNING):
        clean_up(node)
    assert kept(node) == ["1.1"]
    assert "1 studies are older" in caplog.text and "retention.archive" in caplog.text
    with database.reading() as session:
        [study] = session.scalars(select(Study).where(Study.study_instance_uid == "1.1"))
        assert len(instances_of(session, study.id)) == 1
    if database.url.startswith("sqlite"):
        node.home.node_yaml.write_text(json.dumps({"database": {"url": database.url}}))
        node.home.rules_yaml.write_text("rules: []\n")
        shown = CliRunner().invoke(app, ["disk", "--home", str(node.home.root)])
        assert "1 studies stay, to which the node committed" in shown.stdout, shown.output


def test_a_short_disk_takes_nothing_that_was_committed(
    tmp_path: Path, sqlite_database: Database, clock: Clock, with_images: Pacs
) -> None:
    node = committing_node(tmp_path, sqlite_database, clock, with_images, studies_days=None)
    clock.forward(2 * 3600)
    full = make_node(
        tmp_path,
        sqlite_database,
        clock,
        reserve=1 << 62,
        destinations=[destination(with_images)],
        retention={"studies_days": None, "archive": "pacs"},
    )
    clean_up(full)
    assert kept(full) == ["1.1"]
    there = destination_of(full.settings.destinations[0], full.settings.tls)  # type: ignore[arg-type]
    [path] = [node.archive.absolute(path) for path in sources(node)]
    assert all(one.is_stored for one in send([path], there, calling_ae_title="MODALITY"))
    clean_up(full)
    assert kept(full) == []
