"""The folder of a node: where things lie in it, and the files that a first start writes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from workflows.settings import NodeSettings

_LONGEST_SOCKET_PATH: Final = 100
"""Bytes. Unix sockets allow 107 (``sun_path``), and Redis puts a suffix on temporary ones."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one node and everything that lies in it."""

    root: Path

    @property
    def archive(self) -> Path:
        """Received and written DICOM objects."""
        return self.root / "archive"

    @property
    def database(self) -> Path:
        """SQLite file of an embedded node."""
        return self.root / "database.sqlite"

    @property
    def run(self) -> Path:
        """Sockets, ``ready.json``, ``listener.json``: of no use after the node has stopped."""
        return self.root / "run"

    @property
    def work(self) -> Path:
        """What a job found and has not delivered yet, one folder for each job."""
        return self.root / "work"

    @property
    def log(self) -> Path:
        """Logs of the supervised processes."""
        return self.root / "log"

    @property
    def node_yaml(self) -> Path:
        """The settings."""
        return self.root / "node.yaml"

    @property
    def rules_yaml(self) -> Path:
        """The rules."""
        return self.root / "rules.yaml"

    @property
    def ready_json(self) -> Path:
        """Written by the supervisor once the whole node is up."""
        return self.run / "ready.json"

    @property
    def listener_json(self) -> Path:
        """Written by the listener once it accepts associations."""
        return self.run / "listener.json"

    @property
    def dashboard_json(self) -> Path:
        """Written by the dashboard once it answers; only the node's user can read it."""
        return self.run / "dashboard.json"

    @property
    def dicomweb_json(self) -> Path:
        """Written by the DICOMweb server once it answers."""
        return self.run / "dicomweb.json"

    @property
    def callers_json(self) -> Path:
        """Who called the listener last."""
        return self.run / "callers.json"

    @property
    def reload_stamp(self) -> Path:
        """Touched when the configuration should be read again; every process looks at it."""
        return self.run / "reload"

    @property
    def redis_socket(self) -> Path:
        """Socket of the embedded Redis; in the temporary folder where the home lies too deep."""
        socket = self.run / "redis.sock"
        if len(os.fsencode(socket)) <= _LONGEST_SOCKET_PATH:
            return socket
        digest = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"unibiomed-{digest}" / "redis.sock"

    def work_folder(self, job_id: int) -> Path:
        """Return where a job keeps what it found."""
        return self.work / str(job_id)

    def database_url(self, settings: NodeSettings) -> str:
        """Return the database's URL: the administrator's, or SQLite in this home."""
        return settings.database.url or f"sqlite:///{self.database.resolve()}"

    def broker_url(self, settings: NodeSettings) -> str:
        """Return the broker's URL: the administrator's, or the embedded Redis."""
        return settings.broker.url or f"redis+socket://{self.redis_socket}"

    def make_folders(self) -> None:
        """Make what is missing, readable for the node's user only (patient data)."""
        for folder in (self.root, self.archive, self.run, self.work, self.log):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write_defaults(self) -> list[Path]:
        """Write the commented default files where they are missing; return those written."""
        written = []
        for path, text in (
            (self.node_yaml, default_node_text()),
            (self.rules_yaml, default_rules_text()),
        ):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                written.append(path)
        return written


def default_node_text() -> str:
    """Return the ``node.yaml`` that a first start writes."""
    return (resources.files("workflows") / "default_node.yaml").read_text(encoding="utf-8")


def default_rules_text() -> str:
    """Return the ``rules.yaml`` that a first start writes."""
    return (resources.files("workflows") / "default_rules.yaml").read_text(encoding="utf-8")
