"""A whole node as a child process, for the demo and the tests: start, stop, kill, ask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.node_database import open_database
from deploy.supervisor import die_with_parent

__all__ = ["NodeProcess", "NodeStartError"]

START_SECONDS = 120.0
STOP_SECONDS = 90.0


class NodeStartError(Exception):
    """The node did not start; the text has the end of what it said."""


class NodeProcess:
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
        self.home = home
        self.ready: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where to send studies, as ``AE@host:port``."""
        return f"{self.ready['ae_title']}@{self.ready['host']}:{self.ready['port']}"

    @property
    def pid(self) -> int:
        """Process id of the supervisor at the root of the tree."""
        if self._process is None:
            raise RuntimeError("the node has not been started")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the node and wait until it accepts associations.

        Raises
        ------
        NodeStartError
            It ended, or was not ready in time.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        with self.said_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "up", "--home", str(self.home)],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            self.ready = self._read_ready()
            if self.ready.get("pid") == self._process.pid:
                return
            time.sleep(0.05)
        self.stop()
        tail = "\n".join(self.said_path.read_text(errors="replace").splitlines()[-8:])
        raise NodeStartError(f"The node did not start. It said:\n{tail}")

    def stop(self) -> int:
        """Stop the node as an administrator does, and return its exit code."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """End the supervisor by SIGKILL; its children are left to the kernel."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def said_path(self) -> Path:
        """The file with what the node said on its terminal."""
        return self.home / "up.log"

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs, the oldest first (`db.reports.job_report`)."""
        from db.reports import job_list, job_report

        with open_database(self.home) as session:
            numbers = sorted(job["id"] for job in job_list(session, limit=1000))
            reports = [job_report(session, number) for number in numbers]
        return [report for report in reports if report is not None]

    def _read_ready(self) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads((self.home / "run" / "ready.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return told
