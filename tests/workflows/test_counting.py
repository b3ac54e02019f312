"""Whatever is refused at the doors: a status, one line in the log, and a count in ``/metrics``."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from pydicom import dcmread
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from starlette.testclient import TestClient

from dashboard.app import create_app
from db.accounts import add_user
from db.models_access import Role
from db.tokens import add_token
from dicom_node.counters import COUNTERS, OBJECTS_SENT, UNKNOWN_REPORTS
from dicom_node.errors import DicomNodeError
from dicom_node.services import commitment
from dicom_node.services.association import Destination
from dicom_node.services.dialling import dial
from dicom_node.services.storage_scu import verify
from dicom_node.services.tls import Tls
from tests.dicom_node.services.conftest import PATIENT, run_dcmtk
from tests.factories import write_ct_series
from tests.factories.certificates import make_certificate
from tests.workflows.test_workers import ROOT, wait_for
from tests.workflows.whole_node import ct_volume, make_node
from workflows.counting import Counting
from workflows.node import Node

TOKEN = "a-token-for-the-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CT = "1.2.840.10008.5.1.4.1.1.2"
STOW = {**BEARER, "Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
Counts = dict[str, float]


@dataclass
class Doors:
    """A listener and a DICOMweb server, each a process, and a dashboard that tells the counts."""

    node: Node
    folder: Path
    listener: dict[str, int]
    url: str
    scraper: TestClient

    def counts(self) -> Counts:
        """Return the counters of ``/metrics`` that are not 0, as Prometheus writes them."""
        text = self.scraper.get("/metrics").text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if family.type == "counter" and family.name in NAMES and sample.value:
                    labels = ",".join(
                        f"{key}={sample.labels[key]}" for key in sorted(sample.labels)
                    )
                    found[f"{family.name.removeprefix('unibiomed_')} {labels}".strip()] = (
                        sample.value
                    )
        return found

    def lines(self) -> list[str]:
        """Return the warnings in both logs."""
        text = "".join((self.folder / f"{name}.log").read_text() for name in ("listener", "web"))
        assert "Phantom" not in text and "Traceback" not in text, text
        return [line for line in text.splitlines() if re.search(r" (WARNING|ERROR) ", line)]

    def at(self, *, tls: Tls | None = None, called: str = "UNIBIOMED") -> Destination:
        port = self.listener["port" if tls is None else "tls_port"]
        return Destination("node", called, "127.0.0.1", port, timeouts=PATIENT, tls=tls)

    def tls(self, who: str) -> Tls:
        folder = self.folder / "home" / "tls"
        return Tls(folder / f"{who}.pem", folder / f"{who}.key", authorities=folder / "ca.pem")

    def web(self, who: str = "") -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.folder / "home/tls/ca.pem"))
        if who:
            folder = self.folder / "home" / "tls"
            context.load_cert_chain(folder / f"{who}.pem", folder / f"{who}.key")
        return httpx.Client(base_url=self.url, verify=context, timeout=30)


NAMES = {family.name for family in COUNTERS.collect()}


@contextmanager
def process_of(node: Node, module: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=os.environ | {"UNIBIOMED_HOME": str(node.home.root)},
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    certificates = folder / "home" / "tls"
    authority = make_certificate(certificates, "ca")
    for name in ("node", "scanner", "pinned"):
        make_certificate(certificates, name, by=authority)
    make_certificate(certificates, "expired", by=authority, days=-1)
    make_certificate(certificates, "foreign", by=make_certificate(certificates, "other-ca"))
    node = make_node(
        folder / "home",
        node={"host": "127.0.0.1", "port": 0},
        tls={
            "port": 0,
            "certificate": "tls/node.pem",
            "key": "tls/node.key",
            "authorities": "tls/ca.pem",
        },
        peers=[
            {
                "name": "scanner",
                "ae_title": "SCANNER",
                "allow": ["echo", "store", "query", "retrieve", "commit"],
            },
            {"name": "away", "ae_title": "AWAY", "host": "10.1.0.0/16"},
            {"name": "secure", "ae_title": "SECURE", "requires_tls": True},
            {"name": "pinned", "ae_title": "PINNED", "certificate": "tls/pinned.pem"},
            {"name": "single", "ae_title": "SINGLE", "max_associations": 1},
        ],
        dicomweb={
            "port": 0,
            "tls": True,
            "longest_body": "1 MiB",
            "users": [
                {"name": "all", "allow": ["query", "store"], "token": TOKEN},
            ],
        },
    )
    home = node.home
    with ExitStack() as stack:
        stack.callback(node.database.dispose)
        listener = (home.listener_json, folder / "listener.log", "workflows.listener")
        web = (home.dicomweb_json, folder / "web.log", "workflows.dicomweb")
        for _, log, module in (listener, web):
            stack.enter_context(process_of(node, module, log))
        for ready, _, _ in (listener, web):
            wait_for(ready.name, ready.exists)
        with node.database.session() as session:
            user = add_user(session, "prometheus", Role.VIEWER, node.now())
            secret = add_token(session, user.id, "test", Role.VIEWER, node.now(), 1).secret
        scraper = TestClient(create_app(node), headers={"Authorization": f"Bearer {secret}"})
        yield Doors(
            node,
            folder,
            json.loads(home.listener_json.read_text()),
            json.loads(home.dicomweb_json.read_text())["url"],
            scraper,
        )


def echo(doors: Doors, calling: str, **how: object) -> None:
    assert not verify(doors.at(**how), calling).ok  # type: ignore[arg-type]


def two_at_once(doors: Doors) -> None:
    contexts = [build_context("1.2.840.10008.1.1")]
    with dial(doors.at(), contexts, calling_ae_title="SINGLE"):
        echo(doors, "SINGLE")


def raw(doors: Doors, data: bytes, *, web: bool = False) -> None:
    """Send bytes, and wait until the other side answers or hangs up."""
    port = int(doors.url.rpartition(":")[2]) if web else doors.listener["port"]
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(data)
        with suppress(ConnectionResetError):
            connection.recv(1000)


def by_dcmtk(doors: Doors, program: str, *arguments: object, calling: str = "SCANNER") -> None:
    ours = ("-aet", calling, "-aec", "UNIBIOMED", *arguments)
    run_dcmtk(program, *ours, "127.0.0.1", doors.listener["port"])


def find_at_no_level(doors: Doors) -> None:
    by_dcmtk(doors, "findscu", "-S", "-k", "QueryRetrieveLevel=NOWHERE", "-k", "PatientID")


def find_without_leave(doors: Doors) -> None:
    """Twice: it is counted each time, and told once."""
    before = len(doors.lines())
    for _ in range(2):
        by_dcmtk(doors, "findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", calling="SINGLE")
    [line] = doors.lines()[before:]
    assert "add query to allow of the peer single" in line


def move_to_nobody(doors: Doors) -> None:
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3")
    by_dcmtk(doors, "movescu", "-S", "-aem", "NOBODY", *keys)


def store(doors: Doors, *, without: str = "", called: str = "") -> None:
    """Send an image whose data set lacks something, or whose command set calls it otherwise."""
    [path, *_] = write_ct_series(doors.folder / "ct", ct_volume())
    image = dcmread(path)
    if without:
        del image[without]
    with dial(doors.at(), [build_context(CT, image.file_meta.TransferSyntaxUID)],
              calling_ae_title="SCANNER") as association:  # fmt: skip
        context = association.accepted_contexts[0].context_id
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = CT
        request.AffectedSOPInstanceUID = called or image.SOPInstanceUID
        request.DataSet = BytesIO(encode(image, False, True) or b"")
        association.dimse.send_msg(request, context or 0)
        _, answer = association.dimse.get_msg(True)
    assert isinstance(answer, C_STORE) and answer.Status in (0xA900, 0xC000)


def report_on_nothing(doors: Doors) -> None:
    report = commitment.Report("1.2.3.4", (commitment.Reference(CT, "1.2.3.5"),))
    with pytest.raises(DicomNodeError):
        commitment.report(doors.at(), "SCANNER", report)


def ask_commitment_of_nothing(doors: Doors) -> None:
    with pytest.raises(DicomNodeError):
        commitment.request(
            doors.at(), "SCANNER", "1.2.3.6", [], lambda _: True,
            wait_seconds=0, is_answered=lambda: True,
        )  # fmt: skip


def post(doors: Doors, body: bytes, status: int, headers: dict[str, str] | None = None) -> None:
    with doors.web() as client:
        answer = client.post("/studies", content=body, headers=headers or STOW)
    assert answer.status_code == status, answer.text


def post_too_much(doors: Doors) -> None:
    head = "\r\n".join(
        f"{key}: {value}" for key, value in {**STOW, "Content-Length": 10 << 30}.items()
    )
    context = ssl.create_default_context(cafile=str(doors.folder / "home/tls/ca.pem"))
    port = int(doors.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            secure.sendall(f"POST /studies HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            assert b" 413 " in secure.recv(1000)


def web_call_by(doors: Doors, who: str) -> None:
    with doors.web(who) as client, pytest.raises(httpx.TransportError):
        client.get("/studies", headers=BEARER)


def get(doors: Doors, path: str, status: int, headers: dict[str, str]) -> None:
    with doors.web() as client:
        assert client.get(path, headers=headers).status_code == status


REFUSED = "associations_refused cause="
HANDSHAKE = "tls_handshakes_failed "
WEB = "dicomweb_requests_refused "
PROVOKED: list[tuple[str, Callable[[Doors], object]]] = [
    (f"{REFUSED}unknown_ae_title", lambda doors: echo(doors, "STRANGER")),
    (f"{REFUSED}called_ae_title", lambda doors: echo(doors, "SCANNER", called="OTHER")),
    (f"{REFUSED}address_not_allowed", lambda doors: echo(doors, "AWAY")),
    (f"{REFUSED}tls_required", lambda doors: echo(doors, "SECURE")),
    (
        f"{REFUSED}certificate_not_pinned",
        lambda doors: echo(doors, "PINNED", tls=doors.tls("scanner")),
    ),
    (f"{REFUSED}too_many_associations", two_at_once),
    (
        f"{HANDSHAKE}cause=certificate_expired,port=dicom",
        lambda doors: echo(doors, "SCANNER", tls=doors.tls("expired")),
    ),
    (
        f"{HANDSHAKE}cause=certificate_not_trusted,port=dicom",
        lambda doors: echo(doors, "SCANNER", tls=doors.tls("foreign")),
    ),
    (
        f"{HANDSHAKE}cause=no_certificate,port=dicom",
        lambda doors: echo(
            doors, "SCANNER", tls=replace(doors.tls("scanner"), certificate=None, key=None)
        ),
    ),
    ("malformed_pdus", lambda doors: raw(doors, b"\x09\0\0\0\0\4none")),
    ("objects_refused status=C000,way=c_store",
     lambda doors: store(doors, without="StudyInstanceUID")),
    ("objects_refused status=A900,way=c_store", lambda doors: store(doors, called="1.2.3")),
    ("services_refused service=query", find_without_leave),
    ("queries_failed operation=c_find,status=A900", find_at_no_level),
    ("queries_failed operation=c_move,status=A801", move_to_nobody),
    ("commitment_reports_unknown", report_on_nothing),
    ("commitment_requests_refused status=0115", ask_commitment_of_nothing),
    (
        f"{WEB}cause=no_boundary,service=STOW-RS",
        lambda doors: post(doors, b"x", 400, {**STOW, "Content-Type": "multipart/related"}),
    ),
    (f"{WEB}cause=no_part,service=STOW-RS", lambda doors: post(doors, b"nothing", 400)),
    (
        f"{WEB}cause=media_type,service=STOW-RS",
        lambda doors: post(doors, b"{}", 415, {**BEARER, "Content-Type": "application/json"}),
    ),
    (f"{WEB}cause=too_long,service=STOW-RS", post_too_much),
    (
        f"{WEB}cause=no_credentials,service=QIDO-RS",
        lambda doors: get(doors, "/studies", 401, {}),
    ),
    (
        f"{WEB}cause=not_allowed,service=WADO-RS",
        lambda doors: get(doors, "/studies/1.2", 403, {**BEARER, "Accept": "*/*"}),
    ),
    (
        f"{WEB}cause=bad_request,service=QIDO-RS",
        lambda doors: get(doors, "/studies?limit=many", 400, BEARER),
    ),
    (
        f"{HANDSHAKE}cause=certificate_expired,port=dicomweb",
        lambda doors: web_call_by(doors, "expired"),
    ),
    (
        f"{HANDSHAKE}cause=certificate_not_trusted,port=dicomweb",
        lambda doors: web_call_by(doors, "foreign"),
    ),
    (
        f"{HANDSHAKE}cause=no_tls,port=dicomweb",
        lambda doors: raw(doors, b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", web=True),
    ),
]  # fmt: skip


def cut_off(doors: Doors) -> None:
    """The part is refused with the body: two counts, one line."""
    post(doors, b"--b\r\nContent-Type: application/dicom\r\n\r\n" + bytes(200), 409)


def is_longer(doors: Doors, lines: int) -> bool:
    return len(doors.lines()) > lines


def test_each_is_counted_once_and_told_in_one_line(doors: Doors) -> None:
    before = doors.counts()
    cut_off_series = f"{WEB}cause=cut_off,service=STOW-RS"
    for series, provoke in [*PROVOKED, (cut_off_series, cut_off)]:
        lines = doors.lines()
        provoke(doors)
        wait_for(f"{series} is told", functools.partial(is_longer, doors, len(lines)))
        assert verify(doors.at(), "SCANNER").ok, "the service goes on"
        assert len(doors.lines()) == len(lines) + 1, (series, doors.lines()[len(lines) :])
    assert before == {}
    expected = {series: 1 for series, _ in PROVOKED}
    expected |= {
        "services_refused service=query": 2,
        cut_off_series: 1,
        "objects_refused status=C000,way=stow": 1,
    }
    wait_for("all is counted", lambda: doors.counts() == expected)


def test_all_series_are_there_before_anything_happens(doors: Doors) -> None:
    text = doors.scraper.get("/metrics").text
    assert 'unibiomed_queries_failed_total{operation="c_get",status="A702"} 0.0' in text
    assert "unibiomed_malformed_pdus_total" in text
    assert all(name.startswith("unibiomed_") for name in NAMES)
    documented = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert all(f"`{name}_total`" in documented for name in NAMES)
    assert not NAMES & {family.name for family in REGISTRY.collect()}


def test_a_process_writes_what_is_new_and_nothing_twice(doors: Doors) -> None:
    """Two threads of a worker may end a task together; a lost database is made up for."""
    counting = Counting(doors.node.database)
    counting.write()
    before = doors.counts()
    UNKNOWN_REPORTS.inc()
    OBJECTS_SENT.labels("stored").inc(3)
    counting.write()
    counting.write()
    after = doors.counts()
    series = ("commitment_reports_unknown", "objects_sent verdict=stored")
    assert [after[one] - before.get(one, 0) for one in series] == [1, 3]
