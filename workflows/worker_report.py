"""What a worker tells of itself for the dashboard: that it lives, what it uses and runs on."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import threading
from datetime import timedelta
from typing import Any, Final

import psutil
from sqlalchemy.exc import SQLAlchemyError

from db.models_operation import WorkerRecord
from db.operation import tell_of_worker
from inference.errors import CheckpointError
from workflows.node import Node

_LOG = logging.getLogger(__name__)
REPORT_SECONDS: Final = 10.0
_FORGET_AFTER: Final = timedelta(minutes=5)
_LOOK_SECONDS: Final = 5.0
_QUERY: Final = "name,memory.used,memory.total,utilization.gpu,temperature.gpu"


class WorkerReport:
    """Writes a worker's row each few seconds, in a thread of its own.

    Parameters
    ----------
    node
        The node.
    queue
        Which queue the worker serves.
    """

    def __init__(self, node: Node, queue: str) -> None:
        self._node = node
        self._queue = queue
        self._began = node.now()
        self._process = psutil.Process()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker report", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell no more."""
        self._stopping.set()

    def _run(self) -> None:
        while True:
            try:
                self.tell()
            except SQLAlchemyError as error:
                _LOG.warning("the worker could not report: %s", type(error).__name__)
            except psutil.Error as error:
                # A child that ended between two looks.
                _LOG.debug("the worker could not look at itself: %s", error)
            if self._stopping.wait(REPORT_SECONDS):
                return

    def tell(self) -> None:
        """Write the row once."""
        record = self._record()
        with self._node.database.session() as session:
            tell_of_worker(session, record, record.seen_at - _FORGET_AFTER)

    def _record(self) -> WorkerRecord:
        family = [self._process, *self._process.children()]
        runs_model = self._queue == "gpu"
        return WorkerRecord(
            name=f"{self._queue}@{socket.gethostname()}:{self._process.pid}"[:128],
            queue=self._queue,
            host=socket.gethostname(),
            processes=[process.pid for process in family],
            started_at=self._began,
            seen_at=self._node.now(),
            memory=sum(process.memory_info().rss for process in family),
            processor=sum(process.cpu_percent() for process in family),
            model=self._model_name() if runs_model else "",
            device=device_of(self._node.settings.model.device) if runs_model else {},
        )

    def _model_name(self) -> str:
        try:
            card = self._node.model.card
        except CheckpointError as error:
            return f"none: {error}"[:256]
        return f"{card.name} {card.version}"


def device_of(setting: str) -> dict[str, Any]:
    """Say what the model runs on, and how busy that is where it can be measured.

    Parameters
    ----------
    setting
        ``model.device`` of node.yaml.

    Returns
    -------
    dict
        ``kind`` (``cpu`` or ``gpu``) and ``name``; for a GPU whose driver tells, ``memory_used``
        and ``memory_total`` in bytes, ``utilisation`` in percent, ``temperature`` in Celsius.
    """
    program = shutil.which("nvidia-smi")
    if setting == "cpu" or program is None:
        return {"kind": "cpu", "name": f"{os.cpu_count()} CPU cores"}
    index = setting.partition(":")[2] or "0"
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits", f"--id={index}"]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=_LOOK_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.debug("nvidia-smi tells nothing: %s", error)
        return {"kind": "cpu", "name": f"{os.cpu_count()} CPU cores"}
    return read_device(said)


def read_device(line: str) -> dict[str, Any]:
    """Read the line that nvidia-smi writes for `_QUERY`; what it cannot tell is left out."""
    parts = [part.strip() for part in line.strip().splitlines()[0].split(",")]
    found: dict[str, Any] = {"kind": "gpu", "name": parts[0]}
    scales = {"memory_used": 2**20, "memory_total": 2**20, "utilisation": 1, "temperature": 1}
    for (name, scale), text in zip(scales.items(), parts[1:], strict=False):
        if text.isdigit():
            found[name] = int(text) * scale
    return found
