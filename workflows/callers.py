"""Who called last: what the listener heard, for ``unibiomed-node peers``.

An association that only carried a C-ECHO leaves nothing in the database. It is the sign, though,
that a peer can reach the node, so the listener notes each caller's last association in a file.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from dicom_node.services.events import AssociationEnded

_MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Call:
    """The last association that a caller had, and how it ended.

    Attributes
    ----------
    at
        ISO 8601, when it ended.
    """

    calling_ae_title: str
    called_ae_title: str
    host: str
    ended: str
    stored: int
    at: str


class Callers:
    """Notes callers; written to the file when asked, and only after a change.

    Parameters
    ----------
    path
        The file.
    now
        The clock.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._path = path
        self._now = now
        self._guard = threading.Lock()
        self._calls = {(one.calling_ae_title, one.host): one for one in calls_in(path)}
        self._changed = False

    def note(self, ended: AssociationEnded) -> None:
        """Note an association that ended."""
        call = Call(
            ended.calling_ae_title,
            ended.called_ae_title,
            ended.peer_host,
            ended.ended,
            ended.stored,
            self._now().isoformat(),
        )
        with self._guard:
            key = (call.calling_ae_title, call.host)
            self._calls.pop(key, None)
            self._calls[key] = call
            if len(self._calls) > _MOST:
                self._calls.pop(next(iter(self._calls)))
            self._changed = True

    def write(self) -> None:
        """Write what is new."""
        with self._guard:
            if not self._changed:
                return
            self._changed = False
            calls = [asdict(call) for call in self._calls.values()]
        temporary = self._path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(calls), encoding="utf-8")
        temporary.replace(self._path)


def calls_in(path: Path) -> list[Call]:
    """Read the file; without one nobody has called."""
    try:
        return [Call(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (FileNotFoundError, ValueError, TypeError):
        return []
