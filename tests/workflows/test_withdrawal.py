"""Withdrawing results: the note reaches who acts on it, others are told what to do by hand."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.errors import FinalError
from dicom_node.objects.fallback_key_objects import Rejection
from tests.factories import write_ct_series
from tests.workflows.nodes import destination, told
from tests.workflows.pacs import COMPREHENSIVE_3D_SR, ENHANCED_SR, SEG, Pacs
from tests.workflows.whole_node import (
    Clock,
    ThresholdEngine,
    ct_volume,
    make_node,
    take_in,
)
from workflows.consider import consider_study
from workflows.delivery import deliver_job
from workflows.engine_thread import EngineThread
from workflows.node import Node
from workflows.stages import encode_job, interpret_job
from workflows.withdrawal import withdraw

KEYS = "1.2.840.10008.5.1.4.1.1.88.59"
WORDS = "the mask lies on the wrong side"


@pytest.fixture
def acting() -> Iterator[Pacs]:
    """A PACS that acts on rejection notes."""
    pacs = Pacs(classes=(SEG, COMPREHENSIVE_3D_SR, ENHANCED_SR, KEYS))
    pacs.start()
    yield pacs
    pacs.stop()


@pytest.fixture
def node(tmp_path: Path, acting: Pacs, pacs: Pacs) -> Iterator[Node]:
    """Return a node whose only job is encoded and ready to go to two destinations."""
    clock = Clock()
    node = make_node(
        tmp_path / "home",
        clock,
        destinations=[
            destination(acting, "acting", rejection_notes=True),
            destination(pacs, "plain"),
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
    yield node
    node.database.dispose()


def test_the_note_goes_where_it_is_acted_on(node: Node, acting: Pacs, pacs: Pacs) -> None:
    deliver_job(node, 1)
    sent = list(acting.received)
    outcomes = {
        one.destination: one for one in withdraw(node, 1, Rejection.QUALITY, WORDS, "somebody")
    }
    assert outcomes["acting"].done and not outcomes["plain"].done
    assert "by hand" in outcomes["plain"].sentence
    assert pacs.received == sent
    (uid,) = acting.received[len(sent) :]
    note = dcmread(BytesIO(acting.data[uid][0]), force=True)
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    named = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    ]
    assert named == sent
    assert WORDS in note.ContentSequence[-len(named) - 1].TextValue
    events = [event["text"] for event in told(node, 1)["events"]]
    assert any("withdrawn by somebody (quality: the mask lies" in text for text in events)


def test_asked_again_it_sends_the_same_note(node: Node, acting: Pacs) -> None:
    deliver_job(node, 1)
    for _ in range(2):
        withdraw(node, 1, Rejection.PATIENT_SAFETY, WORDS, "somebody")
    first, second = acting.data[acting.received[-1]]
    assert first == second and acting.received[-1] == acting.received[-2]


def test_a_destination_that_is_away_is_told_and_nothing_is_lost(node: Node, acting: Pacs) -> None:
    deliver_job(node, 1)
    acting.stop()
    first = {one.destination: one for one in withdraw(node, 1, Rejection.QUALITY, WORDS, "me")}
    assert not first["acting"].done and "again later" in first["acting"].sentence
    acting.start()
    again = {one.destination: one for one in withdraw(node, 1, Rejection.QUALITY, WORDS, "me")}
    assert again["acting"].done


def test_what_was_not_sent_is_not_withdrawn(node: Node) -> None:
    with pytest.raises(FinalError, match="nothing of job 1 was sent"):
        withdraw(node, 1, Rejection.QUALITY, WORDS, "somebody")
    with pytest.raises(FinalError, match="no job 77"):
        withdraw(node, 77, Rejection.QUALITY, WORDS, "somebody")
