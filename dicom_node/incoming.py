"""One object on its way into the archive: gathered, hashed, named, made durable, or given up."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from dicom_node.durable import (
    ByteSource,
    bypass_cache,
    fsync_file,
    full_disk_named,
    link_if_absent,
    open_temporary,
    use_cache,
    write_past_cache,
)
from dicom_node.errors import FinalError, StorageFullError
from dicom_node.part10 import file_meta, read_file_meta

if TYPE_CHECKING:
    from dicom_node.archive import Archive

Outcome = Literal["new", "same", "conflict"]

_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
# A long video is asked about the room on the disk again whenever this much of it has arrived.
_ROOM_CHECK: Final = 64 << 20


def valid_uid(text: str) -> bool:
    """Whether ``text`` may be used as a UID: digits and single dots, 64 characters (PS3.5 9.1).

    Leading zeros in a component are let through: they break PS3.5, are common, and harm nobody.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the archive.

    Attributes
    ----------
    path : str
        Relative to the archive's root, POSIX form.
    size : int
        Bytes of the data set (of the whole file for a result).
    sha256 : str
        Hexadecimal digest of the same bytes: the data set without preamble and file meta, the
        whole file for a result.
    outcome : {"new", "same", "conflict"}
        ``same``: the very bytes were there already; ``conflict``: other bytes had the UID, these
        are kept beside.
    """

    path: str
    size: int
    sha256: str
    outcome: Outcome


class Incoming:
    """One object on its way in: a temporary file that is filed, quarantined or removed.

    Use as a context manager; leaving it without :meth:`file` or :meth:`quarantine` removes the
    temporary file.

    Parameters
    ----------
    archive : Archive
        Where it goes.
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
        What the sender's command set and the presentation context say; for the file meta group.
    """

    def __init__(
        self,
        archive: Archive,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
    ) -> None:
        meta = file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        self._archive = archive
        self._transfer_syntax_uid = transfer_syntax_uid
        self._digest = hashlib.sha256()
        self._meta_size = len(meta)
        self._next_room_check = _ROOM_CHECK
        self.size = 0
        self._room = archive.lend_room()
        self._room[: len(meta)] = meta
        self._held = self._unhashed_from = len(meta)
        self._written = 0
        with full_disk_named(archive.root):
            self._descriptor, self.temporary = open_temporary(archive.incoming)
        # An fsync follows, so the system's cache would save no time on writing; see `durable`.
        self._is_direct = bypass_cache(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, data: ByteSource) -> None:
        """Append bytes of the data set.

        Raises
        ------
        StorageFullError
            If the disk is full, or a very large object has eaten the archive's reserve.
        """
        if self._descriptor < 0:
            raise ValueError("nothing can be added to an object that was filed or given up")
        held = self._held + len(data)
        if held <= len(self._room):
            self._room[self._held : held] = data
            self._held = held
        else:
            self._gather(memoryview(data))
        self.size += len(data)
        if self.size >= self._next_room_check:
            self._next_room_check += _ROOM_CHECK
            if not self._archive.has_room():
                raise StorageFullError(self._archive.no_room_sentence())

    def _gather(self, data: memoryview) -> None:
        """Take more than there is room for, writing whenever the room is full."""
        while data:
            count = min(len(data), len(self._room) - self._held)
            self._room[self._held : self._held + count] = data[:count]
            self._held += count
            data = data[count:]
            if self._held == len(self._room):
                self._flush()

    def _flush(self) -> None:
        """Write and hash what was gathered."""
        held, self._held = self._held, 0
        if held == 0:
            return
        begin, self._unhashed_from = self._unhashed_from, 0
        gathered = self._room[:held]
        try:
            with full_disk_named(self._archive.root):
                self._is_direct = write_past_cache(self._descriptor, gathered, self._is_direct)
        except BaseException:
            # A part may be written: what follows must not be taken for the whole.
            self.discard()
            raise
        self._written += held
        self._digest.update(gathered[begin:])

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes of the data set written so far, from ``offset`` on."""
        begin = self._meta_size + offset
        if self._written == 0:
            return bytes(self._room[begin : min(begin + count, self._held)])
        self._end_direct()
        return os.pread(self._descriptor, count, begin)

    def _end_direct(self) -> None:
        """Write what was gathered, and use the system's cache from now on.

        Reading past it would ask for aligned memory and offsets.
        """
        self._flush()
        if self._is_direct:
            use_cache(self._descriptor)
            self._is_direct = False

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the data set's bytes so far."""
        self._flush()
        return self._digest.hexdigest()

    def file(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> StoredFile:
        """Make the object durable under its UIDs; never replaces a file that is there.

        Raises
        ------
        FinalError
            If a UID cannot be one (it would become a path).
        StorageFullError
            If the disk is full.
        """
        for uid in (study_instance_uid, series_instance_uid, sop_instance_uid):
            if not valid_uid(uid):
                raise FinalError(
                    f"{uid[:80]!r} is not a UID (PS3.5 9.1: digits and dots, 64 at most)"
                )
        self._flush()
        archive = self._archive
        with full_disk_named(archive.root):
            series = archive.series_directory(study_instance_uid, series_instance_uid)
            try:
                name, outcome = self._place(series, sop_instance_uid)
            except FileNotFoundError:
                # Retention took the emptied folder away since it was made: make it again, once.
                archive.forget_directory(series)
                archive.series_directory(study_instance_uid, series_instance_uid)
                name, outcome = self._place(series, sop_instance_uid)
            # Named first, then synced: on a journaling file system one commit makes bytes and name
            # durable, where syncing the bytes before the name would cost two. A power cut between
            # may leave a torn file under its name; nobody was told that it is kept, and the
            # reconciliation at start reads each file that the catalog does not know, and sets aside
            # what is not whole.
            if outcome != "same":
                os.fsync(self._descriptor)
            # Also for "same": who linked the first copy may not have come to its fsync yet.
            if outcome == "same" or not archive.fsync_covers_names:
                if outcome == "same":
                    fsync_file(f"{series}/{name}")
                archive.sync_directory(Path(series))
        self.discard()
        path = f"studies/{study_instance_uid}/{series_instance_uid}/{name}"
        return StoredFile(path, self.size, self._digest.hexdigest(), outcome)

    def quarantine(self, reason: str, origin: dict[str, str]) -> Path:
        """Keep the object aside, with the reason, durable; returns the file's path."""
        self._flush()
        with full_disk_named(self._archive.root):
            os.fdatasync(self._descriptor)
            path = self._archive.quarantine_path()
            os.rename(self.temporary, path)
            self._archive.explain(path, reason, origin, self.size, self.sha256)
        self.discard()
        return path

    def hand_over(self, path: Path) -> None:
        """Put the object under a name outside the archive, whole or not at all.

        Not made durable: it is a copy of what its sender keeps.

        Raises
        ------
        OSError
            When that folder is gone, or cannot be written.
        """
        self._flush()
        # It may lie on another file system.
        beside = path.with_name(os.path.basename(self.temporary))
        with full_disk_named(path.parent):
            try:
                shutil.move(self.temporary, beside)
                os.replace(beside, path)
            finally:
                beside.unlink(missing_ok=True)
        self.discard()

    def discard(self) -> None:
        """Close and remove the temporary file; harmless when that is done already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            # The next object is gathered there: nothing may be written to it from here any more.
            room, self._room = self._room, memoryview(b"")
            self._held = 0
            self._archive.take_room_back(room)
            with suppress(FileNotFoundError):
                os.unlink(self.temporary)

    def _place(self, series: str, sop_instance_uid: str) -> tuple[str, Outcome]:
        """Give the file its name in the series' folder, if need be beside another of its UID."""
        name = f"{sop_instance_uid}.dcm"
        if link_if_absent(self.temporary, f"{series}/{name}"):
            return name, "new"
        if self._same_data_set(Path(series, name)):
            return name, "same"
        name = f"{sop_instance_uid}~{self.sha256[:16]}.dcm"
        is_new = link_if_absent(self.temporary, f"{series}/{name}")
        return name, "conflict" if is_new else "same"

    def _same_data_set(self, path: Path) -> bool:
        """Whether the file at ``path`` has this data set in this transfer syntax."""
        with path.open("rb") as there, suppress(FinalError):
            theirs = read_file_meta(there, path.name)
            return (
                theirs.transfer_syntax_uid == self._transfer_syntax_uid
                and os.fstat(there.fileno()).st_size - theirs.data_set_offset == self.size
                and hashlib.file_digest(there, "sha256").digest() == self._digest.digest()
            )
        return False
