"""A worklist elsewhere sends work to a running node: claimed, done, completed, cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from deploy.cli import app
from deploy.configuration_edit import check_and_reload
from dicom_node.services.association import Timeouts
from dicom_node.services.dicomweb_client import WebArchive
from dicom_node.services.web_connection import WebDestination
from tests.e2e.conftest import Node, short_study
from tests.workflows.managers import settings_for, workitem
from tests.workflows.test_workers import ROOT, wait_for
from tests.workflows.whole_node import make_node

TOKEN = "a-token-of-the-manager"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@dataclass
class ManagerNode:
    """A second node, of which only the DICOMweb server runs."""

    url: str

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=60)

    def item(self, uid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/workitems/{uid}").json()[0]
        return found

    def state(self, uid: str) -> str:
        return str(self.item(uid)["00741000"]["Value"][0])


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ManagerNode]:
    allow = ["query", "retrieve", "store", "worklist"]
    there = make_node(
        tmp_path / "manager",
        node={"host": "127.0.0.1", "port": 0, "station": "MANAGER"},
        dicomweb={"port": 0, "users": [{"name": "performer", "allow": allow, "token": TOKEN}]},
    )
    with (tmp_path / "manager.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workflows.dicomweb"],
            cwd=ROOT,
            env=os.environ | {"UNIBIOMED_HOME": str(there.home.root)},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for("dicomweb.json", there.home.dicomweb_json.exists)
        yield ManagerNode(json.loads(there.home.dicomweb_json.read_text())["url"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        there.database.dispose()


def shown(node: Node) -> dict[str, Any]:
    """Return what the command tells of worklists and workitems."""
    done = CliRunner().invoke(app, ["worklists", "--json", "--home", str(node.home)])
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def outcomes(told: dict[str, Any]) -> dict[str, str]:
    """Return how each workitem ended."""
    return {one["uid"]: one["outcome"] for one in told["workitems"]}


@pytest.mark.ihe(
    "AIW-I", "Task Manager", "RAD-80", "RAD-81", "RAD-82", "RAD-83", "RAD-84", "RAD-85", "RAD-88"
)
def test_a_workitem_becomes_results_and_another_is_cancelled(
    node: Node, manager: ManagerNode, tmp_path: Path
) -> None:
    folder, study = short_study(tmp_path, "by a worklist")
    destination = WebDestination("manager", manager.url, token=TOKEN, timeouts=Timeouts())
    with WebArchive(destination) as archive:
        assert all(one.is_stored for one in archive.store(sorted(folder.iterdir())))
    for uid, item in (
        ("2.25.1", workitem(study)),
        ("2.25.2", workitem("2.25.404")),
        ("2.25.3", workitem(study, station="ANOTHER")),
        ("2.25.4", workitem(study, code="110001")),
    ):
        assert manager.ask("POST", f"/workitems?{uid}", [item]).status_code == 201
    written = node.home / "node.yaml"
    before = written.read_text()
    settings = yaml.safe_load(before)
    entry = settings_for(manager.url, workitem_code="110003", poll_seconds=0.5)
    settings["worklists"] = [entry]
    try:
        written.write_text(yaml.safe_dump(settings))
        check_and_reload(node.home)
        node.wait(lambda: manager.state("2.25.2") == "IN PROGRESS", "the second is claimed")
        assert manager.ask("POST", "/workitems/2.25.2/cancelrequest").status_code == 202
        job = node.delivered(study)
        node.wait(lambda: manager.state("2.25.1") == "COMPLETED", "the first is completed")
        node.wait(lambda: manager.state("2.25.2") == "CANCELED", "the second is cancelled")
        # It notes what it told once the manager has answered.
        node.wait(lambda: all(outcomes(shown(node)).values()), "both are noted here")
        told = shown(node)
    finally:
        written.write_text(before)
        check_and_reload(node.home)
    assert [manager.state(uid) for uid in ("2.25.3", "2.25.4")] == ["SCHEDULED", "SCHEDULED"]
    [performed] = manager.item("2.25.1")["00741216"]["Value"]
    named = {
        one["00081155"]["Value"][0]
        for output in performed["00404033"]["Value"]
        for one in output["00081199"]["Value"]
    }
    assert named == {one["sop_instance_uid"] for one in job["results"]}
    assert len(named) >= 3
    assert [one["says"] for one in told["worklists"]] == ["answers"]
    assert outcomes(told) == {"2.25.1": "COMPLETED", "2.25.2": "CANCELED"}
