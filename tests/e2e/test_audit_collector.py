"""The audit trail at rsyslog, by TLS: also over a night in which rsyslog is away."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from db.audit import record
from db.session import Database
from tests.databases import *  # noqa: F403
from tests.factories.certificates import Certificate, make_certificate
from tests.workflows.nodes import Clock, make_node
from tests.workflows.test_workers import wait_for
from workflows.audit_sending import send_audit
from workflows.node import Node

pytestmark = pytest.mark.e2e

CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
       defaultNetstreamDriverCAFile="{authority}" defaultNetstreamDriverCertFile="{certificate}"
       defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1"
       streamDriver.authMode="x509/certvalid")
template(name="all" type="string" string="%pri% %app-name% %msgid% %msg%\\n")
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{folder}/port")
action(type="omfile" file="{folder}/messages" template="all")
"""


@contextmanager
def rsyslog(folder: Path, server: Certificate, authority: Certificate) -> Iterator[int]:
    """Run rsyslogd; gives its port."""
    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
    gnutls = list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so"))
    if program is None or not gnutls:
        pytest.skip("rsyslog with its module for TLS is not installed (Debian: rsyslog-gnutls)")
    configuration = folder / "rsyslog.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder, authority=authority.path, certificate=server.path, key=server.key_path
        )
    )
    (folder / "port").unlink(missing_ok=True)
    process = subprocess.Popen(
        [program, "-n", "-f", str(configuration), "-i", str(folder / "pid")],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for("rsyslog", lambda: has_text(folder / "port"))
        yield int((folder / "port").read_text())
    finally:
        process.terminate()
        process.wait(60)


def has_text(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def act(node: Node, first: int, last: int) -> None:
    with node.database.session() as session:
        for number in range(first, last):
            record(
                session, at=node.now(), account="Müller", action="job.view", target=f"n {number}"
            )


def targets(folder: Path) -> list[str]:
    """Return what the collector wrote: the digests come with it."""
    lines = (folder / "messages").read_text(encoding="utf-8").splitlines()
    found = []
    for line in lines:
        priority, application, kind, text = line.split(" ", 3)
        assert (priority, application, kind) == ("85", "UNIBIOMED", "DICOM+RFC3881")
        message = ElementTree.fromstring(text.strip().removeprefix("\ufeff"))
        participant = message.find("ActiveParticipant")
        assert participant is not None
        assert participant.attrib["UserID"] == "Müller"
        digest = [
            base64.b64decode(one.attrib["value"])
            for one in message.iter("ParticipantObjectDetail")
            if one.attrib["type"] == "digest"
        ]
        assert len(digest[0]) == 64
        found.append(message.findall("ParticipantObjectIdentification")[-1].attrib)
    return [one["ParticipantObjectID"] for one in found]


def test_rsyslog_has_the_whole_trail(tmp_path: Path, sqlite_database: Database) -> None:
    authority = make_certificate(tmp_path, "authority")
    server = make_certificate(tmp_path, "collector", by=authority)
    ours = make_certificate(tmp_path, "node", by=authority)
    clock = Clock()

    def node_for(port: int) -> Node:
        return make_node(
            tmp_path, sqlite_database, clock,
            tls={"certificate": str(ours.path), "key": str(ours.key_path),
                 "authorities": str(authority.path)},
            audit=[{"name": "repository", "host": "127.0.0.1", "port": port}],
        )  # fmt: skip

    with rsyslog(tmp_path, server, authority) as port:
        node = node_for(port)
        act(node, 0, 700)
        assert send_audit(node) == 700
    act(node, 700, 900)
    assert send_audit(node) == 0
    clock.forward(10)
    with rsyslog(tmp_path, server, authority) as port:
        assert send_audit(node_for(port)) == 200
    # rsyslog has ended in order, so that its file is whole.
    assert targets(tmp_path) == [f"n {number}" for number in range(900)]
