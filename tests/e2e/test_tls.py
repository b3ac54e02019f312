"""The whole listener by mutual TLS: DCMTK, pynetdicom and Orthanc as peers, over a real series.

DCMTK's getscu and movescu know no TLS: C-GET is asked by pynetdicom, C-MOVE by Orthanc.
"""

from __future__ import annotations

import json
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from deploy.demo_pacs import LOOPBACK, OrthancPacs
from dicom_node.services.storage_scu import send, verify
from tests.e2e.peers import STORESCU, dcmtk, need, orthanc
from tests.factories.certificates import Certificate, make_certificate
from tests.orthanc import Orthanc
from tests.workflows.test_listener import listening
from tests.workflows.test_workers import wait_for
from tests.workflows.whole_node import make_node, take_in
from workflows.network import known_entity
from workflows.node import Node
from workflows.reloading import ask_to_reload

FINDSCU, ECHOSCU = Path("/usr/bin/findscu"), Path("/usr/bin/echoscu")
GET, FIND = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.2.1"
PROFILES = {"non-downgrading": "+py", "BCP 195": "+px", "extended": "+pz"}
pytestmark = pytest.mark.e2e


@dataclass
class Secure:
    """A listener with TLS alone, and its peers."""

    node: Node
    port: int
    log: Path
    folder: Path
    files: list[Path]
    pacs: OrthancPacs

    @property
    def uids(self) -> set[str]:
        return {
            str(pydicom.dcmread(one, stop_before_pixels=True).SOPInstanceUID) for one in self.files
        }

    @property
    def study(self) -> str:
        return str(pydicom.dcmread(self.files[0], stop_before_pixels=True).StudyInstanceUID)

    def dcmtk(
        self,
        program: Path,
        *options: str,
        files: Sequence[Path] = (),
        who: str = "scanner",
        ok: bool = True,
    ) -> str:
        """Call the node by a program of DCMTK; returns what that said."""
        done = dcmtk(
            program, "-d", "-aet", "SCANNER", "-aec", "UNIBIOMED",
            "+tls", self.folder / f"{who}.key", self.folder / f"{who}.pem",
            "+cf", self.folder / "ca.pem", *options, "localhost", str(self.port), *files,
        )  # fmt: skip
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def lines(self) -> list[str]:
        return [one for one in self.log.read_text().splitlines() if "A connection from" in one]


@pytest.fixture(scope="module")
def secure(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    need(FINDSCU, ECHOSCU, STORESCU)
    home = tmp_path_factory.mktemp("secure") / "home"
    folder = home / "tls"
    authority = make_certificate(folder, "ca")
    certificates = {
        name: make_certificate(folder, name, by=authority)
        for name in ("node", "scanner", "orthanc")
    }
    make_certificate(folder, "expired", by=authority, days=-1)
    make_certificate(folder, "foreign", by=make_certificate(folder, "other-ca"))
    with Orthanc(home.parent / "orthanc", options(certificates, folder)) as pacs:
        everything = ["echo", "store", "query", "retrieve"]
        node = make_node(
            home,
            node={"host": LOOPBACK, "port": 0},
            tls={"port": 0, "plain": False, "certificate": "tls/node.pem", "key": "tls/node.key",
                 "authorities": "tls/ca.pem"},
            peers=[
                {"name": "scanner", "ae_title": "SCANNER", "allow": everything,
                 "certificate": "tls/scanner.pem"},
                {"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port,
                 "allow": everything, "requires_tls": True, "certificate": "tls/orthanc.pem"},
            ],
        )  # fmt: skip
        files = sorted((shared_data / "dicom" / "udacity" / "Study3").rglob("*.dcm"))[:4]
        assert take_in(node, files) == len(files) == 4
        log = home.parent / "listener.log"
        with listening(node, log) as (_, port):
            yield Secure(node, port, log, folder, files, pacs)
        node.database.dispose()


def options(certificates: dict[str, Certificate], folder: Path) -> dict[str, object]:
    """Have Orthanc speak TLS on both sides."""
    ours = certificates["orthanc"]
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(ours.path),
        "DicomTlsPrivateKey": str(ours.key_path),
        "DicomTlsTrustedCertificates": str(folder / "ca.pem"),
        "DicomTlsRemoteCertificateRequired": True,
        "DicomModalities": {},
    }


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_dcmtk_verifies_stores_and_queries(secure: Secure, profile: str) -> None:
    secure.dcmtk(ECHOSCU, profile)
    secure.dcmtk(STORESCU, profile, files=secure.files)
    keys = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "-k", "Modality"]
    keys += ["-k", "NumberOfStudyRelatedInstances"]
    said = secure.dcmtk(FINDSCU, profile, *keys)
    assert secure.study in said


@pytest.mark.parametrize(
    ("who", "words"), [("expired", "certificate has expired"), ("foreign", "issuer certificate")]
)
def test_who_cannot_prove_who_it_is_gets_nothing(secure: Secure, who: str, words: str) -> None:
    before = len(secure.lines())
    secure.dcmtk(ECHOSCU, who=who, ok=False)
    wait_for("it is told", lambda: len(secure.lines()) > before)
    told = secure.lines()[before:]
    assert len(told) == 1, told
    [line] = told
    assert words in line and "127.0.0.1" in line


def by_pynetdicom(secure: Secure, who: str = "scanner") -> Association:
    """Associate by pynetdicom's own requestor, for C-FIND and C-GET."""
    context = ssl.create_default_context(cafile=str(secure.folder / "ca.pem"))
    context.load_cert_chain(secure.folder / f"{who}.pem", secure.folder / f"{who}.key")
    entity = AE("SCANNER")
    entity.connection_timeout = entity.acse_timeout = 10
    classes = {
        str(pydicom.dcmread(one, stop_before_pixels=True).SOPClassUID) for one in secure.files
    }
    return entity.associate(
        "localhost",
        secure.port,
        contexts=[build_context(GET), build_context(FIND), *map(build_context, classes)],
        ext_neg=[build_role(uid, scp_role=True) for uid in classes],
        ae_title="UNIBIOMED",
        tls_args=(context, "localhost"),
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )


GOT: set[str] = set()


def keep(event: Event) -> int:
    GOT.add(str(event.request.AffectedSOPInstanceUID))  # type: ignore[union-attr]
    return 0


def test_c_get_by_tls(secure: Secure) -> None:
    GOT.clear()
    association = by_pynetdicom(secure)
    assert association.is_established
    question = pydicom.Dataset()
    question.QueryRetrieveLevel, question.StudyInstanceUID = "STUDY", secure.study
    answers = [status.Status for status, _ in association.send_c_get(question, GET)]
    association.release()
    assert answers[-1] == 0
    assert secure.uids == GOT


def test_orthanc_both_ways_by_tls(secure: Secure) -> None:
    """It asks and fetches by C-MOVE; the node answers by TLS, too, and is stored to by it."""
    modality = {"AET": "UNIBIOMED", "Host": "localhost", "Port": secure.port, "UseDicomTls": True}
    put = urllib.request.Request(
        f"http://127.0.0.1:{secure.pacs.http_port}/modalities/node",
        data=json.dumps(modality).encode(),
        method="PUT",
    )
    urllib.request.urlopen(put, timeout=60).read()
    orthanc(secure.pacs, "/modalities/node/echo", {})
    question: dict[str, Any] = {"Level": "Study", "Query": {"StudyInstanceUID": secure.study}}
    query = orthanc(secure.pacs, "/modalities/node/query", question)["ID"]
    assert orthanc(secure.pacs, f"/queries/{query}/answers") == ["0"]
    orthanc(
        secure.pacs, f"/queries/{query}/answers/0/retrieve", {"TargetAet": secure.pacs.ae_title}
    )
    find = {"Level": "Instance", "Expand": True, "Query": question["Query"]}
    found = orthanc(secure.pacs, "/tools/find", find)
    assert {one["MainDicomTags"]["SOPInstanceUID"] for one in found} == secure.uids
    there = known_entity(secure.node.settings, secure.pacs.ae_title)
    assert there is not None and there.tls is not None
    assert verify(there, "UNIBIOMED").ok
    assert all(one.is_stored for one in send(secure.files, there, calling_ae_title="UNIBIOMED"))
    stored = orthanc(
        secure.pacs,
        "/modalities/node/store",
        {"Resources": [one["ID"] for one in found]},
    )
    assert (stored["FailedInstancesCount"], stored["InstancesCount"]) == (0, len(secure.uids))


def test_a_renewed_certificate_is_shown_without_a_restart(secure: Secure) -> None:
    """An association that is open goes on; the next one sees the new certificate."""
    open_one = by_pynetdicom(secure)
    assert open_one.is_established
    authority = make_certificate(secure.folder, "ca2")
    make_certificate(secure.folder, "node", by=authority)
    ask_to_reload(secure.node.home)
    wait_for("it is read again", lambda: "configuration read again" in secure.log.read_text())
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(secure.folder / "scanner.pem", secure.folder / "scanner.key")
    with socket.create_connection((LOOPBACK, secure.port)) as connection:
        context.wrap_socket(connection, server_hostname="localhost").close()
    question = pydicom.Dataset()
    question.QueryRetrieveLevel, question.StudyInstanceUID = "STUDY", secure.study
    assert [one.Status for one, _ in open_one.send_c_find(question, FIND)] == [0xFF00, 0]
    open_one.release()
