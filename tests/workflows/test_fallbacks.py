"""Each destination gets the forms that its entry in node.yaml names, in the order of sending."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.results import results_of
from db.session import Database
from tests.factories import write_ct_series
from tests.workflows.nodes import destination, encoded_job
from tests.workflows.nodes import make_node as make_small_node
from tests.workflows.pacs import COMPREHENSIVE_3D_SR, ENHANCED_SR, SEG, Pacs
from tests.workflows.whole_node import (
    Clock,
    ThresholdEngine,
    ct_volume,
    make_node,
    states,
    take_in,
)
from workflows.consider import consider_study
from workflows.delivery import deliver_job
from workflows.engine_thread import EngineThread
from workflows.examination import delivery_of, examine_job
from workflows.settings import load
from workflows.stages import encode_job, interpret_job
from workflows.yaml_positions import ConfigurationError

CAPTURE, PDF = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.104.1"
KEYS, STRUCTURES = "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.481.3"
EVERYTHING = [
    "segmentation",
    "measurement_report",
    "grounded_report",
    "structure_set",
    "secondary_capture",
    "report_document",
    "key_objects",
]


@pytest.fixture
def poor() -> Iterator[Pacs]:
    """A PACS that shows pictures and documents only."""
    pacs = Pacs(classes=(CAPTURE, PDF))
    pacs.start()
    yield pacs
    pacs.stop()


@pytest.fixture
def rich() -> Iterator[Pacs]:
    pacs = Pacs(classes=(SEG, COMPREHENSIVE_3D_SR, ENHANCED_SR, CAPTURE, PDF, KEYS, STRUCTURES))
    pacs.start()
    yield pacs
    pacs.stop()


@pytest.mark.ihe("AIR", "Evidence Creator", "RAD-29")
def test_each_destination_gets_what_it_asks_for(tmp_path: Path, poor: Pacs, rich: Pacs) -> None:
    clock = Clock()
    node = make_node(
        tmp_path / "home",
        clock,
        destinations=[
            destination(poor, "poor", objects=["secondary_capture", "report_document"]),
            destination(rich, "rich", objects=EVERYTHING),
        ],
    )
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, 1)
    engine = EngineThread(lambda: ThresholdEngine(node.model.digest))
    engine.start()
    interpret_job(node, queued.argument, engine)
    engine.stop()
    encode_job(node, queued.argument)
    deliver_job(node, queued.argument)
    assert set(states(node).values()) == {"delivered"}, states(node)
    with node.database.reading() as session:
        results = [(one.kind, one.sop_instance_uid) for one in results_of(session, 1)]
    lint = examine_job(node, queued.argument)
    assert lint.sources == len(list((tmp_path / "ct").iterdir()))
    verdicts = [one.verdict for one in lint.verdicts]
    assert len(verdicts) == len(results)
    for verdict in verdicts:
        assert verdict.problems == ()
        assert {"AIR-01", "AIR-41", "AIR-42"} <= set(verdict.held)
        assert "AIR-43" in verdict.unchecked
    node.database.dispose()
    kinds = [kind for kind, _ in results]
    assert list(dict.fromkeys(kinds)) == EVERYTHING
    assert kinds.count("secondary_capture") > 1
    assert rich.received == [uid for _, uid in results]
    wanted = ("secondary_capture", "report_document")
    assert poor.received == [uid for kind, uid in results if kind in wanted]


def test_forms_still_go_where_the_segmentation_is_refused(
    tmp_path: Path, sqlite_database: Database, clock: Clock, poor: Pacs
) -> None:
    node = make_small_node(
        tmp_path, sqlite_database, clock, destinations=[destination(poor, objects=EVERYTHING)]
    )
    kinds = {
        "segmentation": SEG,
        "measurement_report": COMPREHENSIVE_3D_SR,
        "secondary_capture": CAPTURE,
    }
    job_id = encoded_job(node, ["pacs"], kinds=kinds)
    deliver_job(node, job_id)
    assert poor.received == [f"2.25.{job_id}3"]
    with node.database.reading() as session:
        way = delivery_of(results_of(session, job_id))
    assert way.statuses is not None
    assert way.proofs == {f"2.25.{job_id}3": "find"}
    assert way.statuses.get(f"2.25.{job_id}3") == 0
    assert states(node)[job_id] == "failed"


def test_reports_without_their_segmentation_are_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(
        "destinations:\n  - name: pacs\n    ae_title: P\n    host: h\n    port: 104\n"
        "    objects: [grounded_report]\n"
    )
    with pytest.raises(ConfigurationError, match=r"refers to .*list segmentation too"):
        load(path)
