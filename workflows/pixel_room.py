"""How much memory the jobs of one worker may fill with decoded pixels, all together.

The number of jobs side by side says little: a study of chest CT may be thirty times one of the
hippocampus. A job that finds too little room waits until others are done; one that is larger than
all the room has it for itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_LOOK_SECONDS: Final = 0.5
_SHARE_OF_MEMORY: Final = 4


def quarter_of_memory() -> int:
    """Return a fourth of this machine's memory, in bytes: model and other processes need theirs."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _SHARE_OF_MEMORY


class PixelRoom:
    """Room for decoded pixels.

    Parameters
    ----------
    size
        Bytes; None for a fourth of the machine's memory.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = quarter_of_memory() if size is None else size
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int, check: Callable[[], None]) -> Iterator[None]:
        """Hold room for ``size`` bytes, and wait for it first.

        Parameters
        ----------
        size
            Bytes.
        check
            Called while it waits; what it raises ends the waiting.
        """
        with self._changed:
            while self._taken and self._taken + size > self._size:
                self._changed.wait(_LOOK_SECONDS)
                check()
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()
