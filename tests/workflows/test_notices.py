"""Notices, heard by a real web server and a real mail server."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from db import jobs
from db.jobs import JobState
from db.models import FindingRecord
from db.session import Database
from tests.databases import *  # noqa: F403
from tests.workflows.nodes import Clock, encoded_job, make_node
from workflows.node import Node
from workflows.notices import send_notices
from workflows.rules import Rules


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


class Mailbox:
    """Takes mail; `refuses` what is said instead of taking it."""

    def __init__(self) -> None:
        self.refuses = ""
        self.mails: list[EmailMessage] = []

    async def handle_DATA(  # noqa: N802 - the name that aiosmtpd calls
        self, server: object, session: object, envelope: Any
    ) -> str:
        if self.refuses:
            return self.refuses
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    yield box, port
    server.stop()


def by_mail(name: str, port: int, about: list[str]) -> dict[str, Any]:
    mail = {"host": "127.0.0.1", "port": port, "security": "none",
            "sender": "node@example.org", "to": ["pacs@example.org"]}  # fmt: skip
    return {"name": name, "about": about, "mail": mail}


def found(node: Node, job_id: int, position: int, target: str, presence: str) -> None:
    with node.database.session() as session:
        session.add(
            FindingRecord(job_id=job_id, position=position, target=target, text=f"{target}.",
                          presence=presence, confidence=0.9)
        )  # fmt: skip


def test_failure_and_delivery_come_by_mail_and_again_until_they_are_taken(
    tmp_path: Path, sqlite_database: Database, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    clock = Clock()
    channels = [by_mail("night shift", port, ["failed", "delivered"])]
    node = make_node(tmp_path, sqlite_database, clock, notices=channels)
    failed, delivered = encoded_job(node, []), encoded_job(node, [], study="1.2.4")
    with node.database.session() as session:
        jobs.finish(session, failed, JobState.FAILED, "the PACS said no", now=clock())
        jobs.finish(session, delivered, JobState.DELIVERED, "", now=clock())
    box.refuses = "451 the disk is full"
    assert send_notices(node) == 0
    box.refuses = ""
    clock.forward(21)
    assert send_notices(node) == 2
    assert sorted(box.subjects) == [
        f"UniBiomed Node: job {failed} failed", f"UniBiomed Node: job {delivered} delivered"
    ]  # fmt: skip
    (of_failed,) = (mail for mail in box.mails if "failed" in str(mail["Subject"]))
    assert of_failed["To"] == "pacs@example.org"
    text = of_failed.get_content()
    assert "the PACS said no" in text and f"/jobs/{failed}" in text
    assert "P1" not in text  # the Patient ID


def test_what_a_rule_calls_critical_is_told_before_the_pacs_has_it(
    tmp_path: Path, sqlite_database: Database, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    clock = Clock()
    channels = [by_mail("surgeon", port, ["critical"]), by_mail("other", port, ["failed"])]
    node = make_node(tmp_path, sqlite_database, clock, notices=channels)
    rules = [{"name": "default", "critical": ["Haemorrhage", "fracture"]}, {"name": "other"}]
    configuration = replace(node.configuration, rules=Rules.model_validate({"rules": rules}))
    node = node.with_configuration(configuration)
    job_id = encoded_job(node, ["pacs"])  # it rests in delivering
    found(node, job_id, 0, "haemorrhage", "absent")
    found(node, job_id, 1, "liver", "present")
    assert send_notices(node) == 0
    found(node, job_id, 2, "fracture", "present")
    assert send_notices(node) == 1
    assert send_notices(node) == 0
    assert box.subjects == [f"UniBiomed Node: job {job_id} critical"]
    assert "found: fracture\r\n" in box.mails[0].get_content()
