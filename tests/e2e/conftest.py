"""A whole node with real processes, and Orthanc as its PACS, shared by the tests of a session."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.demo import write_configuration
from deploy.demo_pacs import OrthancPacs, find_orthanc
from deploy.node_process import NodeProcess
from deploy.phantom_study import demo_phantom, write_phantom_study

SENDER = "DEMO-SCANNER"
STUDY_SECONDS = 240.0
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
            time.sleep(0.05)
        jobs = [(job["id"], job["state"], job["wait_reason"], job["error"]) for job in self.jobs()]
        pytest.fail(f"not within {seconds:.0f} s: {what}. Jobs: {jobs}")

    def jobs_of(self, study_instance_uid: str) -> list[dict[str, Any]]:
        """Return the jobs of a study."""
        return [job for job in self.jobs() if job["study_instance_uid"] == study_instance_uid]

    def ended(
        self, study_instance_uid: str, seconds: float = STUDY_SECONDS
    ) -> list[dict[str, Any]]:
        """Wait until a study has jobs and all have ended; return them."""

        def all_ended() -> list[dict[str, Any]]:
            jobs = self.jobs_of(study_instance_uid)
            return jobs if jobs and all(job["state"] in _ENDS for job in jobs) else []

        found: list[dict[str, Any]] = self.wait(all_ended, "all jobs ended", seconds)
        return found

    def delivered(self, study_instance_uid: str, seconds: float = STUDY_SECONDS) -> dict[str, Any]:
        """Wait until the study's one job was delivered; return it."""
        jobs = self.ended(study_instance_uid, seconds)
        assert [job["state"] for job in jobs] == ["delivered"], jobs
        return jobs[0]


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPacs]:
    program = find_orthanc()
    if program is None:
        pytest.skip("needs Orthanc (see tests/outside_peers.sh)")
    with OrthancPacs(tmp_path_factory.mktemp("pacs"), program) as running:
        yield running


@pytest.fixture(scope="session")
def node(pacs: OrthancPacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    home = tmp_path_factory.mktemp("node")
    write_configuration(home, pacs, model_settings())
    with Node(home) as running:
        yield running


@pytest.fixture
def phantom_files(tmp_path: Path) -> list[Path]:
    """Return a new study of the demo's phantom."""
    return write_phantom_study(demo_phantom(), tmp_path / "phantom")
