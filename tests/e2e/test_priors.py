"""Priors from Orthanc by C-GET and by C-MOVE; what Orthanc has of a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pydicom
import pytest
from sqlalchemy import select

from db.jobs import job_as_json
from db.models import Job, Study
from deploy.demo_pacs import LOOPBACK, OrthancPacs
from deploy.peer_test import try_peer
from dicom_node.errors import FinalError, RetriableError
from dicom_node.services.association import Destination
from dicom_node.services.retrieve_scu import FoundStudy, Wanted, get, move
from dicom_node.services.storage_scu import send
from tests.e2e.scripted_pacs import ScriptedPacs
from tests.factories import write_ct_series
from tests.orthanc import Orthanc
from tests.workflows.test_listener import listening
from tests.workflows.whole_node import ct_volume, make_node, take_in
from workflows.archive_count import missing_here
from workflows.network import destination_of
from workflows.node import Node
from workflows.priors import fetch_priors, priors_as_json, priors_folder, priors_of, relevant

pytestmark = pytest.mark.e2e


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[OrthancPacs]:
    options: dict[str, object] = {"DicomAlwaysAllowGet": True, "DicomAlwaysAllowMove": True}
    with Orthanc(tmp_path / "orthanc", options) as running:
        yield running


def dated(folder: Path, date: str) -> list[Path]:
    """Write a study of the same patient on a day."""
    paths = write_ct_series(folder, ct_volume())
    for path in paths:
        image = pydicom.dcmread(path)
        image.PatientID, image.StudyDate, image.StudyTime = "P1", date, "101500"
        image.save_as(path)
    return paths


@pytest.fixture
def node(pacs: OrthancPacs, tmp_path: Path) -> Iterator[Node]:
    there = {"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port}
    made = make_node(
        tmp_path / "home",
        destinations=[there],
        priors={"destination": "pacs", "most": 1},
        completion={"ask": "pacs"},
    )
    yield made
    made.database.dispose()


def test_the_newest_prior_is_kept_with_the_job(
    node: Node, pacs: OrthancPacs, tmp_path: Path
) -> None:
    studies = {day: dated(tmp_path / day, day) for day in ("20240101", "20240601", "20250101")}
    there = destination_of(node.settings.destinations[0], node.settings.tls)  # type: ignore[arg-type]
    for paths in studies.values():
        assert all(one.is_stored for one in send(paths, there, calling_ae_title="UNIBIOMED"))
    present = studies["20250101"]
    take_in(node, present[:-2])
    assert missing_here(node, 1) == 2, "Orthanc has two more of this study"
    with node.database.session() as session:
        # As the rules do when they queue it.
        session.get_one(Job, 1).modality = "CT"
    fetch_priors(node, 1)
    ((uid, files),) = priors_of(node, 1).items()
    wanted = {pydicom.dcmread(path).SOPInstanceUID for path in studies["20240601"]}
    got = [pydicom.dcmread(path) for path in files]
    assert {one.SOPInstanceUID for one in got} == wanted
    assert {one.StudyInstanceUID for one in got} == {uid}
    stored = pydicom.dcmread(studies["20240601"][0])
    same = next(one for one in got if one.SOPInstanceUID == stored.SOPInstanceUID)
    assert same.PixelData == stored.PixelData
    with node.database.reading() as session:
        told = job_as_json(session, 1)
    assert told is not None and "1 priors were fetched from pacs" in str(told)
    [shown] = priors_as_json(node, 1)
    assert shown["study_instance_uid"] == uid and shown["study_date"] == "20240601"
    assert shown["images"] == len(files)
    # Nobody listens for an AE title that Orthanc does not know.
    with pytest.raises(RetriableError):
        move(there, "UNIBIOMED", Wanted(uid), "NOBODY")


@pytest.fixture
def pacs_without_get(tmp_path: Path) -> Iterator[OrthancPacs]:
    with Orthanc(tmp_path / "orthanc", {"DicomAlwaysAllowGet": False}) as running:
        yield running


@pytest.fixture
def moving(pacs_without_get: OrthancPacs, tmp_path: Path) -> Iterator[tuple[Node, int]]:
    """A node that Orthanc may not serve by C-GET, with a listener of its own; and its port."""
    pacs = pacs_without_get
    made = make_node(
        tmp_path / "moving",
        node={"host": LOOPBACK, "port": 0},
        peers=[{"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK}],
        destinations=[
            {"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port}
        ],
        priors={"destination": "pacs"},
    )
    with listening(made, tmp_path / "listener.log") as (_, port):
        yield made, port
    made.database.dispose()


def known_to(pacs: OrthancPacs, port: int) -> None:
    """Let Orthanc know the node as somebody to move to."""
    entity = {"AET": "UNIBIOMED", "Host": LOOPBACK, "Port": port}
    entity |= {"AllowGet": False, "AllowMove": True, "AllowFind": True, "AllowStore": True}
    request = Request(
        f"http://{LOOPBACK}:{pacs.http_port}/modalities/node",
        json.dumps(entity).encode(),
        method="PUT",
    )
    urlopen(request).close()


def test_where_c_get_is_not_offered_priors_come_by_c_move(
    moving: tuple[Node, int], pacs_without_get: OrthancPacs, tmp_path: Path
) -> None:
    node, port = moving
    earlier, present = dated(tmp_path / "earlier", "20240601"), dated(tmp_path / "now", "20250101")
    there = destination_of(node.settings.destinations[0], node.settings.tls)  # type: ignore[arg-type]
    assert all(one.is_stored for one in send(earlier, there, calling_ae_title="UNIBIOMED"))
    take_in(node, present)
    with node.database.session() as session:
        session.get_one(Job, 1).modality = "CT"
    known_to(pacs_without_get, port)
    fetch_priors(node, 1)
    [(uid, files)] = priors_of(node, 1).items()
    assert {path.stem for path in files} == {
        pydicom.dcmread(path).SOPInstanceUID for path in earlier
    }
    stored = pydicom.dcmread(earlier[0])
    came = pydicom.dcmread(priors_folder(node, 1) / uid / f"{stored.SOPInstanceUID}.dcm")
    assert came == stored and came.file_meta.TransferSyntaxUID == stored.file_meta.TransferSyntaxUID
    with node.database.reading() as session:
        assert "1 priors were fetched from pacs by C-MOVE" in str(job_as_json(session, 1))
        studies = session.scalars(select(Study.study_instance_uid)).all()
    assert studies == [pydicom.dcmread(present[0]).StudyInstanceUID], "a prior opens no job"


def test_what_the_pacs_keeps_is_read_back_by_c_move(
    moving: tuple[Node, int], pacs_without_get: OrthancPacs
) -> None:
    node, port = moving
    known_to(pacs_without_get, port)
    steps = list(try_peer(node.home.root, "pacs", store=True, wait_seconds=0, say=print))
    assert [step.ok for step in steps] == [True, True, True, True, None], steps
    assert "by C-MOVE: 28 elements and all pixels are as they were sent" in steps[3].sentence
    with node.database.reading() as session:
        assert session.scalars(select(Study.study_instance_uid)).all() == []
    assert list(node.home.work.iterdir()) == []


def test_without_the_pacs_a_job_goes_on(node: Node, pacs: OrthancPacs, tmp_path: Path) -> None:
    take_in(node, dated(tmp_path / "now", "20250101"))
    pacs.stop()
    fetch_priors(node, 1)
    assert priors_of(node, 1) == {}
    with node.database.reading() as session:
        assert "it goes on without priors" in str(job_as_json(session, 1))


def test_a_pacs_without_retrieval_is_told_by_name(tmp_path: Path) -> None:
    # It takes storage classes, so that the association stands, but offers neither C-GET nor C-MOVE.
    pacs = ScriptedPacs("PACS")
    pacs.start()
    there = Destination("pacs", "PACS", LOOPBACK, pacs.port)
    try:
        with pytest.raises(FinalError, match="offers no C-GET"):
            get(there, "UNIBIOMED", Wanted("1.2.3"), tmp_path)
        with pytest.raises(FinalError, match="offers no C-MOVE"):
            move(there, "UNIBIOMED", Wanted("1.2.3"), "UNIBIOMED")
    finally:
        pacs.stop()
    assert list(tmp_path.iterdir()) == []


def test_only_earlier_studies_of_the_modality_are_relevant() -> None:
    def study(uid: str, date: str, modality: str = "CT") -> FoundStudy:
        return FoundStudy(uid, date, "10", frozenset({modality}))

    present = study("1.1", "20250101")
    known = [
        present,
        study("1.2", "20240101"),
        study("1.3", "20240301"),
        study("1.4", "20250301"),
        study("1.5", "20241201", "MR"),
        study("../x", "20241201"),
        study("1.6", ""),
    ]
    assert [one.study_instance_uid for one in relevant(known, present, 5)] == ["1.3", "1.2"]
