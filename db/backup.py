"""A whole copy of the embedded database, taken while the node runs."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["copy_sqlite"]


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy an SQLite database as it was at one moment, by SQLite's own online backup.

    Readers and writers of `source` go on meanwhile. Copying its files by other means would mix
    pages of different moments, and miss what still stands in the write-ahead log.

    Parameters
    ----------
    source
        The database; it is not changed.
    target
        The copy; readable by this user alone, whole and on the disk when this returns.

    Raises
    ------
    FileExistsError
        There is a file at `target` already.
    sqlite3.Error
        `source` is no database, or is damaged, or the copy cannot be written. Nothing is left at
        `target`.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            # The copy is one file, which is opened and moved like any other.
            copy.execute("PRAGMA journal_mode=DELETE")
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"{source} is damaged: {verdict}")
    except BaseException:
        target.unlink()
        raise
    with target.open("rb") as written:
        os.fsync(written.fileno())
