"""What a supervised program writes, in files that do not grow for ever."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO

__all__ = ["RotatingLog"]


class RotatingLog:
    """A log file of bytes that starts anew when it is full and keeps the last few.

    Parameters
    ----------
    path
        The file that is written; older ones are ``path.1`` (newest) to ``path.<keep>``.
    size
        Bytes at which the file is full.
    keep
        How many full files are kept.
    """

    def __init__(self, path: Path, *, size: int = 10_000_000, keep: int = 5) -> None:
        self.path = path
        self._size = size
        self._keep = keep
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Append `data`, to a new file when the present one is full.

        What a full or broken disk does not take is lost: a node that cannot log still receives,
        and is the one that tells the senders that the disk is full.
        """
        with contextlib.suppress(OSError):
            if self._file.tell() + len(data) > self._size and self._file.tell() > 0:
                self._rotate()
            self._file.write(data)

    def _rotate(self) -> None:
        names = [self.path, *(Path(f"{self.path}.{n}") for n in range(1, self._keep + 1))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)
        full, self._file = self._file, self.path.open("ab", buffering=0)
        full.close()

    def close(self) -> None:
        """Close the file; writing afterwards is an error."""
        self._file.close()
