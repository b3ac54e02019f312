"""pynetdicom's own callers, which tests talk to the node with, without a race in their reactor.

Before a caller sends a request it has its reactor thread pause, or that would take the answer. In
pynetdicom 3.0.4 (``Association._run_reactor``) the thread says that it pauses, finds that it need
not, and only then says that it goes on: a request that is made in between is sent while the thread
runs, and now and then, on a busy machine, the answer never reaches who waits for it. The node's own
associations have no such thread.
"""

from __future__ import annotations

import threading
from typing import Any

from pynetdicom.association import Association


class _Checkpoint(threading.Event):
    """Passed by a reactor that says in the same moment that it goes on."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        while True:
            if not super().wait(timeout):
                return False
            with self._cond:  # type: ignore[attr-defined]
                if self._flag:  # type: ignore[attr-defined]
                    self._association._is_paused = False
                    return True


def mend() -> None:
    """Have callers that are made from now on pause in truth."""
    make = Association.__init__

    def made(association: Association, *arguments: Any, **named: Any) -> None:
        make(association, *arguments, **named)
        if type(association) is Association:
            association._reactor_checkpoint = _Checkpoint(association)

    Association.__init__ = made  # type: ignore[assignment, method-assign]
