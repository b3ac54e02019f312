"""Notices, heard by a real web server and a real mail server."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from db import jobs
from db.happenings import FOUND, has_happened, note_happening
from db.jobs import JobState
from db.models import FindingRecord
from db.notices import silent_channels
from db.session import Database
from deploy.demo_pacs import free_port
from dicom_node.services.tls import Tls, server_context
from tests.databases import *  # noqa: F403
from tests.factories.certificates import make_certificate
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
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
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
    port = free_port()
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
        note_happening(session, job_id, FOUND, node.now())


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
    assert box.subjects == ["UniBiomed Node: 2 jobs: 1 failed, 1 delivered"]
    (of_failed,) = box.mails
    assert of_failed["Auto-Submitted"] == "auto-generated" and of_failed["Message-ID"]
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
    found(node, job_id, 3, "fracture", "present")  # as a job that began anew
    clock.forward(61)
    assert send_notices(node) == 0
    assert box.subjects == [f"UniBiomed Node: job {job_id} critical"]
    assert "found: fracture\r\n" in box.mails[0].get_content()


def failing(node: Node, *studies: str) -> list[int]:
    """Make a failed job of each study."""
    made = [encoded_job(node, [], study=study) for study in studies]
    with node.database.session() as session:
        for job_id in made:
            jobs.finish(session, job_id, JobState.FAILED, "the PACS said no", now=node.now())
    return made


def test_a_storm_is_told_in_one_mail_a_minute(
    tmp_path: Path, sqlite_database: Database, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    clock = Clock()
    node = make_node(
        tmp_path, sqlite_database, clock, notices=[by_mail("night", port, ["failed", "critical"])]
    )
    failing(node, "1.2.3")
    assert send_notices(node) == 1
    for number in range(4, 64, 20):
        clock.forward(10)
        failing(node, *(f"1.2.{one}" for one in range(number, number + 20)))
        assert send_notices(node) == 0
    clock.forward(31)
    assert send_notices(node) == 60
    assert box.subjects[1] == "UniBiomed Node: 60 jobs: 60 failed"
    assert "And 10 more" in box.mails[1].get_content()
    clock.forward(61)
    assert send_notices(node) == 0


def test_what_happened_while_nobody_told_is_told_afterwards(
    tmp_path: Path, database: Database, hook: Hook, mailbox: tuple[Mailbox, int]
) -> None:
    """Each time that a job failed, and when; by mail in one, with what is critical first."""
    box, port = mailbox
    clock = Clock()
    channels = [
        {"name": "hook", "url": f"http://127.0.0.1:{hook.server_port}/x"},
        by_mail("night", port, ["failed", "critical"]),
    ]
    node = make_node(tmp_path, database, clock, notices=channels)
    rules = Rules.model_validate({"rules": [{"name": "default", "critical": "all"}]})
    node = node.with_configuration(replace(node.configuration, rules=rules))
    first, second = failing(node, "1.2.3", "1.2.4")
    for _ in range(3):
        clock.forward(3600)
        with database.session() as session:
            assert jobs.reopen(session, first, "again", now=clock()) is not None
            jobs.finish(session, first, JobState.FAILED, "the PACS said no", now=clock())
    found(node, second, 0, "fracture", "present")
    clock.forward(3600)
    told = send_notices(node)
    assert told == 5 + 6
    assert [len(hook.got), box.subjects] == [
        5, ["UniBiomed Node: 6 jobs: 1 critical, 5 failed"],
    ]  # fmt: skip
    text = box.mails[0].get_content()
    assert text.splitlines()[0] == "event: critical"
    at = [json.loads(body)["at"] for body, _ in hook.got if json.loads(body)["job"] == first]
    assert at[:2] == ["2026-03-01T08:00:00.000+00:00", "2026-03-01T09:00:00.000+00:00"]
    assert len(set(at)) == len(at) == 4
    clock.forward(3600)
    assert send_notices(node) == 0


def test_a_new_channel_hears_what_happens_from_now_on(
    tmp_path: Path, sqlite_database: Database, hook: Hook
) -> None:
    clock = Clock()
    silent = make_node(tmp_path, sqlite_database, clock)
    failing(silent, "1.2.3")
    assert send_notices(silent) == 0
    with sqlite_database.reading() as session:
        assert not has_happened(session)
    entry = {"name": "hook", "url": f"http://127.0.0.1:{hook.server_port}/x"}
    node = make_node(tmp_path, sqlite_database, clock, notices=[entry])
    assert send_notices(node) == 0
    (job,) = failing(node, "1.2.4")
    assert send_notices(node) == 1
    assert json.loads(hook.got[0][0])["job"] == job


def test_an_address_that_does_not_take_them_is_asked_once_a_round(
    tmp_path: Path, sqlite_database: Database, hook: Hook, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    clock = Clock()
    channels = [
        {"name": "hook", "url": f"http://127.0.0.1:{hook.server_port}/x"},
        by_mail("night", port, ["failed"]),
    ]
    node = make_node(tmp_path, sqlite_database, clock, notices=channels)
    failing(node, *(f"1.2.{number}" for number in range(3, 13)))
    hook.status = 503
    assert send_notices(node) == 10  # by mail: one way that fails holds up no other
    assert len(hook.got) == 1
    with sqlite_database.reading() as session:
        (silence,) = silent_channels(session, ["hook", "night"])
    assert (silence.channel, silence.waiting) == ("hook", 10)
    assert "503" in silence.sentence
    hook.status = 204
    clock.forward(21)
    assert send_notices(node) == 10
    assert len({json.loads(body)["job"] for body, _ in hook.got}) == 10
    assert len(box.mails) == 1


def test_two_senders_at_once_tell_it_once(tmp_path: Path, database: Database, hook: Hook) -> None:
    clock = Clock()
    channel = {"name": "hook", "url": f"http://127.0.0.1:{hook.server_port}/x"}
    node = make_node(tmp_path, database, clock, notices=[channel])
    failing(node, *(f"1.2.{number}" for number in range(3, 13)))
    start = threading.Barrier(2)

    def send(_: int) -> int:
        start.wait()
        return send_notices(node)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(send, range(2)))
    send_notices(node)
    told = [json.loads(body)["job"] for body, _ in hook.got]
    assert len(told) == len(set(told)) == 10


def test_what_was_to_go_by_a_channel_that_is_gone_is_given_up(
    tmp_path: Path, sqlite_database: Database, hook: Hook
) -> None:
    clock = Clock()
    entry = {"name": "hook", "url": f"http://127.0.0.1:{hook.server_port}/x"}
    node = make_node(tmp_path, sqlite_database, clock, notices=[entry])
    failing(node, "1.2.3")
    hook.status = 500
    send_notices(node)
    other = make_node(tmp_path, sqlite_database, clock, notices=[{**entry, "name": "other"}])
    hook.status = 204
    clock.forward(60)
    assert send_notices(other) == 0
    failing(other, "1.2.4")
    assert send_notices(other) == 1
    clock.forward(60)
    assert send_notices(node) == 0


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_server_must_be_who_it_says(
    tmp_path: Path, sqlite_database: Database, security: str
) -> None:
    own, other = make_certificate(tmp_path, "mail"), make_certificate(tmp_path, "other")
    context = server_context(Tls(own.path, own.key_path), mutual=False)
    box = Mailbox()
    port = free_port()
    options: dict[str, Any] = (
        {"ssl_context": context} if security == "tls" else {"tls_context": context}
    )
    server = Controller(box, hostname="127.0.0.1", port=port, **options)
    server.start()
    clock = Clock()
    try:
        for certificate, sent in ((None, 0), (other.path, 0), (own.path, 1)):
            entry = by_mail("night", port, ["failed"])
            entry["mail"] |= {"security": security, "certificate": certificate and str(certificate)}
            node = make_node(tmp_path, sqlite_database, clock, notices=[entry])
            if certificate is None:
                failing(node, "1.2.3")
            assert send_notices(node) == sent
            clock.forward(60)
    finally:
        server.stop()
    assert len(box.mails) == 1
