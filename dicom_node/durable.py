"""Writing that survives a power cut: fsync of files and directories, and what a full disk means."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicom_node.errors import StorageFullError

ByteSource = bytes | bytearray | memoryview

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
# Where a system has no such flag, everything goes through its cache.
_O_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)
# What file systems ask for at most: their own block, and a page of memory.
_BLOCK: Final = 4096
_JOURNALED: Final = frozenset({"ext4", "xfs", "btrfs"})


class DirectorySync:
    """Makes directory entries durable, with one fsync for all threads that wait for it.

    An entry is durable once an fsync of its directory that *began after it was made* has ended, so
    a thread that arrives while one is under way needs the next, and shares that with all others
    that arrive meanwhile.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waits: dict[Path, _DirectoryWait] = {}

    def __call__(self, directory: Path) -> None:
        """Return when all entries made in ``directory`` before the call are durable."""
        with self._guard:
            wait = self._waits.setdefault(directory, _DirectoryWait())
            wait.threads += 1
            needed = wait.begun + 1
        try:
            with wait.turn:
                if wait.ended >= needed:
                    return
                with self._guard:
                    wait.begun += 1
                    this = wait.begun
                fsync_directory(directory)
                wait.ended = this
        finally:
            with self._guard:
                wait.threads -= 1
                if wait.threads == 0:
                    self._waits.pop(directory, None)


class _DirectoryWait:
    """The fsyncs of one directory: how many began, which ended last, and who waits."""

    __slots__ = ("begun", "ended", "threads", "turn")

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.begun = 0
        self.ended = 0
        self.threads = 0


def fsync_covers_names(directory: Path) -> bool:
    """Whether an fsync of a file here also makes its names durable.

    POSIX does not promise it, so elsewhere the directory is synced, too. On these file systems the
    name goes into the same journal (or log tree) as the file's size, and the fsync commits both.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].encode().decode("unicode_escape")
        if directory.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind in _JOURNALED


def fsync_file(path: str) -> None:
    """Make the content of a file durable that someone else wrote."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(directory: Path) -> None:
    """Make the entries of ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def full_disk_named(where: Path) -> Iterator[None]:
    """Turn the system's "no space left" into the error that senders are answered A700 for."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(
                f"The disk that holds {where} is full ({error.strerror}). Free space on it."
            ) from error
        raise


def open_temporary(directory: Path) -> tuple[int, str]:
    """Open a new file that ``Archive.sweep_incoming`` leaves alone as long as it is open."""
    while True:
        path = f"{directory}/{secrets.token_hex(10)}.part"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, path
        os.close(descriptor)  # a sweep came between open and lock


def bypass_cache(descriptor: int) -> bool:
    """Let a file be read and written past the system's cache; False where that cannot be.

    For what is synced anyway, so that the cache would save no time on writing. On a machine that
    has filled its memory with files it costs time: each new page must first be taken from an old
    file, which takes several times as long as the disk (``docs/benchmarks/receive.md``).
    """
    if not _O_DIRECT:
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def use_cache(descriptor: int) -> None:
    """Undo :func:`bypass_cache`."""
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~_O_DIRECT)


def write_past_cache(descriptor: int, data: memoryview, is_direct: bool) -> bool:
    """Append page-aligned memory to a file, its whole blocks past the system's cache.

    Parameters
    ----------
    descriptor : int
        Of a file whose size is a multiple of 4096 bytes as long as ``is_direct``.
    data : memoryview
        What to write; begins at a page's begin.
    is_direct : bool
        Whether the descriptor still goes past the cache.

    Returns
    -------
    bool
        Whether it does so after this: not any more once the size is no multiple of 4096 bytes, or
        the file system wants another alignment.
    """
    if not is_direct:
        write_all(descriptor, data)
        return False
    whole = len(data) - len(data) % _BLOCK
    written = 0
    try:
        while written < whole and written % _BLOCK == 0:
            written += os.write(descriptor, data[written:whole])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    if written == len(data):
        return True
    use_cache(descriptor)
    write_all(descriptor, data[written:])
    return False


def link_if_absent(source: str | Path, target: str | Path) -> bool:
    """Give a file the name ``target`` unless that is taken; whether it was given.

    The name ``source`` stays, but on a file system without hard links, where the file is renamed.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No atomic "only if absent" here, so look first.
        if os.path.exists(target):
            return False
        os.rename(source, target)
    return True


def write_all(descriptor: int, data: ByteSource) -> None:
    """Write all of ``data``: the system may take less at once."""
    written = os.write(descriptor, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def write_durably(path: Path, data: ByteSource) -> None:
    """Make a new file whose content is durable on return; its directory entry is the caller's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
