"""Associations with TLS: DCMTK calls, the node calls, and those who are not who they should be."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.demo_pacs import free_port
from dicom_node.counters import TLS_HANDSHAKES_FAILED
from dicom_node.errors import FinalError
from dicom_node.peers import Peer, Peers
from dicom_node.services import tls as tls_module
from dicom_node.services.association import Destination
from dicom_node.services.storage_scu import send, verify
from dicom_node.services.tls import (
    PROFILES,
    ProfileName,
    Tls,
    certificates_in,
    client_context,
    days_left,
    fingerprints,
    server_context,
)
from tests.dicom_node.services.conftest import (
    PATIENT,
    Node,
    NodeFactory,
    dcmtk,
    run_dcmtk,
    wait_for_port,
)
from tests.factories.certificates import Certificate, make_certificate


class Certificates:
    """Those of a small hospital: its authority, the node, a scanner; and of others."""

    def __init__(self, folder: Path) -> None:
        self.authority = make_certificate(folder, "authority")
        self.node = make_certificate(folder, "node", by=self.authority)
        self.node_rsa = make_certificate(folder, "node-rsa", by=self.authority, is_rsa=True)
        self.scanner = make_certificate(folder, "scanner", by=self.authority)
        self.second = make_certificate(folder, "second", by=self.authority)
        self.expired = make_certificate(folder, "expired", by=self.authority, days=-1)
        foreign = make_certificate(folder, "foreign-authority")
        self.foreign = make_certificate(folder, "foreign", by=foreign)

    @property
    def server(self) -> Tls:
        return Tls(self.node.path, self.node.key_path, authorities=self.authority.path)

    def client(self, who: Certificate | None = None, **changes: object) -> Tls:
        tls = Tls(authorities=self.authority.path)
        if who is not None:
            tls = replace(tls, certificate=who.path, key=who.key_path)
        return replace(tls, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def need_openssl() -> str:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl")
    return program


StartSecure = Callable[..., Node]


@pytest.fixture
def start_secure(start_node: NodeFactory, certificates: Certificates) -> StartSecure:
    def start(peer: Peer | None = None, tls: Tls | None = None, mutual: bool = True) -> Node:
        context = server_context(tls or certificates.server, mutual=mutual)
        return start_node(
            peers=Peers([peer or Peer("tests", "SENDER")]), tls=lambda: context, tls_port=0
        )

    return start


def at(node: Node, tls: Tls | None, **changes: object) -> Destination:
    plain = Destination("node", "UNIBIOMED", "127.0.0.1", node.scp.tls_port or 0, timeouts=PATIENT)
    return replace(plain, tls=tls, **changes)  # type: ignore[arg-type]


def dcmtk_tls(
    node: Node, certificates: Certificates, who: Certificate, *more: str
) -> tuple[object, ...]:
    return (
        *("-aet", "SENDER", "-aec", "UNIBIOMED", "+tls", who.key_path, who.path),
        *("+cf", certificates.authority.path, *more, "localhost", node.scp.tls_port),
    )


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_dcmtk_stores_by_tls(
    start_secure: StartSecure,
    certificates: Certificates,
    instances: list[Path],
    profile: ProfileName,
) -> None:
    node = start_secure(tls=replace(certificates.server, profile=profile))
    options = dcmtk_tls(node, certificates, certificates.scanner)
    assert run_dcmtk("echoscu", *options).returncode == 0
    node.ended()
    done = run_dcmtk("storescu", *options, *instances)
    assert done.returncode == 0, done.stderr
    ended = node.ended()
    assert (ended.ended, ended.stored) == ("released", 3)


def test_the_plain_port_beside_it_still_answers(start_secure: StartSecure) -> None:
    node = start_secure()
    assert verify(node.destination, "SENDER").ok


def test_a_peer_that_must_call_by_tls_is_refused_without(
    start_secure: StartSecure, certificates: Certificates
) -> None:
    node = start_secure(Peer("scanner", "SENDER", requires_tls=True))
    assert not verify(node.destination, "SENDER").ok
    refusal = node.refused.get(timeout=60)
    assert "with TLS only" in refusal.sentence and "tls.port" in refusal.sentence
    assert verify(at(node, certificates.client(certificates.scanner)), "SENDER").ok


def test_a_pinned_peer_must_show_its_certificate(
    start_secure: StartSecure, certificates: Certificates
) -> None:
    pinned = fingerprints([certificates.scanner.path])
    assert pinned == {certificates.scanner.fingerprint}
    node = start_secure(Peer("scanner", "SENDER", certificates=pinned))
    assert verify(at(node, certificates.client(certificates.scanner)), "SENDER").ok
    node.ended()
    # Signed by the same authority, but another one's.
    assert not verify(at(node, certificates.client(certificates.second)), "SENDER").ok
    refusal = node.refused.get(timeout=60)
    assert certificates.second.fingerprint in refusal.sentence
    assert node.released.empty()


def test_a_pinned_certificate_needs_no_authority(
    start_secure: StartSecure, certificates: Certificates
) -> None:
    node = start_secure(
        Peer("stranger", "SENDER", certificates=fingerprints([certificates.foreign.path])),
        replace(certificates.server, authorities=None, pinned=(certificates.foreign.path,)),
    )
    assert verify(at(node, certificates.client(certificates.foreign)), "SENDER").ok
    node.ended()
    assert not verify(at(node, certificates.client(certificates.scanner)), "SENDER").ok


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("expired", "certificate has expired"),
        ("foreign", "issuer certificate"),
        (None, "shows no certificate"),
    ],
)
def test_a_certificate_that_is_not_accepted_is_counted_and_explained(
    start_secure: StartSecure, certificates: Certificates, who: str | None, words: str
) -> None:
    node = start_secure()
    shown = None if who is None else getattr(certificates, who)
    answer = verify(at(node, certificates.client(shown)), "SENDER")
    assert not answer.ok
    refusal = node.refused.get(timeout=60)
    assert words in refusal.sentence and refusal.host == "127.0.0.1"
    assert node.refused.empty()
    # The service goes on.
    assert verify(at(node, certificates.client(certificates.scanner)), "SENDER").ok


def test_callers_need_no_certificate_where_it_is_not_mutual(
    start_secure: StartSecure, certificates: Certificates
) -> None:
    node = start_secure(mutual=False)
    assert verify(at(node, certificates.client()), "SENDER").ok


def test_wrong_protocol_on_the_port(start_secure: StartSecure, certificates: Certificates) -> None:
    node = start_secure()
    plain = run_dcmtk(
        "echoscu", "-aet", "SENDER", "-aec", "UNIBIOMED", "localhost", node.scp.tls_port
    )
    assert plain.returncode != 0
    assert "does not speak TLS" in node.refused.get(timeout=60).sentence
    with socket.create_connection(("127.0.0.1", node.scp.tls_port or 0), 5) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
        browser.settimeout(10)
        with suppress(ConnectionResetError):
            browser.recv(100)
    assert "does not speak TLS" in node.refused.get(timeout=60).sentence
    # And TLS where none is spoken: refused at once, for both sides.
    wrong = replace(node.destination, tls=certificates.client(certificates.scanner))
    answer = verify(wrong, "SENDER")
    assert not answer.ok and "Does that port speak TLS" in answer.sentence
    assert verify(node.destination, "SENDER").ok


def test_tls_below_the_profile_is_refused(
    start_secure: StartSecure, certificates: Certificates
) -> None:
    node = start_secure(tls=replace(certificates.server, profile="tls13"))
    old = client_context(certificates.client(certificates.scanner))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", node.scp.tls_port or 0), 5) as connection,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(connection, server_hostname="localhost")
    assert "TLS profile" in node.refused.get(timeout=60).sentence


def test_half_open_handshakes_hold_up_nobody(
    start_secure: StartSecure, certificates: Certificates
) -> None:
    node = start_secure()
    silent = [socket.create_connection(("127.0.0.1", node.scp.tls_port or 0)) for _ in range(10)]
    assert verify(at(node, certificates.client(certificates.scanner)), "SENDER").ok
    # Stopping does not wait for them either.
    node.scp.stop(5)
    for connection in silent:
        connection.close()


def test_certificates_are_replaced_while_the_node_runs(
    start_node: NodeFactory, certificates: Certificates
) -> None:
    contexts = [server_context(certificates.server)]
    node = start_node(tls=lambda: contexts[-1], tls_port=0, port=None)
    assert node.scp.port == node.scp.tls_port
    pinned = certificates.client(
        certificates.scanner, authorities=None, pinned=(certificates.second.path,)
    )
    answer = verify(at(node, pinned), "SENDER")
    assert "certificate" in answer.sentence and not answer.ok
    second = certificates.second
    renewed = replace(certificates.server, certificate=second.path, key=second.key_path)
    contexts.append(server_context(renewed))
    assert verify(at(node, pinned), "SENDER").ok


@pytest.fixture
def secure_storescp(tmp_path: Path, certificates: Certificates) -> Iterator[tuple[int, Path]]:
    """DCMTK's Storage SCP with TLS, which asks for a certificate, too."""
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    node = certificates.node
    process = subprocess.Popen(
        [dcmtk("storescp"), "-aet", "UNIBIOMED", "-od", folder, "+tls", node.key_path, node.path,
         "+cf", certificates.authority.path, "-rc", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        yield port, folder
    finally:
        process.terminate()
        process.wait(60)


def test_the_node_stores_by_tls_at_dcmtk(
    secure_storescp: tuple[int, Path], certificates: Certificates, instances: list[Path]
) -> None:
    port, folder = secure_storescp
    pinned = certificates.client(
        certificates.scanner, authorities=None, pinned=(certificates.node.path,)
    )
    for tls in (certificates.client(certificates.scanner), pinned):
        destination = Destination("pacs", "UNIBIOMED", "localhost", port, timeouts=PATIENT, tls=tls)
        statuses = send(instances, destination, calling_ae_title="SENDER")
        assert [status.status for status in statuses] == [0, 0, 0]
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(("change", "words"), [
    ({"authorities": None}, "certificate is not accepted"),
    ({"pinned": ("second",), "authorities": None}, "certificate"),
    ({"pinned": ("second",)}, "not the one under"),
])  # fmt: skip
def test_the_node_stores_nowhere_but_where_it_should(
    secure_storescp: tuple[int, Path],
    certificates: Certificates,
    change: dict[str, object],
    words: str,
) -> None:
    if "pinned" in change:
        change = {**change, "pinned": (certificates.second.path,)}
    tls = certificates.client(certificates.scanner, **change)
    port = secure_storescp[0]
    answer = verify(
        Destination("pacs", "UNIBIOMED", "localhost", port, timeouts=PATIENT, tls=tls), "SENDER"
    )
    assert not answer.ok and words in answer.sentence


def test_our_own_expired_certificate_is_named(
    secure_storescp: tuple[int, Path], certificates: Certificates
) -> None:
    tls = certificates.client(certificates.expired)
    port = secure_storescp[0]
    answer = verify(
        Destination("pacs", "UNIBIOMED", "localhost", port, timeouts=PATIENT, tls=tls), "SENDER"
    )
    assert not answer.ok and "accept this node's certificate" in answer.sentence


def test_files_that_cannot_be_used_are_named(tmp_path: Path, certificates: Certificates) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    node, second = certificates.node, certificates.second
    for tls, words in [
        (Tls(), "set tls.certificate"),
        (Tls(tmp_path / "missing.pem", node.key_path), "missing.pem"),
        (Tls(node.path, second.key_path), "is the key that of the certificate"),
        (Tls(node.path, node.key_path), "set tls.authorities"),
        (Tls(node.path, node.key_path, authorities=text), "text.pem"),
    ]:
        with pytest.raises(FinalError) as caught:
            server_context(tls)
        assert words in caught.value.sentence
    with pytest.raises(FinalError):
        certificates_in(text)


def test_days_left(certificates: Certificates) -> None:
    assert 29 < days_left(certificates.node.certificate) <= 30
    assert days_left(certificates.expired.certificate) < 0


@pytest.mark.parametrize(
    ("profile", "version", "cipher", "is_taken"),
    [
        ("bcp195-rfc9325", "tls1_3", "TLS_AES_256_GCM_SHA384", True),
        ("bcp195-rfc9325", "tls1_2", "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("bcp195-rfc9325", "tls1_2", "ECDHE-RSA-AES256-GCM-SHA384", True),
        ("bcp195-rfc9325", "tls1_2", "ECDHE-ECDSA-AES256-CCM", False),
        ("bcp195-rfc9325", "tls1_2", "ECDHE-RSA-AES256-SHA384", False),
        ("bcp195-rfc9325", "tls1_2", "DHE-RSA-AES256-GCM-SHA384", False),
        ("bcp195-rfc9325", "tls1_1", "DEFAULT@SECLEVEL=0", False),
        ("bcp195-rfc9325-modified", "tls1_3", "TLS_AES_128_GCM_SHA256", True),
        ("bcp195-rfc9325-modified", "tls1_2", "ECDHE-ECDSA-AES256-CCM", True),
        ("bcp195-rfc9325-modified", "tls1_2", "ECDHE-RSA-CHACHA20-POLY1305", True),
        ("bcp195-rfc9325-modified", "tls1_2", "ECDHE-ECDSA-AES256-SHA384", False),
        ("bcp195-rfc9325-modified", "tls1_1", "DEFAULT@SECLEVEL=0", False),
        ("bcp195-nd", "tls1_3", "TLS_AES_256_GCM_SHA384", True),
        ("bcp195-nd", "tls1_2", "DHE-RSA-AES256-GCM-SHA384", True),
        ("bcp195-nd", "tls1_2", "ECDHE-RSA-AES128-GCM-SHA256", True),
        ("bcp195-nd", "tls1_2", "AES256-GCM-SHA384", False),
        ("bcp195-nd", "tls1_1", "DEFAULT@SECLEVEL=0", False),
        ("tls13", "tls1_3", "TLS_CHACHA20_POLY1305_SHA256", True),
        ("tls13", "tls1_2", "ECDHE-ECDSA-AES256-GCM-SHA384", False),
    ],
)
def test_each_profile_takes_what_it_names_and_nothing_older(
    start_secure: StartSecure,
    certificates: Certificates,
    profile: ProfileName,
    version: str,
    cipher: str,
    is_taken: bool,
) -> None:
    """Asked by OpenSSL's own client, for one version and one cipher suite at a time."""
    # A suite with ECDSA needs such a key, one with RSA needs RSA.
    ours = certificates.node if "ECDSA" in cipher else certificates.node_rsa
    tls = replace(certificates.server, certificate=ours.path, key=ours.key_path, profile=profile)
    node = start_secure(tls=tls)
    suites = "-ciphersuites" if version == "tls1_3" else "-cipher"
    counter = TLS_HANDSHAKES_FAILED.labels("dicom", "version_or_cipher")
    before = counter._value.get()
    asked = subprocess.run(
        [need_openssl(), "s_client", "-connect", f"127.0.0.1:{node.scp.tls_port}",
         f"-{version}", suites, cipher, "-cert", certificates.scanner.path,
         "-key", certificates.scanner.key_path, "-CAfile", certificates.authority.path],
        input="", capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    said = asked.stdout + asked.stderr
    if is_taken:
        assert f"Cipher is {cipher}" in said and "Verify return code: 0 (ok)" in said, said
        assert node.refused.empty()
        return
    assert "Cipher is (NONE)" in said
    assert "TLS profile" in node.refused.get(timeout=60).sentence
    assert counter._value.get() == before + 1
    assert verify(at(node, certificates.client(certificates.scanner)), "SENDER").ok


def test_the_group_for_dhe_is_that_of_rfc_7919() -> None:
    path = Path(tls_module.__file__).with_name("ffdhe3072.pem")
    der = ssl.PEM_cert_to_DER_cert(
        path.read_text().replace("DH PARAMETERS", "CERTIFICATE")  # the armour is the same
    )
    # A sequence that begins with an integer of 385 bytes: the prime (PKCS #3).
    assert der[4:8] == b"\x02\x82\x01\x81"
    prime = int.from_bytes(der[8:393])
    # RFC 7919, A.2: p = 2^3072 - 2^3008 + (floor(2^2942 * e) + 2625351) * 2^64 - 1.
    scale = 1 << 3100
    term = euler = scale
    for number in range(1, 1000):
        term //= number
        euler += term
    floor = euler >> (3100 - 2942)
    assert prime == (1 << 3072) - (1 << 3008) + ((floor + 2625351) << 64) - 1
    assert der[393:396] == b"\x02\x01\x02", "the generator is 2"
