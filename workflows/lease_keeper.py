"""Keep a job's lease alive while a stage works on it, and tell the stage when to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from sqlalchemy.exc import SQLAlchemyError

from db.jobs import Lease, LostLease, heartbeat
from db.session import Database, is_passing

_LOG = logging.getLogger(__name__)
_LONGEST_TICK: Final = 1.0
"""Seconds between two looks; progress that people see is at most this old."""


class DeadlineError(Exception):
    """A stage took longer than one may take."""


class LeaseKeeper:
    """Renews a lease from a thread of its own; the stage calls `check` or `report` as it goes.

    Parameters
    ----------
    database, lease
        What is renewed.
    lease_seconds
        How long each renewal lasts; four of them fit into one lease.
    deadline_seconds
        How long the stage may take. Afterwards the lease is renewed no more, so that a stage
        that hangs in foreign code loses its job to the sweep.
    abandon
        Called when a stage does not react for a whole lease after its deadline or the loss of its
        lease. A thread cannot be killed; a process can.

    Notes
    -----
    The lease counts as lost by our own clock once it could not be renewed for its whole length:
    by then the sweep may have given the job away.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        *,
        lease_seconds: float,
        deadline_seconds: float,
        abandon: Callable[[], None] | None = None,
    ) -> None:
        self._database = database
        self._lease = lease
        self._lease_seconds = lease_seconds
        self._abandon = abandon
        self._stopping = threading.Event()
        self._lost = threading.Event()
        self._progress: float | None = None
        now = time.monotonic()
        self._renewed = now
        self._told_to_stop: float | None = None
        self._deadline = now + deadline_seconds
        self._thread = threading.Thread(
            target=self._run, name=f"lease of job {lease.job_id}", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def check(self) -> None:
        """Raise `LostLease` or `DeadlineError` when the stage must stop."""
        if self._lost.is_set():
            raise LostLease(f"job {self._lease.job_id} is not {self._lease.owner}'s any more")
        if time.monotonic() > self._deadline:
            raise DeadlineError

    def report(self, fraction: float) -> None:
        """Note how far the stage is, 0..1, and `check`."""
        self._progress = min(1.0, max(0.0, fraction))
        self.check()

    def _run(self) -> None:
        beat = self._lease_seconds / 4
        tick = min(_LONGEST_TICK, beat)
        written: float | None = None
        while not self._stopping.wait(tick):
            now = time.monotonic()
            if self._lost.is_set() or now > self._deadline:
                self._leave_when_stuck(now)
                continue
            progress = self._progress
            if now - self._renewed < beat and progress == written:
                continue
            if self._renew(progress):
                self._renewed, written = now, progress
            elif now - self._renewed > self._lease_seconds:
                _LOG.error("job %d: the database was away for a whole lease", self._lease.job_id)
                self._lost.set()

    def _renew(self, progress: float | None) -> bool:
        """Renew once; False when the database did not answer."""
        try:
            with self._database.session() as session:
                now = datetime.now(UTC)
                heartbeat(session, self._lease, self._lease_seconds, now, progress)
        except LostLease:
            _LOG.warning("job %d was taken from this worker", self._lease.job_id)
            self._lost.set()
        except SQLAlchemyError as error:
            if not is_passing(error):
                # Nobody renews the lease any more: the stage must hear of it.
                self._lost.set()
                raise
            _LOG.warning("job %d: lease not renewed: %s", self._lease.job_id, type(error).__name__)
            return False
        return True

    def _leave_when_stuck(self, now: float) -> None:
        if self._told_to_stop is None:
            self._told_to_stop = now
        if self._abandon is not None and now - self._told_to_stop > self._lease_seconds:
            _LOG.critical("job %d does not stop; the worker gives up", self._lease.job_id)
            self._abandon()
