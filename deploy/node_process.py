"""A whole node as a child process, for the demo and the tests: start, stop, kill, ask."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from deploy.child_process import ChildProcess
from deploy.node_database import open_database

__all__ = ["NodeProcess", "NodeStartError"]

START_SECONDS = 120.0
STOP_SECONDS = 90.0


class NodeStartError(Exception):
    """The node did not start; the text has the end of what it said."""


class NodeProcess(ChildProcess):
    """``unibiomed-node up`` on a home; enter it to start it, leave it to stop it.

    Parameters
    ----------
    home
        The node's home, with its ``node.yaml``.

    Attributes
    ----------
    ready
        What ``run/ready.json`` says: AE title, host, port, pid, version.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(home / "up.log", STOP_SECONDS)
        self.home = home
        self.ready: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """Where to send studies, as ``AE@host:port``."""
        return f"{self.ready['ae_title']}@{self.ready['host']}:{self.ready['port']}"

    def start(self) -> None:
        """Start the node and wait until it accepts associations.

        Raises
        ------
        NodeStartError
            It ended, or was not ready in time.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "deploy.cli", "up", "--home", str(self.home)]
        if not self.launch(command, Path(__file__).parent.parent, self._is_ready, START_SECONDS):
            raise NodeStartError(f"The node did not start. It said:\n{self.last_lines(8)}")

    def jobs(self, study_instance_uid: str | None = None) -> list[dict[str, Any]]:
        """Return all jobs, or those of a study, the oldest first (`db.reports.job_report`)."""
        from db.reports import job_list, job_report

        with open_database(self.home) as session:
            listed = job_list(session, study_instance_uid=study_instance_uid, limit=None)
            reports = [
                job_report(session, number) for number in sorted(job["id"] for job in listed)
            ]
        return [report for report in reports if report is not None]

    def _is_ready(self) -> bool:
        try:
            self.ready = json.loads((self.home / "run" / "ready.json").read_text())
        except (FileNotFoundError, ValueError):
            self.ready = {}
        return bool(self.ready.get("pid") == self.pid)
