"""Withdrawing results: the note reaches who acts on it, others are told what to do by hand."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dashboard.images import segmentation_of
from db.models import Job
from db.models_access import AuditRecord
from db.orders import Order, give
from db.query import describe, find
from db.results import sent_before
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
    there = [destination(acting, "acting", rejection_notes=True), destination(pacs, "plain")]
    node = encoded(tmp_path, there)
    yield node
    node.database.dispose()


def encoded(tmp_path: Path, destinations: list[dict[str, Any]], **settings: Any) -> Node:
    """Return a node with one job that is encoded and ready to go."""
    clock = Clock()
    node = make_node(tmp_path / "home", clock, destinations=destinations, **settings)
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, 1)
    _interpret(node, queued.argument)
    return node


def _interpret(node: Node, job_id: int) -> None:
    engine = EngineThread(lambda: ThresholdEngine(node.model.digest))
    engine.start()
    interpret_job(node, job_id, engine)
    engine.stop()
    encode_job(node, job_id)


@pytest.mark.ihe("IOCM", "Change Requester", "RAD-66")
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


def test_what_is_not_there_or_not_ended_is_not_withdrawn(node: Node) -> None:
    with pytest.raises(FinalError, match=r"job 1 is still at work .* cancel it first"):
        withdraw(node, 1, Rejection.QUALITY, WORDS, "somebody")
    with pytest.raises(FinalError, match="no job 77"):
        withdraw(node, 77, Rejection.QUALITY, WORDS, "somebody")


def _modalities(node: Node) -> set[str]:
    with node.database.reading() as session:
        found = describe(session, find(session, "instance", {}), {"Modality"})
    return {one.attributes["Modality"] for one in found}


@pytest.mark.parametrize(
    ("rejection", "shown"),
    [
        (Rejection.QUALITY, {"CT", "KO"}),
        (Rejection.PATIENT_SAFETY, {"CT", "KO"}),
        (Rejection.RETENTION, {"CT"}),
    ],
)
def test_the_node_itself_gives_out_the_note_and_no_result(
    node: Node, acting: Pacs, rejection: Rejection, shown: set[str]
) -> None:
    deliver_job(node, 1)
    assert _modalities(node) == {"CT", "SEG", "SR"}
    acting.stop()  # It does not depend on any destination.
    kept: list[AuditRecord] = []
    withdraw(node, 1, rejection, WORDS, "somebody", kept.append)
    assert _modalities(node) == shown
    results = told(node, 1)["results"]
    withdrawn = {one["kind"] for one in results if one["withdrawn_at"]}
    assert {"segmentation", "measurement_report", "grounded_report"} <= withdrawn
    assert results[0]["withdrawn_because"] == WORDS
    assert [one["kind"] for one in results].count("rejection_note") == 1
    (entry,) = kept
    assert (entry.action, entry.target, entry.account) == (
        "results.withdraw", "job 1", "somebody")  # fmt: skip
    assert entry.details["because"] == WORDS and len(entry.details["instances"]) == 3
    assert segmentation_of(node, 1) is None
    with node.database.reading() as session:
        assert sent_before(session, 1, ["measurement_report"]) == []


def test_results_that_were_sent_nowhere_are_withdrawn_too(tmp_path: Path) -> None:
    node = encoded(tmp_path, [])
    deliver_job(node, 1)
    assert withdraw(node, 1, Rejection.QUALITY, WORDS, "somebody") == []
    assert _modalities(node) == {"CT", "KO"}
    with node.database.reading() as session:
        assert "results were withdrawn" in session.get_one(Job, 1).wait_reason
    node.database.dispose()


def test_a_cancelled_job_goes_on_only_from_the_start(node: Node) -> None:
    with node.database.session() as session:
        (cancelled,) = give(session, Order.CANCEL, [1], "me", node.now())
        assert cancelled.done
    withdraw(node, 1, Rejection.QUALITY, WORDS, "somebody")
    with node.database.session() as session:
        (answer,) = give(session, Order.RETRY, [1], "me", node.now())
        assert not answer.done and "only begin anew" in answer.sentence
        (answer,) = give(session, Order.RESTART, [1], "me", node.now())
        assert answer.done
    _interpret(node, 1)
    deliver_job(node, 1)
    assert _modalities(node) == {"CT", "SEG", "SR", "KO"}
    kinds = [one["kind"] for one in told(node, 1)["results"]]
    assert kinds[0] == "rejection_note" and len(set(kinds)) == 4
