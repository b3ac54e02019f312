"""A destination that refuses the class of an object is sent another form, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.probes import accepted_by
from tests.factories import write_ct_series
from tests.workflows.nodes import destination, told
from tests.workflows.pacs import COMPREHENSIVE_3D_SR, ENHANCED_SR, SEG, Pacs
from tests.workflows.whole_node import Clock, ThresholdEngine, make_node, take_in
from workflows.consider import consider_study
from workflows.delivery import deliver_job
from workflows.engine_thread import EngineThread
from workflows.node import Node
from workflows.stages import encode_job, interpret_job

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@pytest.fixture
def start() -> Iterator[Callable[..., Pacs]]:
    """Start a PACS; it ends with the test, however that ends."""
    running: list[Pacs] = []

    def begin(**settings: Any) -> Pacs:
        running.append(Pacs(**settings))
        running[-1].start()
        return running[-1]

    yield begin
    for pacs in running:
        pacs.stop()


def run_to_delivery(tmp_path: Path, *entries: dict[str, Any]) -> tuple[Node, int, Clock]:
    """Return a node and its job, after the first attempt to deliver it."""
    clock = Clock()
    node = make_node(tmp_path / "home", clock, destinations=list(entries))
    # 33 x 37 pixels do not end on whole bytes: who garbles BINARY is sent a label map.
    volume = np.zeros((4, 33, 37), np.int16)
    volume[1:3, 10:20, 10:20] = 150
    take_in(node, write_ct_series(tmp_path / "ct", volume))
    clock.forward(21)
    (queued,) = consider_study(node, 1)
    engine = EngineThread(lambda: ThresholdEngine(node.model.digest))
    engine.start()
    try:
        interpret_job(node, queued.argument, engine)
    finally:
        engine.stop()
    encode_job(node, queued.argument)
    deliver_job(node, queued.argument)
    return node, queued.argument, clock


@pytest.mark.parametrize(
    ("classes", "entry", "expected", "words"),
    [
        ((SEG, ENHANCED_SR), {}, [SEG, ENHANCED_SR, ENHANCED_SR], "no Comprehensive 3D SR"),
        (
            (SEG, COMPREHENSIVE_3D_SR, ENHANCED_SR),
            {"seg_encoding": "labelmap"},
            [SEG, COMPREHENSIVE_3D_SR, ENHANCED_SR],
            "written anew as Segmentation",
        ),
        (
            (LABEL_MAP, COMPREHENSIVE_3D_SR, ENHANCED_SR),
            {"seg_encoding": "binary"},
            [LABEL_MAP, COMPREHENSIVE_3D_SR, ENHANCED_SR],
            "no Segmentation Storage",
        ),
    ],
)
def test_another_form_is_delivered(
    tmp_path: Path,
    classes: tuple[str, ...],
    entry: dict[str, Any],
    expected: list[str],
    words: str,
    start: Callable[..., Pacs],
) -> None:
    pacs = start(classes=classes)
    node, job_id, _ = run_to_delivery(tmp_path, destination(pacs, **entry))
    before = told(node, job_id)
    assert before["state"] == "encoding"
    sent = list(pacs.received)
    encode_job(node, job_id)
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "delivered", job
    assert [line["sop_class_uid"] for line in job["results"]] == expected
    # What was stored before is not sent twice, and nothing else arrived.
    uids = [line["sop_instance_uid"] for line in job["results"]]
    assert sorted(pacs.received) == sorted(uids) and set(sent) <= set(uids)
    assert any(words in event["text"] for event in job["events"]), job["events"]
    # The next job goes by it from the start.
    with node.database.reading() as session:
        [refused] = [uid for uid, taken in accepted_by(session, ["pacs"])["pacs"].items()
                     if not taken]  # fmt: skip
    assert refused not in classes
    node.database.dispose()


def test_what_a_viewer_would_garble_is_not_sent_instead(
    tmp_path: Path, start: Callable[..., Pacs]
) -> None:
    pacs = start()
    node, job_id, _ = run_to_delivery(tmp_path, destination(pacs, garbles_unaligned=True))
    job = told(node, job_id)
    assert job["state"] == "failed" and not pacs.received
    assert "does not take" in job["error"]
    node.database.dispose()


def test_who_takes_neither_form_ends_with_a_reason(
    tmp_path: Path, start: Callable[..., Pacs]
) -> None:
    pacs = start(classes=(COMPREHENSIVE_3D_SR, ENHANCED_SR))
    node, job_id, _ = run_to_delivery(tmp_path, destination(pacs))
    for _ in range(2):
        encode_job(node, job_id)
        deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "failed" and "does not take" in job["error"]
    node.database.dispose()


def test_what_another_destination_has_is_not_written_anew(
    tmp_path: Path, start: Callable[..., Pacs]
) -> None:
    first, second = start(), start(classes=(SEG, ENHANCED_SR))
    node, job_id, _ = run_to_delivery(
        tmp_path, destination(first, "first"), destination(second, "second", ae_title="PACS2")
    )
    job = told(node, job_id)
    assert job["state"] == "failed" and len(first.received) == 3
    node.database.dispose()
