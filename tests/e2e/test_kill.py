"""kill -9 of each part of the node in the worst moment: nothing is lost, nothing is doubled."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE

from db.models import Instance
from deploy.demo import write_configuration
from deploy.demo_pacs import OrthancPacs, free_port
from deploy.node_database import open_database
from deploy.ownership import processes_of, read_owner
from deploy.sending import send_folder
from tests.e2e.conftest import SENDER, Node, model_settings, short_study
from tests.e2e.peers import instances_of_study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def fragile(pacs: OrthancPacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of its own, whose lost work is taken up again after three seconds."""
    home = tmp_path_factory.mktemp("fragile")
    changes = {
        **model_settings(),
        "node": {"port": free_port()},  # the same after a restart, as in real life
        "jobs": {"lease_seconds": 3.0, "resend_seconds": 3.0, "attempts": 5},
        # Longer than the listener is away: a study that broke off waits for its sender.
        "completion": {"quiet_seconds": 20.0},
    }
    write_configuration(home, pacs, changes)
    with Node(home) as running:
        yield running


@pytest.fixture
def few_files(tmp_path: Path) -> list[Path]:
    """Return a new study of twelve slices: long enough to be hit in the middle."""
    folder, _ = short_study(tmp_path, "to be interrupted", slices=12)
    return sorted(folder.iterdir())


def await_inferring(node: Node, study: str) -> None:
    """Wait until the study's job is inferring; fail when it has ended before."""

    def inferring() -> bool:
        states = node.states(study).values()
        assert not {"failed", "delivered", "not_applicable"} & set(states), node.jobs_of(study)
        return "inferring" in states

    node.wait(inferring, "the job is inferring")


def child(node: Node, mark: str) -> psutil.Process:
    """Return the program of the tree whose command line holds `mark`."""
    for process in psutil.Process(node.pid).children():
        if any(mark in word for word in process.cmdline()):
            return process
    raise AssertionError(f"no child with {mark} in its command line")


def delivered_once(node: Node, pacs: OrthancPacs, study: str) -> dict[str, Any]:
    """Wait for the delivery, and hold what the PACS has against what the job says."""
    job = node.delivered(study)
    assert all(result["confirmed"] for result in job["results"])
    there = instances_of_study(pacs, study)
    assert set(there) == {result["sop_instance_uid"] for result in job["results"]}
    assert len(there) == 3
    return job


def registered(node: Node, study_instance_uid: str) -> set[str]:
    """Return the SOP Instance UIDs of a study that the node's database knows."""
    from sqlalchemy import select

    from db.models import Study

    with open_database(node.home) as session:
        return set(
            session.scalars(
                select(Instance.sop_instance_uid)
                .join(Study)
                .where(Study.study_instance_uid == study_instance_uid)
            )
        )


def study_of(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def test_gpu_worker_in_mid_inference(
    fragile: Node, pacs: OrthancPacs, few_files: list[Path]
) -> None:
    study = study_of(few_files)
    send_folder(few_files[0].parent, fragile.address, SENDER, print)
    await_inferring(fragile, study)
    child(fragile, "gpu@").kill()
    job = delivered_once(fragile, pacs, study)
    assert [stage["stage"] for stage in job["stages"]].count("inferring") >= 2


def test_listener_in_mid_association(
    fragile: Node, pacs: OrthancPacs, few_files: list[Path]
) -> None:
    study = study_of(few_files)
    killed = listening(fragile)
    scanner = AE(ae_title=SENDER)
    scanner.add_requested_context(CTImageStorage, pydicom.uid.ExplicitVRLittleEndian)
    association = scanner.associate(
        fragile.ready["host"], fragile.ready["port"], ae_title=fragile.ready["ae_title"]
    )
    assert association.is_established
    acknowledged = set()
    for number, path in enumerate(few_files):
        if number == 6:
            child(fragile, "workflows.listener").kill()
            break
        image = pydicom.dcmread(path)
        assert association.send_c_store(image).Status == 0
        acknowledged.add(str(image.SOPInstanceUID))
    association.join(10)
    assert acknowledged <= registered(fragile, study)

    fragile.wait(lambda: listening(fragile) not in (None, killed), "the listener is back")
    send_folder(few_files[0].parent, fragile.address, SENDER, print)
    delivered_once(fragile, pacs, study)
    assert len(registered(fragile, study)) == len(few_files)


def listening(node: Node) -> int | None:
    """Return the process id of the listener that accepts associations."""
    try:
        told = json.loads((node.home / "run" / "listener.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return int(told["pid"])


def test_redis_while_a_study_is_on_its_way(
    fragile: Node, pacs: OrthancPacs, few_files: list[Path]
) -> None:
    study = study_of(few_files)
    send_folder(few_files[0].parent, fragile.address, SENDER, print)
    fragile.wait(lambda: fragile.jobs_of(study), "the study has a job")
    child(fragile, "redis-server").kill()
    delivered_once(fragile, pacs, study)


def test_whole_tree_in_mid_inference(
    fragile: Node, pacs: OrthancPacs, few_files: list[Path]
) -> None:
    study = study_of(few_files)
    send_folder(few_files[0].parent, fragile.address, SENDER, print)
    await_inferring(fragile, study)
    owner = read_owner(fragile.home / "run")
    assert owner is not None
    tree = [psutil.Process(fragile.pid), *processes_of(owner["tree"])]
    for process in tree:
        if process.is_running():
            os.kill(process.pid, signal.SIGKILL)
    fragile.kill()
    psutil.wait_procs(tree, timeout=20)

    fragile.start()
    delivered_once(fragile, pacs, study)
    assert len(registered(fragile, study)) == len(few_files)


def test_supervisor_alone(fragile: Node, pacs: OrthancPacs, few_files: list[Path]) -> None:
    study = study_of(few_files)
    owner = read_owner(fragile.home / "run")
    assert owner is not None
    fragile.kill()
    fragile.start()
    assert processes_of(owner["tree"]) == [], "the killed tree's programs are gone"
    send_folder(few_files[0].parent, fragile.address, SENDER, print)
    delivered_once(fragile, pacs, study)
