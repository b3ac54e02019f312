"""The archive: durable, never overwriting, closed to hostile names."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node import durable
from dicom_node.archive import Archive
from dicom_node.errors import FinalError, StorageFullError
from dicom_node.incoming import StoredFile, valid_uid
from dicom_node.part10 import file_meta, read_file_meta

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive", reserve_bytes=0)


def store(archive: Archive, data: bytes, uid: str = "1.2.3", syntax: str = EXPLICIT) -> StoredFile:
    with archive.receive(CT, uid, syntax) as incoming:
        for start in range(0, len(data), 7):
            incoming.write(data[start : start + 7])
        return incoming.file("1.1", "1.1.1", uid)


def test_a_new_instance_is_kept_as_it_came(archive: Archive) -> None:
    data = os.urandom(100)
    stored = store(archive, data)
    assert stored == StoredFile(
        "studies/1.1/1.1.1/1.2.3.dcm", 100, hashlib.sha256(data).hexdigest(), "new"
    )
    path = archive.absolute(stored.path)
    with path.open("rb") as file:
        meta = read_file_meta(file, path)
        assert file.read() == data
    assert meta[:3] == (CT, "1.2.3", EXPLICIT)
    assert list(archive.walk()) == [path]
    assert not list(archive.incoming.iterdir())


def test_the_same_bytes_again_change_nothing(archive: Archive) -> None:
    first = store(archive, b"data")
    path = archive.absolute(first.path)
    before = path.stat()
    assert store(archive, b"data").outcome == "same"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert list(archive.walk()) == [path]


@pytest.mark.parametrize(("data", "syntax"), [(b"DATA", EXPLICIT), (b"data", IMPLICIT)])
def test_other_bytes_under_a_uid_are_kept_beside(
    archive: Archive, data: bytes, syntax: str
) -> None:
    first = store(archive, b"data")
    other = store(archive, data, syntax=syntax)
    assert other.outcome == "conflict"
    assert other.path != first.path
    assert archive.absolute(first.path).read_bytes().endswith(b"data")
    assert archive.absolute(other.path).read_bytes().endswith(data)
    assert store(archive, b"data").outcome == "same"


def test_what_is_not_filed_leaves_nothing(archive: Archive) -> None:
    with archive.receive(CT, "1.2.3", EXPLICIT) as incoming:
        incoming.write(b"half of an inst")
    assert not list(archive.incoming.iterdir())
    assert not list(archive.walk())


@pytest.mark.parametrize("uid", ["", "..", ".", "1..2", "1.2.", "1/2", "1.2\n", "1" * 65, "1.x"])
def test_hostile_uids_are_no_paths(archive: Archive, uid: str) -> None:
    assert not valid_uid(uid)
    with archive.receive(CT, uid, EXPLICIT) as incoming, pytest.raises(FinalError, match="UID"):
        incoming.file("1.1", "1.1.1", uid)
    assert not list(archive.walk())


@given(st.text(max_size=70))
def test_a_valid_uid_is_one_path_component(text: str) -> None:
    if valid_uid(text):
        assert Path(text).name == text
        assert text.isascii()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "studies/../../x", "", "."])
def test_absolute_stays_inside(archive: Archive, path: str) -> None:
    with pytest.raises(FinalError, match="not a path inside"):
        archive.absolute(path)


def test_under_the_watermark_nothing_is_taken(tmp_path: Path) -> None:
    archive = Archive(tmp_path, reserve_bytes=1 << 60)
    assert not archive.has_room()
    with pytest.raises(StorageFullError, match=r"storage\.reserve"):
        archive.receive(CT, "1.2.3", EXPLICIT)
    assert not list(archive.incoming.iterdir())


def test_a_disk_that_fills_up_is_named_and_nothing_stays(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with archive.receive(CT, "1.2.3", EXPLICIT) as incoming:
        incoming.write(b"some")
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StorageFullError, match="full"):
            incoming.file("1.2", "1.2.1", "1.2.3")
        with pytest.raises(OSError):
            incoming.file("1.2", "1.2.1", "1.2.3")
    monkeypatch.undo()
    with archive.receive(CT, "1.2.4", EXPLICIT) as incoming:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StorageFullError, match="full"):
            incoming.write(bytes(2 << 20))
    assert not list(archive.incoming.iterdir())
    assert not list(archive.studies.rglob("*.dcm"))


def test_an_object_that_was_given_up_writes_into_no_other(archive: Archive) -> None:
    given_up = archive.receive(CT, "1.2.4", EXPLICIT)
    given_up.write(b"old")
    given_up.discard()
    with archive.receive(CT, "1.2.3", EXPLICIT) as incoming:
        incoming.write(b"new bytes")
        with pytest.raises(ValueError, match="given up"):
            given_up.write(b"X")
        stored = incoming.file("1.2", "1.2.1", "1.2.3")
    assert archive.absolute(stored.path).read_bytes().endswith(b"new bytes")


Refusing = Literal["nothing", "the flag", "each write"]


def refuse_direct_writes(patch: pytest.MonkeyPatch, refusing: Refusing) -> None:
    """Play a file system that cannot write past the cache, or not at our alignment."""
    control, write = fcntl.fcntl, os.write

    def refuse_flag(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return control(descriptor, command, flags)

    def refuse_write(descriptor: int, data: bytes) -> int:
        if control(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(descriptor, data)

    if refusing == "the flag":
        patch.setattr(fcntl, "fcntl", refuse_flag)
    elif refusing == "each write":
        patch.setattr(os, "write", refuse_write)


@given(
    st.lists(st.one_of(st.integers(0, 40), st.integers(0, 9000)), max_size=12),
    st.sampled_from(get_args(Refusing)),
)
def test_fragments_of_any_size_become_the_same_file(sizes: list[int], refusing: Refusing) -> None:
    data = random.Random(1).randbytes(50_000)
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr("dicom_node.archive._GATHER", 4096)
        refuse_direct_writes(patch, refusing)
        archive = Archive(Path(folder), reserve_bytes=0)
        rest = data
        # The second object gets the memory that the first one left full.
        with archive.receive(CT, "1.2.9", EXPLICIT) as other:
            other.write(b"\xff" * 4096)
        with archive.receive(CT, "1.2.3", EXPLICIT) as incoming:
            for number, size in enumerate(sizes):
                incoming.write(memoryview(rest)[:size])
                rest = rest[size:]
                # Looking ends the way past the cache, and is not done between all writes.
                if number % 5 == 4:
                    assert incoming.read(0, 8) == data[: min(8, len(data) - len(rest))]
            incoming.write(rest)
            assert incoming.read(40_001, 5000) == data[40_001:45_001]
            stored = incoming.file("1.2", "1.2.1", "1.2.3")
        content = archive.absolute(stored.path).read_bytes()
    assert content.endswith(data)
    assert (stored.size, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_sizes_about_a_block_come_back(archive: Archive, size: int) -> None:
    data = random.Random(size).randbytes(size)
    meta = file_meta(CT, "1.2.3", EXPLICIT)
    with archive.receive(CT, "1.2.3", EXPLICIT) as incoming:
        incoming.write(data[: -len(meta)] if size > len(meta) else data)
        incoming.write(data[-len(meta) :] if size > len(meta) else b"")
        stored = incoming.file("1.2", "1.2.1", "1.2.3")
    assert archive.absolute(stored.path).read_bytes() == meta + data
    assert stored.sha256 == hashlib.sha256(data).hexdigest()


def test_a_folder_that_retention_took_away_is_made_again(archive: Archive) -> None:
    first = store(archive, b"data")
    path = archive.absolute(first.path)
    path.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()
    assert store(archive, b"data").outcome == "new"


def test_quarantine_keeps_the_bytes_and_the_reason(archive: Archive) -> None:
    path = archive.quarantine(b"junk", "no data set", {"calling_ae_title": "CT1"})
    assert path.read_bytes() == b"junk"
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["reason"] == "no data set"
    assert record["origin"] == {"calling_ae_title": "CT1"}
    assert record["sha256"] == hashlib.sha256(b"junk").hexdigest()
    with archive.receive(CT, "1.2.3", EXPLICIT) as incoming:
        incoming.write(b"other junk")
        kept = archive.quarantine(incoming, "cut off", {})
    assert kept.read_bytes().endswith(b"other junk")
    assert not list(archive.incoming.iterdir())


def test_results_are_replaced_whole(archive: Archive) -> None:
    first = archive.write_result(7, "seg.dcm", b"one")
    assert first.path == "results/7/seg.dcm"
    assert archive.write_result(7, "seg.dcm", b"one").outcome == "same"
    second = archive.write_result(7, "seg.dcm", b"two")
    assert second.sha256 == hashlib.sha256(archive.absolute(second.path).read_bytes()).hexdigest()
    with pytest.raises(FinalError, match="name of a result"):
        archive.write_result(7, "../x", b"")
    assert not list(archive.incoming.iterdir())


def test_sweep_takes_what_a_killed_listener_left_and_nothing_else(archive: Archive) -> None:
    (archive.incoming / "left.part").write_bytes(b"half")
    with archive.receive(CT, "1.2.3", EXPLICIT) as incoming:
        incoming.write(b"whole")
        assert archive.sweep_incoming() == 1
        assert incoming.file("1.1", "1.1.1", "1.2.3").outcome == "new"
    assert archive.sweep_incoming() == 0


def test_many_threads_with_one_uid_keep_one_file_for_each_content(archive: Archive) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def run(number: int) -> None:
        start.wait()
        outcomes.append(store(archive, b"ab"[number % 2 : number % 2 + 1] * 50).outcome)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict", "new", *["same"] * 6]
    assert len(list(archive.walk())) == 2


def test_directory_sync_shares_an_fsync_among_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    first_runs, go = threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        calls.append(directory)
        first_runs.set()
        go.wait(10)

    monkeypatch.setattr(durable, "fsync_directory", slow)
    sync = durable.DirectorySync()
    threads = [threading.Thread(target=sync, args=(tmp_path,)) for _ in range(6)]
    threads[0].start()
    assert first_runs.wait(10)
    for thread in threads[1:]:
        thread.start()
    while sync._waits[tmp_path].threads < 6:
        threading.Event().wait(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    # One that was under way, and one for the five that came meanwhile.
    assert len(calls) == 2
    assert not sync._waits


def test_file_meta_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(file_meta(CT, "1.2.3", IMPLICIT) + b"data")
    with path.open("rb") as file:
        assert read_file_meta(file, path)[:3] == (CT, "1.2.3", IMPLICIT)
        assert file.read() == b"data"
    path.write_bytes(b"x" * 200)
    with path.open("rb") as file, pytest.raises(FinalError, match="not a DICOM file"):
        read_file_meta(file, path)
