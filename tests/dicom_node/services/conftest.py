"""A listener on a free port that notes what it is told, and DCMTK as the other side."""

from __future__ import annotations

import os
import queue
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context

from dicom_node.archive import Archive
from dicom_node.peers import Peer, Peers, Refusal
from dicom_node.services.association import Destination, ListenerSettings, Timeouts
from dicom_node.services.events import AssociationEnded, Quarantined, ReceivedInstance
from dicom_node.services.storage_scp import Service, StorageScp
from tests.factories.datasets import base_dataset
from tests.listening import listening

CT = "1.2.840.10008.5.1.4.1.1.2"
Serve = Callable[..., Destination]
PATIENT = Timeouts(connection=20, acse=30, dimse=60, network=60)
"""For peers that answer: none of it passes while they do, however busy the machine is."""


@dataclass
class Node:
    """A running listener and what it told."""

    archive: Archive
    scp: StorageScp
    stored: list[ReceivedInstance] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    released: queue.Queue[AssociationEnded] = field(default_factory=queue.Queue)
    refused: queue.Queue[Refusal] = field(default_factory=queue.Queue)

    @property
    def destination(self) -> Destination:
        return Destination("node", "UNIBIOMED", "127.0.0.1", self.scp.port, timeouts=PATIENT)

    def ended(self) -> AssociationEnded:
        """Return the next association that ended."""
        return self.released.get(timeout=60)


class NodeFactory:
    """Starts listeners and stops them after the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: list[Node] = []

    def __call__(
        self,
        *,
        peers: Peers | None = None,
        reserve_bytes: int = 0,
        on_stored: Callable[[ReceivedInstance], None] | None = None,
        services: Sequence[Service] = (),
        tls: Any = None,
        **settings: Any,
    ) -> Node:
        archive = Archive(self._folder / f"archive{len(self._nodes)}", reserve_bytes=reserve_bytes)
        table = peers or Peers([Peer("tests", "SENDER")])

        def stored(instance: ReceivedInstance) -> None:
            if on_stored is not None:
                on_stored(instance)
            node.stored.append(instance)

        scp = StorageScp(
            ListenerSettings(**{"host": "127.0.0.1", "port": 0, **settings}),
            archive,
            lambda: table,
            on_stored=stored,
            on_quarantined=lambda event: node.quarantined.append(event),
            on_released=lambda event: node.released.put(event),
            on_refused=lambda event: node.refused.put(event),
            services=services,
            tls=tls,
        )
        node = Node(archive, scp)
        scp.start()
        self._nodes.append(node)
        return node

    def stop(self) -> None:
        for node in self._nodes:
            node.scp.stop(2)


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[NodeFactory]:
    factory = NodeFactory(tmp_path)
    yield factory
    factory.stop()


@pytest.fixture
def instances(tmp_path: Path) -> list[Path]:
    """Return three small CT instances of one series."""
    folder = tmp_path / "instances"
    folder.mkdir()
    return write_instances(folder, 3)


def write_instances(folder: Path, count: int, **overrides: Any) -> list[Path]:
    """Write ``count`` instances of one series."""
    first = base_dataset("1.2.840.10008.5.1.4.1.1.2", "CT")
    paths = []
    for number in range(count):
        dataset = base_dataset("1.2.840.10008.5.1.4.1.1.2", "CT")
        dataset.StudyInstanceUID = first.StudyInstanceUID
        dataset.SeriesInstanceUID = first.SeriesInstanceUID
        dataset.InstanceNumber = str(number + 1)
        dataset.Rows = dataset.Columns = 8
        dataset.BitsAllocated, dataset.SamplesPerPixel = 16, 1
        dataset.PixelData = bytes(128)
        for keyword, value in overrides.items():
            setattr(dataset, keyword, value)
        paths.append(folder / f"{number}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def dcmtk(program: str) -> str:
    """Return the full path of a DCMTK program: pynetdicom's of the same names are in the venv."""
    path = shutil.which(program, path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if path is None:
        pytest.skip(f"needs DCMTK's {program}")
    return path


def run_dcmtk(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK program to its end."""
    return subprocess.run(
        [dcmtk(program), *map(str, arguments)],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once something listens; a port is no event that can be awaited."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the peer did not start")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a peer that answers as told."""
    servers = []

    def start(*handlers: Any, contexts: Any = None, **settings: Any) -> Destination:
        entity = AE("PACS")
        for name, value in settings.items():
            setattr(entity, name, value)
        server = listening(
            entity,
            handlers,
            contexts=contexts or [build_context(CT), build_context("1.2.840.10008.1.1")],
        )
        servers.append(server)
        return Destination("pacs", "PACS", "127.0.0.1", server.server_address[1], timeouts=PATIENT)

    yield start
    for server in servers:
        server.shutdown()
