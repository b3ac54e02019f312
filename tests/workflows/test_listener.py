"""The listener as a process: ready file, receiving, peers read again, a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sqlalchemy import delete, func, select

from db.models import Instance, Job, Study, StudyAssociation
from dicom_node.errors import DicomNodeError
from dicom_node.services.association import Destination, Timeouts
from dicom_node.services.storage_scu import send, verify
from dicom_node.services.tls import Tls
from tests.factories import write_ct_series
from tests.factories.certificates import make_certificate
from tests.workflows.test_workers import ROOT, wait_for
from tests.workflows.whole_node import ct_volume, make_node
from workflows.node import Node
from workflows.reloading import ask_to_reload


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = make_node(
        tmp_path / "home",
        node={"host": "127.0.0.1", "port": 0},
        listener={"stop_timeout_seconds": 3.0},
    )
    yield node
    node.database.dispose()


@contextmanager
def listening(node: Node, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workflows.listener"],
            cwd=ROOT,
            env=os.environ | {"UNIBIOMED_HOME": str(node.home.root)},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for("listener.json", node.home.listener_json.exists)
        yield process, json.loads(node.home.listener_json.read_text())["port"]
    finally:
        process.kill()
        process.wait()


def test_a_study_is_received_and_its_release_is_noted(node: Node, tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "ct", ct_volume())
    log = tmp_path / "listener.log"
    with listening(node, log) as (process, port):
        there = Destination("node", "UNIBIOMED", "127.0.0.1", port)
        assert all(one.is_stored for one in send(paths, there, calling_ae_title="SCANNER"))

        def released() -> bool:
            with node.database.reading() as session:
                return session.scalar(select(Study.released_at)) is not None

        wait_for("released", released)
        with pytest.raises(DicomNodeError):
            send(paths, there, calling_ae_title="STRANGER")

        settings = yaml.safe_load(node.home.node_yaml.read_text())
        settings["peers"].append({"name": "new", "ae_title": "STRANGER"})
        node.home.node_yaml.write_text(yaml.safe_dump(settings))
        process.send_signal(signal.SIGHUP)
        wait_for("it is read again", lambda: "configuration read again" in log.read_text())
        assert all(one.is_stored for one in send(paths, there, calling_ae_title="STRANGER"))

        # A mistake changes nothing; nor does the word that all processes hear.
        node.home.node_yaml.write_text("peers: nobody")
        ask_to_reload(node.home)
        wait_for("the mistake is named", lambda: "stays as it was" in log.read_text())
        assert all(one.is_stored for one in send(paths, there, calling_ae_title="STRANGER"))

        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not node.home.listener_json.exists()
    with node.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Instance)) == 8
        outcomes = session.scalars(select(StudyAssociation.outcome)).all()
    assert set(outcomes) == {"released"}
    assert "Phantom" not in log.read_text(), "no patient data in logs"


def test_what_the_database_lost_is_taken_up_beside_receiving(node: Node, tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "ct", ct_volume())

    def instances() -> int:
        with node.database.reading() as session:
            return session.scalar(select(func.count()).select_from(Instance)) or 0

    with listening(node, tmp_path / "first.log") as (process, port):
        there = Destination("node", "UNIBIOMED", "127.0.0.1", port)
        send(paths, there, calling_ae_title="SCANNER")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with node.database.session() as session:
        session.execute(delete(Job))
        session.execute(delete(Study))
    assert instances() == 0
    with listening(node, tmp_path / "second.log"):
        wait_for("the instances are registered again", lambda: instances() == len(paths))


def test_a_taken_port_is_a_sentence_and_not_a_traceback(node: Node, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = yaml.safe_load(node.home.node_yaml.read_text())
        settings["node"]["port"] = taken.getsockname()[1]
        node.home.node_yaml.write_text(yaml.safe_dump(settings))
        ended = subprocess.run(
            [sys.executable, "-m", "workflows.listener"],
            cwd=ROOT,
            env=os.environ | {"UNIBIOMED_HOME": str(node.home.root)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 2
    assert "node.port in node.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_a_home_it_says_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "UNIBIOMED_HOME"}
    ended = subprocess.run(
        [sys.executable, "-m", "workflows.listener"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "set UNIBIOMED_HOME" in ended.stderr


def test_by_tls_and_by_another_ae_title(tmp_path: Path) -> None:
    """Certificates and the AE titles of rules come from the node's folder."""
    folder = tmp_path / "home" / "tls"
    authority = make_certificate(folder, "authority")
    make_certificate(folder, "node", by=authority)
    scanner = make_certificate(folder, "scanner", by=authority)
    node = make_node(
        tmp_path / "home",
        node={"host": "127.0.0.1", "port": 0},
        tls={
            "port": 0,
            "plain": False,
            "certificate": "tls/node.pem",
            "key": "tls/node.key",
            "authorities": "tls/authority.pem",
        },
        peers=[{"name": "ct", "ae_title": "SCANNER", "certificate": "tls/scanner.pem"}],
    )
    node.home.rules_yaml.write_text("rules: [{name: lung, called: UNIBIOMED_LUNG}]")
    ours = Tls(scanner.path, scanner.key_path, authorities=authority.path)
    with listening(node, tmp_path / "listener.log") as (_, port):
        for called, answers in (("UNIBIOMED_LUNG", True), ("UNIBIOMED", True), ("OTHER", False)):
            there = Destination("node", called, "127.0.0.1", port, tls=ours)
            assert verify(there, "SCANNER").ok is answers
        plain = Timeouts(acse=2)
        assert not verify(replace(there, tls=None, timeouts=plain), "SCANNER").ok
    node.database.dispose()
