"""A database that does not answer: said once when it begins, and once when it is over."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

DATABASE_ERRORS = (DBAPIError, PoolTimeoutError)
"""What a database that is away, locked or asked wrongly raises; `is_passing` tells them apart."""
_LOG = logging.getLogger(__name__)
# Result codes without their extension (https://sqlite.org/rescode.html): all other errors of SQLite
# that Python calls operational are mistakes in a statement.
_SQLITE_PASSES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
    }
)
# PostgreSQL's Appendix A: connection, rollback of a transaction, resources, operator, system, and
# a lock that was not had in time.
_POSTGRESQL_PASSES: Final = ("08", "40", "53", "57", "58", "55P03")


def is_refused_value(error: BaseException) -> bool:
    """Say whether a database refused a value for what it is, such as a text with a NUL."""
    return isinstance(error, DataError)


def is_passing(error: BaseException) -> bool:
    """Say whether a database error may go away by itself.

    Locked, disconnected, restarting, deadlocked, out of connections or of disk: yes. A broken
    constraint, or a statement that the database cannot do: no.
    """
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        # Absent where the driver itself complains, and not SQLite.
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return code & 0xFF in _SQLITE_PASSES
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # There was no connection on which a server could have told one.
        return isinstance(error, OperationalError)
    return str(state).startswith(_POSTGRESQL_PASSES)


class Outage:
    """Watches what a process asks of the database, so that its log tells of an outage once.

    Whoever asks still gets the error, and decides what it means there; it need not be logged.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._since: float | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Hear of what goes wrong, and of what goes well again, in a block."""
        try:
            yield
        except DATABASE_ERRORS as error:
            if is_passing(error):
                self._begins(error)
            raise
        if self._since is not None:
            self._ends()

    def _begins(self, error: Exception) -> None:
        with self._guard:
            if self._since is not None:
                return
            self._since = time.monotonic()
        _LOG.warning("the database does not answer (%s); work waits for it", _said(error))

    def _ends(self) -> None:
        with self._guard:
            since, self._since = self._since, None
        if since is not None:
            _LOG.warning("the database answers again, after %.1f s", time.monotonic() - since)


def _said(error: Exception) -> str:
    """Return what the database said, without statement and detail: they may name patients."""
    said = str(error.orig).strip() if isinstance(error, DBAPIError) else ""
    return said.partition("\n")[0][:200] or type(error).__name__
