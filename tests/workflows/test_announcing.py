"""MPPS, availability notifications and the PACS's own list as evidence of completeness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import select

from db.models import Job
from db.models_told import AnnouncedInstances
from db.resting import hurry
from dicom_node.peers import Peer, Peers
from dicom_node.services.announcements import AnnouncementScp
from dicom_node.services.association import AVAILABILITY, PROCEDURE_STEP, ListenerSettings
from dicom_node.services.storage_scp import StorageScp
from tests.factories import write_ct_series
from tests.workflows.pacs import Pacs
from tests.workflows.whole_node import Clock, ct_volume, make_node, take_in
from workflows.announcing import NodeAnnouncements
from workflows.archive_count import missing_here
from workflows.consider import consider_study
from workflows.node import Node

STEP = "1.2.3.4.5"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(tmp_path: Path, clock: Clock) -> Iterator[Node]:
    node = make_node(tmp_path / "home", clock)
    yield node
    node.database.dispose()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_ct_series(tmp_path / "ct", ct_volume())


@pytest.fixture
def ris(node: Node) -> Iterator[Association]:
    """Give an association of a scanner or RIS that may notify."""
    scp = StorageScp(
        ListenerSettings(host="127.0.0.1", port=0),
        node.archive,
        lambda: Peers([Peer("ris", "RIS", allow=frozenset({"notify"}))]),
        on_stored=lambda _: None,
        on_quarantined=lambda _: None,
        on_released=lambda _: None,
        on_refused=lambda _: None,
        services=[AnnouncementScp(NodeAnnouncements(node.database, node.now))],
    )
    scp.start()
    caller = AE(ae_title="RIS")
    caller.add_requested_context(PROCEDURE_STEP)
    caller.add_requested_context(AVAILABILITY)
    association = caller.associate("127.0.0.1", scp.port, ae_title="UNIBIOMED")
    assert association.is_established
    yield association
    association.release()
    scp.stop(5)


def _items(keyword: str, *items: Dataset) -> Dataset:
    dataset = Dataset()
    setattr(dataset, keyword, list(items))
    return dataset


def _references(uids: list[str]) -> list[Dataset]:
    made = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2", uid
        made.append(item)
    return made


def step(status: str, study: str = "", uids: list[str] | None = None) -> Dataset:
    """Give what a modality says of its procedure step."""
    told = Dataset()
    told.PerformedProcedureStepStatus = status
    if study:
        scheduled = Dataset()
        scheduled.StudyInstanceUID = study
        told.ScheduledStepAttributesSequence = [scheduled]
    if uids is not None:
        told.PerformedSeriesSequence = [_items("ReferencedImageSequence", *_references(uids))]
    return told


def uids_of(paths: list[Path]) -> tuple[str, list[str]]:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    return str(headers[0].StudyInstanceUID), [str(one.SOPInstanceUID) for one in headers]


def waiting(node: Node) -> str:
    """Say why the study waits, or that it does not."""
    consider_study(node, 1)
    with node.database.reading() as session:
        job = session.scalars(select(Job)).first()
        assert job is not None
        return job.wait_reason if job.state == "waiting" else str(job.state)


@pytest.mark.ihe("SWF.b", "Evidence Creator, Image Manager (in part)", "RAD-6", "RAD-7")
def test_a_study_waits_for_its_procedure_step_and_its_last_instance(
    node: Node, clock: Clock, ris: Association, paths: list[Path]
) -> None:
    study, uids = uids_of(paths)
    status, _ = ris.send_n_create(step("IN PROGRESS", study), PROCEDURE_STEP, STEP)
    assert status.Status == 0
    take_in(node, paths[:-1])
    clock.forward(30)
    assert "its procedure step is in progress" in waiting(node)
    status, _ = ris.send_n_set(step("COMPLETED", uids=uids), PROCEDURE_STEP, STEP)
    assert status.Status == 0
    assert "7 of 8 announced instances" in waiting(node)
    take_in(node, paths)
    clock.forward(3)
    with node.database.session() as session:
        # As the end of the association does that brought it.
        hurry(session, 1, node.now())
    assert waiting(node) == "queued"


def test_a_step_that_never_ends_does_not_hold_a_study_for_ever(
    node: Node, clock: Clock, ris: Association, paths: list[Path]
) -> None:
    study, _ = uids_of(paths)
    ris.send_n_create(step("IN PROGRESS", study), PROCEDURE_STEP, STEP)
    take_in(node, paths)
    clock.forward(601)
    assert waiting(node) == "queued"


@pytest.mark.ihe("SWF.b", "Evidence Creator, Image Manager (in part)", "RAD-49")
def test_a_notification_completes_a_study_before_it_was_quiet(
    node: Node, clock: Clock, ris: Association, paths: list[Path]
) -> None:
    study, uids = uids_of(paths)
    take_in(node, paths)
    clock.forward(3)
    assert "so far" in waiting(node)
    told = _items("ReferencedSeriesSequence",
                  _items("ReferencedSOPSequence", *_references(uids)))  # fmt: skip
    told.StudyInstanceUID = study
    status, _ = ris.send_n_create(told, AVAILABILITY, "1.2.3.9")
    assert status.Status == 0
    assert waiting(node) == "queued"


def test_wrong_announcements_get_the_right_status(node: Node, ris: Association) -> None:
    known = step("IN PROGRESS", "1.2.3", [])
    for told, uid, expected in (
        (known, STEP, 0x0000),
        (known, STEP, 0x0111),
        (step("IN PROGRESS"), "1.2.3.6", 0x0120),
        (step("SOMETHING", "1.2.3"), "1.2.3.7", 0x0120),
    ):
        status, _ = ris.send_n_create(told, PROCEDURE_STEP, uid)
        assert status.Status == expected
    for uid, expected in (("1.2.3.99", 0x0112), (STEP, 0x0000), (STEP, 0x0110)):
        status, _ = ris.send_n_set(step("COMPLETED"), PROCEDURE_STEP, uid)
        assert status.Status == expected, "an ended step does not change any more"
    assert status.ErrorID == 0xA710
    with node.database.reading() as session:
        assert [one.state for one in session.scalars(select(AnnouncedInstances))] == ["completed"]


def test_an_archive_that_is_away_holds_up_nothing(
    pacs: Pacs, tmp_path: Path, clock: Clock, paths: list[Path]
) -> None:
    there = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port,
             "connection_timeout_seconds": 1.0}  # fmt: skip
    node = make_node(tmp_path / "home", clock, destinations=[there], completion={"ask": "pacs"})
    pacs.stop()
    take_in(node, paths)
    assert missing_here(node, 1) == 0
    clock.forward(21)
    assert waiting(node) == "queued"
    node.database.dispose()
