"""A whole node with real processes, and Orthanc as its PACS, shared by the tests of this folder.

They end with the last of these tests: a node looks around twice a second, also while it has nothing
to do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom.uid import SegmentationStorage, generate_uid
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from db.reports import job_list
from deploy.demo import write_configuration
from deploy.demo_pacs import LOOPBACK, OrthancPacs
from deploy.node_database import open_database
from deploy.node_process import NodeProcess
from deploy.phantom_study import demo_phantom, write_phantom_study
from tests.e2e.scripted_pacs import ScriptedPacs
from tests.factories.certificates import make_certificate
from tests.orthanc import Orthanc

SENDER = "DEMO-SCANNER"
WEB_TOKEN = "the-viewer-of-the-tests"
DICOM_WEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DICOM_WEB = {
    "Enable": True,
    "Root": "/dicom-web/",
    "StudiesMetadata": "Full",
    "SeriesMetadata": "Full",
}
STUDY_SECONDS = float(os.environ.get("UNIBIOMED_TEST_PATIENCE", "240"))
_ENDS = {"delivered", "not_applicable", "failed", "cancelled", "superseded"}


def model_settings() -> dict[str, Any]:
    """Return the ``model`` section: other weights than the shipped ones can be named."""
    folder = os.environ.get("UNIBIOMED_TEST_MODEL")
    return {"model": {"folder": folder}} if folder else {}


class Node(NodeProcess):
    """A node under test."""

    def wait(self, until: Callable[[], Any], what: str, seconds: float = STUDY_SECONDS) -> Any:
        """Return the first true value of `until`; fail with what the node knows at the end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := until():
                return found
            time.sleep(0.1)
        jobs = [(job["id"], job["state"], job["wait_reason"], job["error"]) for job in self.jobs()]
        pytest.fail(f"not within {seconds:.0f} s: {what}. Jobs: {jobs}")

    def states(self, study_instance_uid: str | None = None) -> dict[int, str]:
        """Return the state of each job: whole reports, asked for again and again, take long."""
        with open_database(self.home) as session:
            jobs = job_list(session, study_instance_uid=study_instance_uid, limit=None)
        return {job["id"]: job["state"] for job in jobs}

    def jobs_of(self, study_instance_uid: str) -> list[dict[str, Any]]:
        """Return the jobs of a study."""
        return self.jobs(study_instance_uid)

    def ended(
        self, study_instance_uid: str, seconds: float = STUDY_SECONDS
    ) -> list[dict[str, Any]]:
        """Wait until a study has jobs and all have ended; return them."""

        def all_ended() -> list[dict[str, Any]]:
            states = self.states(study_instance_uid).values()
            if not states or not _ENDS.issuperset(states):
                return []
            jobs = self.jobs_of(study_instance_uid)
            return jobs if _ENDS.issuperset(job["state"] for job in jobs) else []

        found: list[dict[str, Any]] = self.wait(all_ended, "all jobs ended", seconds)
        return found

    def delivered(self, study_instance_uid: str, seconds: float = STUDY_SECONDS) -> dict[str, Any]:
        """Wait until the study's one job was delivered; return it."""
        jobs = self.ended(study_instance_uid, seconds)
        assert [job["state"] for job in jobs] == ["delivered"], jobs
        return jobs[0]


@pytest.fixture(scope="package")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPacs]:
    options: dict[str, object] = {}
    if DICOM_WEB_PLUGIN.exists():  # for OHIF alone
        options = {"Plugins": [str(DICOM_WEB_PLUGIN)], "DicomWeb": DICOM_WEB}
    with Orthanc(tmp_path_factory.mktemp("pacs"), options) as running:
        yield running


class MisbehavingPeers:
    """PACS that do wrong, each in its own way.

    Attributes
    ----------
    refuser
        Takes no segmentations.
    dropper
        Aborts the first association at the second object.
    sleeper
        Does not listen until it is started.
    drops
        What the dropper was sent when it aborted.
    """

    def __init__(self) -> None:
        self.drops: list[str] = []
        self.refuser = ScriptedPacs("REFUSER", refused_classes=[SegmentationStorage])
        self.dropper = ScriptedPacs("DROPPER", before_store=self._drop_once)
        self.sleeper = ScriptedPacs("SLEEPER")
        self._seen = 0

    def destinations(self) -> list[dict[str, Any]]:
        """Return the entries of ``node.yaml`` for them."""
        return [
            {"name": one.ae_title.lower(), "ae_title": one.ae_title, "host": LOOPBACK,
             "port": one.port}
            for one in (self.refuser, self.dropper, self.sleeper)
        ]  # fmt: skip

    def _drop_once(self, event: Event) -> int | None:
        self._seen += 1
        if self._seen == 2:
            assert isinstance(event.request, C_STORE)
            self.drops.append(str(event.request.AffectedSOPInstanceUID))
            event.assoc.abort()
            return 0xA700
        return None


@pytest.fixture(scope="package")
def misbehaving() -> Iterator[MisbehavingPeers]:
    peers = MisbehavingPeers()
    with peers.refuser, peers.dropper:
        yield peers
    peers.sleeper.stop()


@pytest.fixture(scope="package")
def node(
    pacs: OrthancPacs, misbehaving: MisbehavingPeers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """One node for all tests that do not kill: the study's description chooses the PACS."""
    home = tmp_path_factory.mktemp("node")
    others = misbehaving.destinations()
    names = [str(one["name"]) for one in others]
    orthanc = {"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port}
    certificate = make_certificate(home, "this-node", days=30)
    changes = {
        **model_settings(),
        "dashboard": {"port": 0, "site": "Test, House 4", "colour": "#7a1f5c"},
        "tls": {"certificate": str(certificate.path), "key": str(certificate.key_path)},
        "destinations": [orthanc, *others],
        "retries": {"first_seconds": 1.0, "longest_seconds": 2.0, "fast_seconds": 0.2},
        "dicomweb": {
            "port": 0,
            "users": [
                {"name": "viewer", "allow": ["query", "retrieve", "store"], "token": WEB_TOKEN}
            ],
        },
    }
    write_configuration(home, pacs, changes)
    rules = [
        {
            "name": "to the PACS",
            "when": {"StudyDescription": {"none_of": [f"to: {name}" for name in names]}},
            "destinations": ["pacs"],
        },
        *(
            {"name": f"to {name}", "when": {"StudyDescription": f"to: {name}"},
             "destinations": [name], **({"critical": "all"} if name == "refuser" else {})}
            for name in names
        ),
    ]  # fmt: skip
    (home / "rules.yaml").write_text(yaml.safe_dump({"rules": rules}, sort_keys=False))
    with Node(home) as running:
        yield running


def short_study(folder: Path, description: str, slices: int = 6) -> tuple[Path, str]:
    """Write a few slices of the phantom, with both inserts, as a new study.

    Returns
    -------
    tuple of Path, str
        The folder with the files, and the Study Instance UID.
    """
    whole = write_phantom_study(demo_phantom(), folder / "whole")
    study = folder / "study"
    study.mkdir()
    for path in whole[18 : 18 + slices]:
        image = pydicom.dcmread(path)
        image.StudyDescription = description
        image.save_as(study / path.name)
    return study, str(image.StudyInstanceUID)


def real_study(
    series: Path, folder: Path, description: str, slices: slice = slice(None)
) -> tuple[Path, str]:
    """Copy a real series, or some slices, as a study of its own: UIDs and description are new.

    Returns
    -------
    tuple of Path, str
        The folder with the files, and the Study Instance UID.
    """
    study, new_series, frame_of_reference = (generate_uid() for _ in range(3))
    folder.mkdir(parents=True)
    for path in sorted(series.glob("*.dcm"))[slices]:
        image = pydicom.dcmread(path)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, new_series
        image.FrameOfReferenceUID = frame_of_reference
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.StudyDescription = description
        image.save_as(folder / path.name)
    return folder, str(study)


@pytest.fixture
def phantom_files(tmp_path: Path) -> list[Path]:
    """Return a new study of the demo's phantom."""
    return write_phantom_study(demo_phantom(), tmp_path / "phantom")
