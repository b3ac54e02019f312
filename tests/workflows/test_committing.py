"""Storage commitment: reports at once, hours later, after a restart, and with failures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from sqlalchemy import select

from db.commitments import asked_by
from db.jobs import JobState
from db.models import DeliveryRecord, DeliveryState, Job
from db.models_told import Commitment
from db.results import results_of
from db.session import Database
from dicom_node.services.commitment import COMMITMENT_INSTANCE, Reference, Report
from tests.workflows.nodes import Clock, destination, encoded_job, make_node
from tests.workflows.pacs import COMMITMENT, Pacs
from workflows.committing import NodeLedger
from workflows.delivery import deliver_job
from workflows.examination import delivery_of, problems_on_the_way
from workflows.node import Node


@pytest.fixture
def committing(pacs: Pacs) -> list[Dataset]:
    """Let the PACS take requests for commitment; returns what it was asked."""
    asked: list[Dataset] = []

    def taken(_: object, information: Dataset) -> int:
        asked.append(information)
        return 0

    pacs.stop()
    pacs.commits = taken
    pacs.start()
    return asked


@pytest.fixture
def node(pacs: Pacs, clock: Clock, sqlite_database: Database, tmp_path: Path,
         monkeypatch: pytest.MonkeyPatch) -> Node:  # fmt: skip
    monkeypatch.setattr("workflows.committing._SAME_ASSOCIATION_SECONDS", 0.2)
    return make_node(
        tmp_path,
        sqlite_database,
        clock,
        peers=[{"name": "pacs", "ae_title": "PACS", "allow": ["commit"]}],
        destinations=[destination(pacs, confirm="commitment")],
    )


def job_of(node: Node, job_id: int) -> Job:
    with node.database.reading() as session:
        return session.get_one(Job, job_id)


def report_of(asked: Dataset, **reasons: int) -> Report:
    references = [
        Reference(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID,
                  reasons.get(f"n{number}"))
        for number, one in enumerate(asked.ReferencedSOPSequence)
    ]  # fmt: skip
    return Report(asked.TransactionUID, tuple(references))


@contextmanager
def restarted(node: Node) -> Iterator[NodeLedger]:
    """Give a ledger as another process has it, later."""
    database = Database(node.database.url)
    yield NodeLedger(database, lambda: node.settings, node.now)
    database.dispose()


def reported(node: Node, ae_title: str, report: Report) -> bool:
    """Tell a restarted node of a report."""
    with restarted(node) as ledger:
        return ledger.reported(ae_title, report)


@pytest.mark.ihe("AIR", "Evidence Creator", "RAD-10")
def test_a_report_hours_later_delivers_the_job(
    node: Node, pacs: Pacs, clock: Clock, committing: list[Dataset]
) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    assert "asked to commit to 3 objects" in job_of(node, job_id).wait_reason
    with node.database.reading() as session:
        waiting = {problem.rule for problem in problems_on_the_way(session, job_id)}
    assert waiting == {"AIR-41", "AIR-43"}
    clock.forward(3600)
    deliver_job(node, job_id)
    assert len(committing) == 1, "asked once"
    clock.forward(12 * 3600)
    assert reported(node, "PACS", report_of(committing[0]))
    assert job_of(node, job_id).next_attempt_at == clock.at, "looked at as soon as it comes"
    deliver_job(node, job_id)
    assert job_of(node, job_id).state is JobState.DELIVERED
    assert len(pacs.received) == 3
    with node.database.reading() as session:
        assert set(session.scalars(select(DeliveryRecord.confirmed_by))) == {"commitment"}
        assert problems_on_the_way(session, job_id) == []
        given = delivery_of(results_of(session, job_id), asked_by(session, job_id))
    assert given.commitments == {committing[0].TransactionUID: dict.fromkeys(pacs.received, True)}


def test_without_a_report_it_is_asked_again_after_a_day(
    node: Node, clock: Clock, committing: list[Dataset]
) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    clock.forward(25 * 3600)
    deliver_job(node, job_id)
    assert len(committing) == 2
    assert reported(node, "PACS", report_of(committing[0])), "the late one counts, too"
    deliver_job(node, job_id)
    assert job_of(node, job_id).state is JobState.DELIVERED
    with node.database.reading() as session:
        assert problems_on_the_way(session, job_id) == []


def test_a_report_on_the_same_association_counts_at_once(
    node: Node, pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.committing._SAME_ASSOCIATION_SECONDS", 20.0)
    answered: list[int] = []

    def commit(association: Any, information: Dataset) -> int:
        def tell() -> None:
            status, _ = association.send_n_event_report(
                information, 1, COMMITMENT, COMMITMENT_INSTANCE
            )
            answered.append(status.Status)

        # After the answer to the request, which goes out when this returns.
        threading.Timer(0.3, tell).start()
        return 0

    pacs.stop()
    pacs.commits = commit
    pacs.start()
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    assert job_of(node, job_id).state is JobState.DELIVERED


def test_what_is_not_committed_is_sent_again(
    node: Node, pacs: Pacs, clock: Clock, committing: list[Dataset]
) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    reported(node, "PACS", report_of(committing[0], n1=0x0112))
    deliver_job(node, job_id)
    assert "0112: it does not have the instance" in job_of(node, job_id).wait_reason
    clock.forward(3600)
    deliver_job(node, job_id)
    assert len(pacs.received) == 4
    assert len(committing) == 2
    (again,) = committing[1].ReferencedSOPSequence
    assert again.ReferencedSOPInstanceUID == pacs.received[-1]
    reported(node, "PACS", report_of(committing[1]))
    deliver_job(node, job_id)
    assert job_of(node, job_id).state is JobState.DELIVERED


def test_a_class_that_it_does_not_keep_is_final(node: Node, committing: list[Dataset]) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    reported(node, "PACS", report_of(committing[0], n0=0x0122))
    deliver_job(node, job_id)
    assert job_of(node, job_id).state is JobState.FAILED
    assert "does not take this SOP class" in job_of(node, job_id).error
    assert "set confirm: find for this destination, then retry" in job_of(node, job_id).error
    with node.database.reading() as session:
        states = session.scalars(select(DeliveryRecord.state)).all()
    assert sorted(states) == sorted([DeliveryState.REFUSED, *2 * [DeliveryState.CONFIRMED]])


def test_a_pacs_without_commitment_is_said_so(node: Node) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    failed = job_of(node, job_id)
    assert failed.state is JobState.FAILED
    assert "set confirm: find for this destination" in failed.error
    with node.database.reading() as session:
        assert session.scalars(select(Commitment)).all() == []


def test_only_who_was_asked_may_answer(node: Node, committing: list[Dataset]) -> None:
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    assert not reported(node, "OTHER", report_of(committing[0]))
    assert job_of(node, job_id).state is not JobState.DELIVERED


def test_a_pacs_may_report_under_another_ae_title(
    tmp_path: Path,
    sqlite_database: Database,
    clock: Clock,
    pacs: Pacs,
    committing: list[Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workflows.committing._SAME_ASSOCIATION_SECONDS", 0.2)
    node = make_node(
        tmp_path,
        sqlite_database,
        clock,
        peers=[{"name": "committer", "ae_title": "PACS_SC", "allow": ["commit"]}],
        destinations=[{**destination(pacs, confirm="commitment"), "commitment_from": ["PACS_SC"]}],
    )
    job_id = encoded_job(node, ["pacs"])
    deliver_job(node, job_id)
    assert not reported(node, "PACS", report_of(committing[0])), "nobody calls itself so there"
    assert reported(node, "PACS_SC", report_of(committing[0]))
    deliver_job(node, job_id)
    assert job_of(node, job_id).state is JobState.DELIVERED


def test_a_transaction_uid_is_taken_once(node: Node) -> None:
    with restarted(node) as ledger:
        assert ledger.requested("CT1", "1.2.3", [Reference("1.2", "1.2.3.4")])
        assert not ledger.requested("CT1", "1.2.3", [Reference("1.2", "1.2.3.5")])
        assert ledger.requested("CT2", "1.2.3", [Reference("1.2", "1.2.3.4")])
