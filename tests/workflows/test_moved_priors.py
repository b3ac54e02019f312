"""Priors by C-MOVE: only what the node asked for is kept as such, and what goes wrong is told."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid
from pynetdicom import AE, build_context, evt
from pynetdicom.events import Event
from sqlalchemy import func, select

from db import own_moves
from db.jobs import job_as_json
from db.models import Instance, Job
from db.models_told import OwnMove
from dicom_node.errors import FinalError
from dicom_node.peers import Peer
from dicom_node.services.association import Destination
from dicom_node.services.command_set import Originator
from dicom_node.services.events import MovedInstance
from dicom_node.services.storage_scu import StoreStatus, send
from tests.factories import write_ct_series
from tests.listening import LOOPBACK, listening
from tests.workflows.whole_node import Clock, ct_volume, make_node, take_in
from workflows.listener import Listener
from workflows.node import Node
from workflows.own_moves import ExpectedInstances
from workflows.priors import fetch_priors, priors_folder, priors_of
from workflows.settings import load
from workflows.yaml_positions import ConfigurationError

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"


def study(folder: Path, date: str) -> list[Path]:
    """Write a study of one patient on a day."""
    paths = write_ct_series(folder, ct_volume()[:3])
    for path in paths:
        image = pydicom.dcmread(path)
        image.PatientID, image.StudyDate, image.StudyTime = "P1", date, "101500"
        image.save_as(path)
    return paths


class MovingPacs:
    """Has one study, and offers C-FIND and C-MOVE only.

    Attributes
    ----------
    to
        The port that it believes the node to be at.
    moves
        What it sends when it is asked to, with the number that it announces.
    """

    def __init__(self, kept: list[Dataset]) -> None:
        self.kept = kept
        self.to = 0
        self.moves: Callable[[Event], Iterator[Any]] = self.all
        self.leave = threading.Event()
        entity = AE("PACS")
        entity.add_supported_context(FIND)
        entity.add_supported_context(MOVE)
        contexts = [build_context(CTImageStorage)]
        entity.requested_contexts = contexts
        self._server = listening(
            entity, [(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move)]
        )
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        self.leave.set()
        self._server.shutdown()

    def all(self, _: Event) -> Iterator[Any]:
        yield len(self.kept)
        for dataset in self.kept:
            yield 0xFF00, dataset

    def nothing(self, _: Event) -> Iterator[Any]:
        yield 0

    def silence(self, _: Event) -> Iterator[Any]:
        self.leave.wait(60)
        yield 0

    def without_end(self, event: Event) -> Iterator[Any]:
        yield 60000
        for dataset in itertools.cycle(self.kept):
            if event.is_cancelled or self.leave.is_set():
                yield 0xFE00, None
                return
            yield 0xFF00, dataset

    def _find(self, _: Event) -> Iterator[tuple[int, Dataset]]:
        found = Dataset()
        found.QueryRetrieveLevel = "STUDY"
        found.PatientID, found.ModalitiesInStudy = "P1", "CT"
        for keyword in ("StudyInstanceUID", "StudyDate", "StudyTime"):
            setattr(found, keyword, self.kept[0].get(keyword))
        yield 0xFF00, found

    def _move(self, event: Event) -> Iterator[Any]:
        yield LOOPBACK, self.to
        yield from self.moves(event)


@pytest.fixture
def earlier(tmp_path: Path) -> list[Path]:
    return study(tmp_path / "earlier", "20240601")


@pytest.fixture
def pacs(earlier: list[Path]) -> Iterator[MovingPacs]:
    running = MovingPacs([pydicom.dcmread(path) for path in earlier])
    yield running
    running.stop()


@pytest.fixture
def node(pacs: MovingPacs, tmp_path: Path) -> Iterator[Node]:
    """A node with a job, whose listener runs in this process; the PACS knows where."""
    made = make_node(
        tmp_path / "home",
        node={"host": LOOPBACK, "port": 0},
        listener={"stop_timeout_seconds": 0.3},
        peers=[
            {"name": "pacs", "ae_title": "PACS", "host": LOOPBACK},
            {"name": "scanner", "ae_title": "SCANNER", "host": LOOPBACK},
        ],
        destinations=[{"name": "pacs", "ae_title": "PACS", "host": LOOPBACK, "port": pacs.port}],
        priors={"destination": "pacs", "longest_seconds": 20.0},
    )
    take_in(made, study(tmp_path / "now", "20250101"))
    with made.database.session() as session:
        # As the rules do when they queue it.
        session.get_one(Job, 1).modality = "CT"
    listener = Listener(made)
    listener.start()
    pacs.to = listener.port
    yield made
    listener.stop()


def within(node: Node, seconds: float) -> Node:
    """Give the node less patience for a move."""
    configuration = node.configuration
    priors = configuration.settings.priors.model_copy(update={"longest_seconds": seconds})
    settings = configuration.settings.model_copy(update={"priors": priors})
    return replace(node, configuration=replace(configuration, settings=settings))


def registered(node: Node) -> int:
    with node.database.reading() as session:
        return session.scalar(select(func.count()).select_from(Instance)) or 0


def said(node: Node) -> str:
    with node.database.reading() as session:
        return str(job_as_json(session, 1))


def test_what_was_moved_here_is_kept_with_the_job_and_opens_none(
    node: Node, earlier: list[Path]
) -> None:
    fetch_priors(node, 1)
    [files] = priors_of(node, 1).values()
    wanted = {pydicom.dcmread(path).SOPInstanceUID for path in earlier}
    assert {pydicom.dcmread(path).SOPInstanceUID for path in files} == wanted
    assert "1 priors were fetched from pacs by C-MOVE" in said(node)
    assert registered(node) == 3, "the images of the job alone"
    with node.database.reading() as session:
        move = session.scalars(select(OwnMove)).one()
        assert session.scalar(select(func.count()).select_from(Job)) == 1
    assert move.ended_at is not None and move.message_id == 30_001


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        ("nothing", "its C-MOVE brought nothing of study"),
        ("silence", "did not end a C-MOVE within 0.3 s"),
        ("without_end", "did not end a C-MOVE within 0.3 s"),
    ],
)
def test_a_move_that_comes_to_nothing_is_told(
    node: Node, pacs: MovingPacs, moves: str, words: str
) -> None:
    pacs.moves = getattr(pacs, moves)
    fetch_priors(within(node, 0.3), 1)
    assert "it goes on without priors" in said(node) and words in said(node)
    assert priors_of(node, 1) == {}
    assert [path.name for path in priors_folder(node, 1).iterdir()] == ["priors.json"]
    assert registered(node) == 3


def test_images_that_fail_are_counted(node: Node, pacs: MovingPacs) -> None:
    broken = pydicom.dcmread(pacs.kept[0].filename)
    broken.SOPInstanceUID = generate_uid()
    del broken.SeriesInstanceUID
    pacs.kept.append(broken)
    fetch_priors(node, 1)
    assert "1 priors were fetched from pacs by C-MOVE: 1 images of study" in said(node)
    [files] = priors_of(node, 1).values()
    assert len(files) == 3


def test_a_pacs_that_takes_another_computer_for_the_node_is_told(
    node: Node, pacs: MovingPacs
) -> None:
    other = AE("UNIBIOMED")
    other.add_supported_context(CTImageStorage)
    elsewhere = listening(other, [(evt.EVT_C_STORE, lambda _: 0)])
    try:
        pacs.to = int(elsewhere.server_address[1])
        fetch_priors(node, 1)
    finally:
        elsewhere.shutdown()
    assert "it says that it moved 3 images" in said(node)
    assert "it must know UNIBIOMED, with this node's host and port" in said(node)


def test_who_may_not_store_here_is_not_asked_to_move(node: Node, pacs: MovingPacs) -> None:
    configuration = node.configuration
    settings = configuration.settings.model_copy(update={"peers": ()})
    fetch_priors(replace(node, configuration=replace(configuration, settings=settings)), 1)
    assert "offers no C-GET to this node; and by C-MOVE it could not bring anything" in said(node)
    assert "list PACS under peers" in said(node)


def under_way(node: Node, study_instance_uid: str, **changes: Any) -> OwnMove:
    with node.database.session() as session:
        return own_moves.begin(
            session,
            job_id=1,
            study_instance_uid=study_instance_uid,
            folder=f"1/priors/{study_instance_uid}",
            senders=["PACS"],
            originator="UNIBIOMED",
            now=node.now(),
            until=changes.get("until", node.now() + timedelta(minutes=1)),
        )


def test_nobody_else_brings_a_study_past_the_rules_by_saying_that_it_was_moved(
    node: Node, pacs: MovingPacs, earlier: list[Path]
) -> None:
    uid = str(pacs.kept[0].StudyInstanceUID)
    move = under_way(node, uid)
    folder = priors_folder(node, 1) / uid
    folder.mkdir(parents=True)
    there = Destination("node", "UNIBIOMED", LOOPBACK, pacs.to)

    def sent(path: Path, calling: str, originator: Originator | None) -> StoreStatus:
        [status] = send([path], there, calling_ae_title=calling, originator=originator)
        return status

    asked = Originator("UNIBIOMED", move.message_id)
    assert sent(earlier[0], "SCANNER", asked).is_stored
    assert sent(earlier[1], "PACS", None).is_stored
    assert (registered(node), list(folder.iterdir())) == (5, [])
    assert sent(earlier[2], "PACS", asked).is_stored
    assert registered(node) == 5
    [kept] = folder.iterdir()
    assert pydicom.dcmread(kept).SOPInstanceUID == pydicom.dcmread(earlier[2]).SOPInstanceUID
    with node.database.session() as session:
        own_moves.end(session, move.id, node.now())
    assert sent(earlier[2], "PACS", asked).status == 0x0124, "it was given up"
    assert registered(node) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"calling_ae_title": "SCANNER"},
        {"peer": None},
        {"peer": Peer("anybody", "*")},
        {"originator": Originator("WORKSTATION", 30_001)},
        {"originator": Originator("UNIBIOMED", 1)},
        {"study_instance_uid": "1.2.3.5"},
    ],
)
def test_each_part_of_the_claim_is_looked_at(tmp_path: Path, changes: dict[str, Any]) -> None:
    clock = Clock()
    node = make_node(tmp_path / "home", clock)
    take_in(node, study(tmp_path / "now", "20250101"))
    move = under_way(node, "1.2.3.4")
    true = MovedInstance("PACS", Peer("pacs", "PACS"), Originator("UNIBIOMED", 30_001), "1.2.3.4")
    expected = ExpectedInstances(node)
    assert expected.folder_for(true) == node.home.work / "1" / "priors" / "1.2.3.4"
    assert expected.folder_for(replace(true, **changes)) is None
    again = under_way(node, "1.2.3.4")
    assert again.message_id != move.message_id
    with pytest.raises(FinalError, match="given up"):
        expected.folder_for(true)
    clock.forward(3600)
    assert expected.folder_for(true) is None, "by now somebody else may have asked"
    overdue = under_way(node, "1.2.3.4", until=node.now())
    with pytest.raises(FinalError, match="given up"):
        expected.folder_for(replace(true, originator=Originator("UNIBIOMED", overdue.message_id)))
    node.database.dispose()


def test_a_pacs_that_shall_move_must_be_allowed_to_store(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    text = (
        "destinations: [{name: pacs, ae_title: PACS, host: h, port: 104}]\n"
        "priors: {destination: pacs, by: move}\n"
        "peers: [{name: pacs, ae_title: PACS, allow: [echo%s]}]\n"
    )
    path.write_text(text % "")
    with pytest.raises(ConfigurationError, match="'PACS' may not store here"):
        load(path)
    path.write_text(text % ", store")
    assert load(path).priors.by == "move"
