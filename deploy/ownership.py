"""One node per home: who owns it now, and what a killed owner left running.

The owner holds a lock on ``run/node.lock`` that the kernel frees when the process ends in whatever
way. The file's text says who the owner is; an orderly stop empties it, so text under a free lock
means that the last owner was killed and its programs may still run.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

__all__ = ["AlreadyRunningError", "Ownership", "read_owner"]

TREE_VARIABLE = "UNIBIOMED_TREE"
"""Environment variable that marks every process of one tree."""

POLITE_SECONDS = 5.0


class AlreadyRunningError(Exception):
    """Another node owns the home; the text is a sentence for the administrator."""


class Ownership:
    """Owns a home until the end of a ``with`` block.

    Parameters
    ----------
    run_folder
        ``DIR/run``.
    say
        Receives a sentence about what a killed owner left and was cleared away.

    Raises
    ------
    AlreadyRunningError
        On entering, when another process owns the home.
    """

    def __init__(self, run_folder: Path, say: Callable[[str], None]) -> None:
        self._path = run_folder / "node.lock"
        self._say = say
        self._descriptor = -1
        self.tree = uuid.uuid4().hex
        self.after_a_kill = False

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise AlreadyRunningError(_refusal(self._path)) from None
        former = read_owner(self._path.parent)
        if former is not None:
            self.after_a_kill = True
            self._clear_away(former)
        self._write({"pid": os.getpid(), "started": _now(), "tree": self.tree})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write(None)
        os.close(self._descriptor)

    def _write(self, owner: dict[str, Any] | None) -> None:
        os.ftruncate(self._descriptor, 0)
        text = "" if owner is None else json.dumps(owner)
        os.pwrite(self._descriptor, text.encode(), 0)
        os.fsync(self._descriptor)

    def _clear_away(self, former: dict[str, Any]) -> None:
        """End what still runs of the former tree, politely first."""
        left = processes_of(str(former.get("tree", "")))
        if left:
            self._say(
                f"The last node on this home was killed and left processes running ({len(left)}); "
                "they are ended before this one starts."
            )
        for process in left:
            _signal(process.terminate)
        _, alive = psutil.wait_procs(left, timeout=POLITE_SECONDS)
        for process in alive:
            _signal(process.kill)
        psutil.wait_procs(alive, timeout=POLITE_SECONDS)


def read_owner(run_folder: Path) -> dict[str, Any] | None:
    """Return what ``run/node.lock`` says of the owner, or None when nobody is named there."""
    try:
        owner = json.loads((run_folder / "node.lock").read_text() or "null")
    except (FileNotFoundError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def processes_of(tree: str) -> list[psutil.Process]:
    """Return the processes whose environment carries the mark of `tree`, this one apart."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid() or not tree:
            continue
        try:
            if process.environ().get(TREE_VARIABLE) == tree:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone meanwhile, or of another user and so not ours
    return found


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return


def _refusal(path: Path) -> str:
    owner = read_owner(path.parent) or {}
    return (
        f"A node already runs on {path.parent.parent} (process {owner.get('pid', 'unknown')}, "
        f"since {owner.get('started', 'unknown')}). Stop it with: kill {owner.get('pid', 'PID')}, "
        "or give this one another folder with --home."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
