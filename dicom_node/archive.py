"""The archive: DICOM objects as files, durable before anyone is told that they are kept.

Layout below the root::

    incoming/                                          being received; swept at start
    studies/<Study UID>/<Series UID>/<SOP UID>.dcm     as they came, in DICOM File Format (PS3.10 7)
    studies/<Study UID>/<Series UID>/<SOP UID>~<sha256, 16 digits>.dcm   same UID, other bytes
    quarantine/<id>.dcm and <id>.json                  what could not be filed, and why
    results/<job id>/                                  objects that the node made

Every UID is hostile text until :func:`valid_uid` has seen it: it becomes part of a path.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from dicom_node.durable import (
    ByteSource,
    DirectorySync,
    fsync_covers_names,
    fsync_directory,
    full_disk_named,
    link_if_absent,
    open_temporary,
    write_all,
    write_durably,
)
from dicom_node.errors import FinalError, StorageFullError
from dicom_node.incoming import Incoming, StoredFile

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Fragments are gathered to this size before they are written and hashed: both give the interpreter
# away, and four associations that do so for each PDU wait more for it than for the disk.
_GATHER: Final = 1 << 20
_ROOMS_KEPT: Final = 32
# Folders known to be durable, per archive object: enough for every series in flight.
_REMEMBERED: Final = 4096


class Archive:
    """The files of the node. Safe for threads and for several processes on one root.

    Parameters
    ----------
    root : Path
        Made if absent, with its folders.
    reserve_bytes : int
        The watermark: with less than this free, nothing is taken in (senders are answered A700).
    """

    def __init__(self, root: Path, *, reserve_bytes: int) -> None:
        self.root = root.resolve()
        self.reserve_bytes = reserve_bytes
        self.incoming = self.root / "incoming"
        self.studies = self.root / "studies"
        self._quarantine = self.root / "quarantine"
        self._results = self.root / "results"
        self.sync_directory = DirectorySync()
        self.fsync_covers_names = fsync_covers_names(self.root)
        self._guard = threading.Lock()
        self._made: dict[str, None] = {}
        self._rooms: deque[memoryview] = deque(maxlen=_ROOMS_KEPT)
        for directory in (self.incoming, self.studies, self._quarantine, self._results):
            directory.mkdir(parents=True, exist_ok=True)
        fsync_directory(self.root)

    def lend_room(self) -> memoryview:
        """Return memory to gather an object's fragments in, which nobody else uses meanwhile."""
        try:
            return self._rooms.pop()
        except IndexError:
            # Of the system and not of the heap: it begins with a page, as files want it that are
            # written past the cache.
            return memoryview(mmap.mmap(-1, _GATHER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def take_room_back(self, room: memoryview) -> None:
        """Keep lent memory for the next object: new memory costs as much as filling it."""
        self._rooms.append(room)

    def has_room(self, size: int = 0) -> bool:
        """Whether the watermark would still be kept after ``size`` more bytes."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize - size >= self.reserve_bytes

    def no_room_sentence(self) -> str:
        """Say what is wrong when :meth:`has_room` is false."""
        disk = os.statvfs(self.root)
        free = disk.f_bavail * disk.f_frsize
        return (
            f"The archive's disk has {free / 2**20:.0f} MiB free, under the reserve of "
            f"{self.reserve_bytes / 2**20:.0f} MiB (storage.reserve in node.yaml). "
            "Free space or lower the reserve."
        )

    def absolute(self, path: str) -> Path:
        """Return the file system's path of a path relative to the root.

        Raises
        ------
        FinalError
            If it would leave the root.
        """
        candidate = (self.root / path).resolve()
        if not candidate.is_relative_to(self.root) or candidate == self.root:
            raise FinalError(f"{path[:200]!r} is not a path inside the archive")
        return candidate

    def relative(self, path: Path) -> str:
        """Return the path relative to the root, POSIX form."""
        return path.relative_to(self.root).as_posix()

    def receive(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str
    ) -> Incoming:
        """Open a temporary file for an arriving object; see :class:`Incoming`.

        Raises
        ------
        StorageFullError
            If the disk is under the watermark or full.
        """
        if not self.has_room():
            raise StorageFullError(self.no_room_sentence())
        return Incoming(self, sop_class_uid, sop_instance_uid, transfer_syntax_uid)

    def write_result(self, job_id: int, name: str, data: bytes) -> StoredFile:
        """Keep an object that the node made as ``results/<job id>/<name>``, durable.

        A file of the same name is replaced at once and whole: a job that repeats its encoding
        keeps one result. ``size`` and ``sha256`` of the answer are those of ``data``, the whole
        file.
        """
        if not _NAME.fullmatch(name):
            raise FinalError(f"{name[:120]!r} cannot be the name of a result file")
        directory = self._results / str(int(job_id))
        path = directory / name
        digest = hashlib.sha256(data).hexdigest()
        with full_disk_named(self.root):
            self._make_directory(str(directory))
            same = path.exists() and path.read_bytes() == data
            if not same:
                self._replace(path, data)
            self.sync_directory(directory)
        return StoredFile(self.relative(path), len(data), digest, "same" if same else "new")

    def quarantine(self, data: ByteSource | Incoming, reason: str, origin: dict[str, str]) -> Path:
        """Keep aside what cannot be filed, with the reason in a ``.json`` beside it.

        Parameters
        ----------
        data : bytes or Incoming
            The object, or the reception that holds it.
        reason : str
            One sentence for a PACS administrator.
        origin : dict of str to str
            Where it came from: AE titles, host, UIDs of the command set, transfer syntax.
        """
        if isinstance(data, Incoming):
            return data.quarantine(reason, origin)
        with full_disk_named(self.root):
            path = self.quarantine_path()
            write_durably(path, data)
            self.explain(path, reason, origin, len(data), hashlib.sha256(data).hexdigest())
        return path

    def set_aside(self, path: Path, reason: str, origin: dict[str, str]) -> Path:
        """Move a stored file to the quarantine, with the reason; returns where it lies now."""
        with full_disk_named(self.root):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
            aside = self.quarantine_path()
            os.rename(path, aside)
            self.sync_directory(path.parent)
            self.explain(aside, reason, origin, size, digest)
        return aside

    def take_place(self, beside: Path, place: Path) -> bool:
        """Give a file that is kept beside another one that other's name, if it is free; durable.

        The name that it had is left to the caller to remove, once nothing refers to it.
        """
        with full_disk_named(self.root):
            given = link_if_absent(beside, place)
            self.sync_directory(place.parent)
        return given

    def quarantine_path(self) -> Path:
        """Return a name in the quarantine that nobody has."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return self._quarantine / f"{stamp}-{secrets.token_hex(6)}.dcm"

    def explain(
        self, path: Path, reason: str, origin: dict[str, str], size: int, sha256: str
    ) -> None:
        """Write the reason beside a quarantined file and make both entries durable."""
        record = {
            "reason": reason,
            "received_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "size": size,
            "sha256": sha256,
            "origin": origin,
        }
        write_durably(path.with_suffix(".json"), json.dumps(record, indent=2).encode())
        self.sync_directory(self._quarantine)

    def sweep_incoming(self) -> int:
        """Remove what a killed listener left in ``incoming/``; returns how many files went.

        Nothing in there was ever acknowledged. A file that is being received is locked by its
        process, and a lock ends with its process, so one of several listeners may start while the
        others receive.
        """
        removed = 0
        for path in self.incoming.glob("*.part"):
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
        return removed

    def walk(self) -> Iterator[Path]:
        """Yield the absolute paths of all stored instances, conflicts too, sorted."""
        for study in sorted(self.studies.iterdir()):
            for series in sorted(study.iterdir()):
                yield from sorted(series.glob("*.dcm"))

    def series_directory(self, study_instance_uid: str, series_instance_uid: str) -> str:
        """Return the series' folder, made durable with its parents if new. UIDs must be valid."""
        directory = f"{self.studies}/{study_instance_uid}/{series_instance_uid}"
        self._make_directory(directory)
        return directory

    def forget_directory(self, directory: str) -> None:
        """Forget that ``directory`` was made durable: someone removed it."""
        with self._guard:
            self._made.pop(directory, None)

    def _make_directory(self, name: str) -> None:
        """Make a folder and its parent, and return when both entries are durable.

        That a folder is there does not say that it is durable: another thread may be on its way to
        the fsync. So only what this process has synced itself is believed.
        """
        with self._guard:
            if name in self._made:
                return
        directory = Path(name)
        directory.parent.mkdir(exist_ok=True)
        directory.mkdir(exist_ok=True)
        self.sync_directory(directory.parent)
        self.sync_directory(directory.parent.parent)
        with self._guard:
            self._made[name] = None
            if len(self._made) > _REMEMBERED:
                self._made.pop(next(iter(self._made)))

    def _replace(self, path: Path, data: ByteSource) -> None:
        """Put a whole file in place of another at once; the directory's fsync is the caller's."""
        descriptor, temporary = open_temporary(self.incoming)
        try:
            write_all(descriptor, data)
            os.fdatasync(descriptor)
            os.replace(temporary, path)
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(temporary)
