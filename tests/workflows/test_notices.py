from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from db import jobs
from db.jobs import JobState
from db.session import Database
from tests.databases import *  # noqa: F403
from tests.workflows.nodes import Clock, encoded_job, make_node
from workflows.notices import send_notices


class Hook(ThreadingHTTPServer):
    """Takes notices; answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 204
        self.got: list[tuple[bytes, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((body, self.headers["X-UniBiomed-Signature"] or ""))
        self.send_response(self.server.status)
        self.end_headers()


@pytest.fixture
def hook() -> Iterator[Hook]:
    running = Hook()
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_failure_is_told_once_signed_and_again_until_it_is_taken(
    tmp_path: Path, sqlite_database: Database, hook: Hook
) -> None:
    clock = Clock()
    channel = {"name": "hook", "url": f"http://127.0.0.1:{hook.server_port}/x", "secret": "s"}
    node = make_node(tmp_path, sqlite_database, clock, notices=[channel])
    job_id = encoded_job(node, [])
    with node.database.session() as session:
        jobs.finish(session, job_id, JobState.FAILED, "the PACS said no", now=clock())
    hook.status = 500
    assert send_notices(node) == 0
    assert send_notices(node) == 0  # it rests
    assert len(hook.got) == 1
    hook.status = 204
    clock.forward(21)
    assert send_notices(node) == 1
    clock.forward(3000)
    assert send_notices(node) == 0
    body, signature = hook.got[-1]
    assert signature == "sha256=" + hmac.new(b"s", body, hashlib.sha256).hexdigest()
    told = json.loads(body)
    assert (told["event"], told["job"], told["sentence"]) == ("failed", job_id, "the PACS said no")
    assert "P1" not in body.decode()  # the Patient ID
