"""Taking up what the listener receives: many instances, one commit.

Each association has a thread that must not answer Success before its instance is registered
durably. A commit costs a wait for the disk; so the threads hand their instances to one writer,
which commits all that came in while it was busy with the batch before, and waits two thousandths of
a second at most for senders that are in full flow. With one sender a batch is one instance, with
forty senders it is forty.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from db import catalog
from db.catalog import Arrival
from db.registration import register_arrivals
from db.session import Database, is_passing
from dicom_node.archive import Archive
from dicom_node.errors import FinalError, RetriableError
from dicom_node.peers import Refusal
from dicom_node.services.events import AssociationEnded, Quarantined, ReceivedInstance

LOGGER = logging.getLogger(__name__)

_GATHER_SECONDS: Final = 0.002
# An association in full flow hands in an instance each few milliseconds.
_SENDING_SECONDS: Final = 0.02
# Many more than associations may be open: then refusals have piled up while the database was away.
_LONGEST_QUEUE: Final = 4096

Entry = Arrival | Quarantined | Refusal | AssociationEnded


def utc_now() -> datetime:
    """Give the time, aware, in UTC."""
    return datetime.now(UTC)


class _Waiting:
    """An entry on its way into the database, and who waits for it.

    A bare lock, held until the entry is settled: a future or an event costs four times as much,
    thousands of times a minute.
    """

    __slots__ = ("_error", "_unsettled", "deadline", "entry")

    def __init__(self, entry: Entry, deadline: float) -> None:
        self.entry = entry
        self.deadline = deadline
        self._error: RetriableError | FinalError | None = None
        self._unsettled = threading.Lock()
        self._unsettled.acquire()

    def settle(self, error: RetriableError | FinalError | None = None) -> None:
        """Let the waiting thread go on; once."""
        self._error = error
        self._unsettled.release()

    def wait(self, seconds: float) -> bool:
        """Return once settled, raising the error if there was one; False after ``seconds``."""
        if not self._unsettled.acquire(timeout=seconds):
            return False
        if self._error is not None:
            raise self._error
        return True


class Registrar:
    """Registers what the listener receives, in batches, from one writer thread.

    The methods named ``on_...`` are what `dicom_node.services` calls from its association
    threads.

    Parameters
    ----------
    database
        Where to. The listener opens it with ``flush_commits=False``: what is registered here lies
        durable in the archive before, and `reconcile` registers at start what the catalog lacks,
        with its waiting job. A refused association that a power cut forgets is one less in a
        count, and associations without an end are closed at start.
    listener
        Name of the listening process, the same at each start and no other process's: what it
        left open when it died is closed under this name.
    archive
        Where the files lie: an instance that the archive had already is looked for again after
        its commit, because retention may have deleted it in between.
    on_released
        Called from the writer thread, after the commit, with the studies that no association
        sends any more. It must return at once: the listener puts the message for the completion
        engine on a thread of its own.
    batch
        Entries per transaction, at most.
    deadline_seconds
        How long an association waits for a database that is locked or away before the sender
        gets A700 and tries again. Senders commonly give up after 30 s or more.
    now
        Clock, for tests.
    """

    def __init__(
        self,
        database: Database,
        *,
        listener: str,
        archive: Archive | None = None,
        on_released: Callable[[Sequence[int]], None] | None = None,
        batch: int = 256,
        deadline_seconds: float = 20.0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._listener = listener
        self._archive = archive
        self._tell_released = on_released
        self._batch = batch
        self._deadline_seconds = deadline_seconds
        self._now = now
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        # The writer's alone, from its first batch on: to take one from the pool for each batch and
        # give it back takes longer than to write the batch.
        self._connection: Connection | None = None
        self._sent_at: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Close what an earlier run of this listener left open, and begin to write."""
        with self._database.session() as session:
            catalog.close_associations(session, self._listener, self._now())
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the writer runs; a listener whose writer died should end and be restarted."""
        return self._thread.is_alive()

    @property
    def backlog(self) -> int:
        """Entries that wait for the writer, about."""
        return self._queue.qsize()

    def stop(self, timeout: float = 10.0) -> None:
        """Write what is queued and end; call it when the listener takes no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout)

    def on_stored(self, instance: ReceivedInstance) -> None:
        """Register an instance; return only when that is committed.

        Raises
        ------
        RetriableError
            When the database cannot take it before the deadline: the sender gets A700, so
            nothing counts as acknowledged that the node does not know.
        FinalError
            When the database will never take it.
        """
        self._sent_at[instance.association] = time.monotonic()
        self._wait(self._submit(as_arrival(instance, self._listener, self._now())))
        stored = instance.file
        if stored.outcome == "same" and self._archive is not None:
            # Deleting holds the study until its commit; so it was before ours, and shows by now.
            if not self._archive.absolute(stored.path).exists():
                raise RetriableError("the earlier copy was just deleted by age; send it again")

    def on_quarantined(self, quarantined: Quarantined) -> None:
        """Note an object in quarantine.

        A database that is away does not matter here: the file and its reason lie in the archive,
        and the next start takes them up.
        """
        try:
            self._wait(self._submit(quarantined))
        except (RetriableError, FinalError) as error:
            LOGGER.error("quarantined object not yet in the database: %s", error.sentence)

    def on_released(self, ended: AssociationEnded) -> None:
        """Note that an association ended; does not wait."""
        self._sent_at.pop(ended.association, None)
        self._submit_unwatched(ended)

    def on_refused(self, refusal: Refusal) -> None:
        """Count a refused association; does not wait."""
        self._submit_unwatched(refusal)

    def _submit(self, entry: Entry) -> _Waiting:
        waiting = _Waiting(entry, time.monotonic() + self._deadline_seconds)
        if self._stopping.is_set():
            raise RetriableError("the node is stopping; send again when it is back")
        if self._queue.qsize() >= _LONGEST_QUEUE:
            raise RetriableError(
                "the node's database does not keep up with what is received; send again later"
            )
        self._queue.put(waiting)
        return waiting

    def _submit_unwatched(self, entry: AssociationEnded | Refusal) -> None:
        try:
            self._submit(entry)
        except RetriableError as error:
            # Quiet time stands in for a lost end, and a refusal was answered anyway.
            LOGGER.warning("%s not noted: %s", type(entry).__name__, error.sentence)

    def _wait(self, waiting: _Waiting) -> None:
        # The writer keeps the deadline too; this one is for a writer that hangs in a commit.
        if not waiting.wait(self._deadline_seconds + self._database.busy_seconds):
            raise RetriableError("the node's database did not answer in time; send again later")

    def _run(self) -> None:
        try:
            last = False
            while not last:
                entries, last = self._next_batch()
                self._write(entries)
        finally:
            # Should the writer ever die of a mistake, nobody is left waiting for it; the listener
            # sees that it is gone, and is started anew.
            self._stopping.set()
            self._turn_away()
            self._disconnect()

    def _turn_away(self) -> None:
        """Answer what nobody will write any more."""
        with suppress(queue.Empty):
            while True:
                waiting = self._queue.get_nowait()
                if waiting is not None:
                    waiting.settle(
                        RetriableError("the node is stopping; send again when it is back")
                    )

    def _next_batch(self) -> tuple[list[_Waiting], bool]:
        """Give all that waits, up to the batch size, and whether it is the last.

        A commit costs much the same for one instance as for four. So associations that are
        sending right now are waited for, a moment that is short beside one instance's way.
        """
        entries: list[_Waiting] = []
        first = self._queue.get()
        expected = self._sending()
        until = time.monotonic() + _GATHER_SECONDS
        while first is not None:
            entries.append(first)
            if len(entries) >= self._batch:
                return entries, False
            seconds = until - time.monotonic() if len(entries) < expected else 0.0
            try:
                first = self._queue.get(block=seconds > 0, timeout=max(seconds, 0.0))
            except queue.Empty:
                return entries, False
        return entries, True

    def _sending(self) -> int:
        """Count the associations that handed in an instance a moment ago."""
        since = time.monotonic() - _SENDING_SECONDS
        return sum(moment > since for moment in tuple(self._sent_at.values()))

    def _write(self, entries: list[_Waiting]) -> None:
        """Commit a batch, trying again while its deadlines allow."""
        pause = 0.05
        while entries:
            try:
                released = self._commit(entries)
            except SQLAlchemyError as error:
                self._disconnect()
                if not is_passing(error):
                    self._write_one_by_one(entries, error)
                    return
            # The writer's boundary: values that the driver cannot take (it raises errors of its
            # own, as UnicodeEncodeError) fail their entry, and not the thread all senders need.
            except Exception as error:
                self._disconnect()
                self._write_one_by_one(entries, error)
                return
            else:
                for waiting in entries:
                    waiting.settle()
                if released and self._tell_released is not None:
                    self._tell_released(released)
                return
            entries = self._without_overdue(entries)
            if entries:
                self._stopping.wait(pause)
                pause = min(2 * pause, 1.0)

    def _commit(self, entries: Sequence[_Waiting]) -> list[int]:
        """Write entries in one transaction; returns the studies that were released by it."""
        arrivals = [one.entry for one in entries if isinstance(one.entry, Arrival)]
        others = [one.entry for one in entries if not isinstance(one.entry, Arrival)]
        released: list[int] = []
        with self._database.watched():
            connection = self._connection
            if connection is None:
                connection = self._connection = self._database.engine.connect()
            with connection.begin():
                register_arrivals(connection, arrivals)
                if others:
                    # Its commit is only a flush: the transaction is the connection's.
                    with Session(bind=connection) as session, session.begin():
                        released = self._record(session, others)
        return released

    def _disconnect(self) -> None:
        """Let go of the connection: the next batch takes one that was looked at."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write_one_by_one(self, entries: Sequence[_Waiting], error: Exception) -> None:
        """Find the entry that the database will never take; the others get in."""
        if len(entries) > 1:
            for waiting in entries:
                self._write([waiting])
            return
        entry = entries[0].entry
        LOGGER.error("the database refuses a %s: %s", type(entry).__name__, _cause(error))
        entries[0].settle(FinalError("the node's database refuses this object; its log says why"))

    def _without_overdue(self, entries: list[_Waiting]) -> list[_Waiting]:
        now = time.monotonic()
        for waiting in entries:
            if waiting.deadline <= now:
                waiting.settle(
                    RetriableError("the node's database is not available; send again later")
                )
        return [waiting for waiting in entries if waiting.deadline > now]

    def _record(
        self, session: Session, entries: Sequence[Quarantined | Refusal | AssociationEnded]
    ) -> list[int]:
        """Write what is not an instance; returns the studies that were released by it."""
        now = self._now()
        released: list[int] = []
        for one in entries:
            if isinstance(one, AssociationEnded):
                released += catalog.association_ended(session, one.association, one.ended, now)
            elif isinstance(one, Quarantined):
                add_quarantined(session, one, now)
            elif isinstance(one, Refusal):
                catalog.add_refusal(
                    session,
                    calling_ae_title=one.calling_ae_title,
                    called_ae_title=one.called_ae_title,
                    peer_host=one.host,
                    reason=f"{one.result}/{one.source}/{one.reason}",
                    sentence=one.sentence,
                    now=now,
                )
        return sorted(set(released))


def _cause(error: Exception) -> str:
    """Say what the database said, without statement and detail: they may name patients."""
    said = str(error.orig) if isinstance(error, DBAPIError) else ""
    return said.partition("\n")[0] or type(error).__name__


def as_arrival(instance: ReceivedInstance, listener: str, now: datetime) -> Arrival:
    """Turn the listener's word for an instance into the catalog's."""
    return Arrival(
        study_instance_uid=instance.study_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        path=instance.file.path,
        size=instance.file.size,
        sha256=instance.file.sha256,
        # Not the archive's outcome: "same" may be the second try of a conflict whose
        # registration failed. The name of the file tells in every case.
        beside=is_beside(instance.file.path),
        received_at=now,
        attributes=instance.attributes,
        association=instance.association,
        listener=listener,
        calling_ae_title=instance.calling_ae_title,
        called_ae_title=instance.called_ae_title,
        peer_host=instance.peer_host,
    )


def is_beside(path: str) -> bool:
    """Say whether the archive keeps this file beside another one of the same UID."""
    return "~" in path.rsplit("/", 1)[-1]


def add_quarantined(session: Session, quarantined: Quarantined, now: datetime) -> None:
    """Note an object in quarantine."""
    catalog.add_quarantined(
        session,
        path=quarantined.path,
        reason=quarantined.reason,
        size=quarantined.size,
        received_at=now,
        origin={
            "sop_class_uid": quarantined.sop_class_uid,
            "sop_instance_uid": quarantined.sop_instance_uid,
            "calling_ae_title": quarantined.calling_ae_title,
            "called_ae_title": quarantined.called_ae_title,
            "peer_host": quarantined.peer_host,
        },
    )
