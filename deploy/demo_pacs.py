"""The second application entity of the demo and the tests: a PACS on this machine.

Orthanc where it is installed, because it is another author's program and so an honest witness;
else the project's own listener in the archive's role.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from deploy.child_process import ChildProcess, Startable
from dicom_node.services.query import UNIQUE_KEYS, Exact, Level, Match, Query

__all__ = ["OrthancPacs", "OwnPacs", "find_orthanc", "free_port", "start_pacs"]

START_SECONDS = 60.0
STOP_SECONDS = 10.0
LOOPBACK = "127.0.0.1"
_LEVELS = {
    "StudyInstanceUID": Level.STUDY,
    "SeriesInstanceUID": Level.SERIES,
    "SOPInstanceUID": Level.IMAGE,
    "SOPClassUID": Level.IMAGE,
}


def find_orthanc() -> Path | None:
    """Return Orthanc's program, or None where it is not installed."""
    found = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def free_port() -> int:
    """Return a loopback port that nobody listens on, and that the system gives to nobody else.

    A socket that does not listen stays bound to it until this process ends. Who names the port may
    listen there all the same (servers set SO_REUSEADDR), also again after a restart; without it,
    the system could meanwhile choose the same port for another program.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((LOOPBACK, 0))
    port = int(held.getsockname()[1])
    held.detach()
    return port


def start_pacs(folder: Path) -> OrthancPacs | OwnPacs:
    """Return a PACS that keeps its objects in `folder`; enter it to start it."""
    program = find_orthanc()
    return OwnPacs(folder) if program is None else OrthancPacs(folder, program)


class OrthancPacs(ChildProcess):
    """Orthanc, headless, on free loopback ports, with nothing but DICOM and its REST interface.

    Parameters
    ----------
    folder
        Its storage and configuration.
    program
        The Orthanc program.
    options
        Further keys of its configuration, or others in place of the ones used here.
    """

    name = "Orthanc"
    ae_title = "ORTHANC"

    def __init__(self, folder: Path, program: Path, options: dict[str, object] | None = None):
        super().__init__(folder / "orthanc.log", STOP_SECONDS)
        self.folder = folder
        self.port = free_port()
        self.http_port = free_port()
        self._program = program
        self._options = options or {}

    def start(self) -> None:
        """Start it and wait until it takes associations; also after a `stop`.

        Raises
        ------
        RuntimeError
            It did not start; the text has the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=2))
        started = self.launch(
            [str(self._program), str(configuration)],
            self.folder,
            lambda: _listens(self.port) and _listens(self.http_port),
            START_SECONDS,
            # Debian's build leaves Nagle's algorithm on without this.
            {"TCP_NODELAY": "1"},
        )
        if not started:
            raise RuntimeError(f"Orthanc did not start:\n{self.last_lines(5)}")

    def _configuration(self) -> dict[str, object]:
        return {
            "Name": "demo",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [],
            "HttpServerEnabled": True,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": True,
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": False,
            **self._options,
        }


class OwnPacs(Startable):
    """The project's own Storage and Query/Retrieve SCP, holding its index in memory.

    Parameters
    ----------
    folder
        Where it keeps what it receives.
    """

    name = "the project's own archive"
    ae_title = "ARCHIVE"

    def __init__(self, folder: Path) -> None:
        from dicom_node.archive import Archive
        from dicom_node.peers import Peer, Peers
        from dicom_node.services.association import ListenerSettings
        from dicom_node.services.query_retrieve_scp import QueryRetrieveScp
        from dicom_node.services.storage_scp import StorageScp

        folder.mkdir(parents=True, exist_ok=True)
        self._guard = threading.Lock()
        self._kept: dict[str, dict[str, str]] = {}
        self._paths: dict[str, Path] = {}
        self._archive = Archive(folder, reserve_bytes=0)
        everybody = Peers([Peer("anybody", "*")])
        self._listener = StorageScp(
            ListenerSettings(ae_title=self.ae_title, host=LOOPBACK, port=0),
            self._archive,
            lambda: everybody,
            on_stored=self._keep,
            on_quarantined=lambda _: None,
            on_released=lambda _: None,
            on_refused=lambda _: None,
            services=[QueryRetrieveScp(self, self.ae_title, lambda _: None)],
        )

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._listener.port

    def start(self) -> None:
        """Take associations from now on."""
        self._listener.start()

    def stop(self) -> None:
        """Let running associations end, and close the port."""
        self._listener.stop(STOP_SECONDS)

    def _keep(self, received: object) -> None:
        from dicom_node.services.events import ReceivedInstance

        if not isinstance(received, ReceivedInstance):
            raise TypeError("the listener hands over received instances only")
        keys = {
            "StudyInstanceUID": received.study_instance_uid,
            "SeriesInstanceUID": received.series_instance_uid,
            "SOPInstanceUID": received.sop_instance_uid,
            "SOPClassUID": received.sop_class_uid,
        }
        with self._guard:
            self._kept[received.sop_instance_uid] = keys
            self._paths[received.sop_instance_uid] = self._archive.absolute(received.file.path)

    # A catalog for the project's own Query/Retrieve SCP: it knows unique keys alone.

    def matched_keywords(self) -> frozenset[str]:
        """Return the keys that are matched."""
        return frozenset(_LEVELS)

    def level_of(self, keyword: str) -> Level | None:
        """Return the level of a key, or None."""
        return _LEVELS.get(keyword)

    def find(
        self, query: Query, wanted: Collection[str], *, start: int = 0, size: int | None = None
    ) -> Iterator[Match]:
        """Yield what matches the unique keys (PS3.4 C.2.2.2)."""
        stop = None if size is None else start + size
        for keys in self._matching(query)[start:stop]:
            yield Match(keys, self._paths[keys["SOPInstanceUID"]])

    def count(self, query: Query) -> int:
        """Return how many match."""
        return len(self._matching(query))

    def _matching(self, query: Query) -> list[dict[str, str]]:
        with self._guard:
            kept = list(self._kept.values())
        found = {}
        for keys in kept:
            if all(
                isinstance(asked, Exact) and keys[keyword] in asked.values
                for keyword, asked in query.matching.items()
            ):
                found[keys[UNIQUE_KEYS[query.level]]] = keys
        return list(found.values())


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False
