"""The DICOMweb client: at Orthanc's plug-in, and at servers that answer as they are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from deploy.demo_pacs import LOOPBACK
from dicom_node.errors import FinalError, RejectedError, RetriableError
from dicom_node.services import dicomweb_client
from dicom_node.services.dicomweb_client import WebArchive
from dicom_node.services.probing import probe_web
from dicom_node.services.web_connection import OAuth2, WebDestination
from tests.dicom_node.services.conftest import PATIENT, write_instances
from tests.factories.scripted_web import Scripted, says, scripted_web
from tests.orthanc import Orthanc

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDestination]:
    if not PLUGIN.exists():
        pytest.skip("needs Orthanc and its DICOMweb plug-in (see tests/outside_peers.sh)")
    options: dict[str, object] = {
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"node": "secret"},
    }
    with Orthanc(tmp_path_factory.mktemp("orthanc"), options) as running:
        yield WebDestination(
            "orthanc",
            f"http://{LOOPBACK}:{running.http_port}/dicom-web",
            user="node",
            password="secret",
            timeouts=PATIENT,
        )


def test_orthanc_tells_which_services_it_has(orthanc: WebDestination) -> None:
    answer = probe_web(orthanc)
    assert answer.accepted is None and not answer.sentence
    assert answer.told[0] == "It answers searches (QIDO-RS)."
    assert "STOW-RS" in answer.told[1] and "cannot be known" in answer.told[2]
    refused = probe_web(replace(orthanc, password="wrong"))
    assert "check the credentials" in refused.sentence and not refused.told


def test_store_find_and_fetch_at_orthanc(orthanc: WebDestination, tmp_path: Path) -> None:
    paths = write_instances(tmp_path, 3)
    first = dcmread(paths[0])
    uids = {str(dcmread(path).SOPInstanceUID) for path in paths}
    with WebArchive(orthanc) as archive:
        statuses = archive.store(paths)
        assert [status.verdict for status in statuses] == ["stored"] * 3
        series = {str(first.SeriesInstanceUID): [*uids, "1.2.3"]}
        assert archive.holds(first.StudyInstanceUID, series) == uids
        assert archive.holds("1.2.3.4", {"5.6": ["7"]}) == set()
        fetched: list[bytes] = []
        count = archive.retrieve(f"/studies/{first.StudyInstanceUID}", fetched.append)
    assert count == 3
    assert {str(dcmread(BytesIO(data)).SOPInstanceUID) for data in fetched} == uids
    assert dcmread(BytesIO(fetched[0])).PixelData == first.PixelData


def test_wrong_credentials_are_final_and_named(orthanc: WebDestination, tmp_path: Path) -> None:
    with (
        WebArchive(replace(orthanc, password="wrong")) as archive,
        pytest.raises(RejectedError) as caught,
    ):
        archive.store(write_instances(tmp_path, 1))
    assert "401" in caught.value.sentence and "credentials" in caught.value.sentence


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with scripted_web() as running:
        yield running


def at(scripted: Scripted) -> WebDestination:
    return WebDestination("web", scripted.url, timeouts=PATIENT)


def module(stored: dict[str, int], failed: dict[str, int]) -> dict[str, Any]:
    """Return a Store Instances Response Module: UID to warning (or 0), UID to failure."""

    def item(uid: str, tag: str, code: int) -> dict[str, Any]:
        found: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
        return found | ({tag: {"vr": "US", "Value": [code]}} if code else {})

    return {
        "00081199": {"vr": "SQ", "Value": [item(u, "00081196", c) for u, c in stored.items()]},
        "00081198": {"vr": "SQ", "Value": [item(u, "00081197", c) for u, c in failed.items()]},
    }


def test_a_202_is_read_instance_by_instance(scripted: Scripted, tmp_path: Path) -> None:
    paths = write_instances(tmp_path, 5)
    uids = [str(dcmread(path).SOPInstanceUID) for path in paths]
    given = module(
        {uids[0]: 0, uids[1]: 0xB000}, {uids[2]: 0xA700, uids[3]: 0xC000}
    )  # of the fifth nothing is said
    scripted.answers = [says(202, given)]
    with WebArchive(at(scripted)) as archive:
        statuses = archive.store(paths)
    assert [status.verdict for status in statuses] == [
        "stored", "warning", "retry", "final", "retry",
    ]  # fmt: skip
    assert [status.path for status in statuses] == paths
    # The bytes on the way are those of the files.
    body = scripted.seen[0][2]
    assert all(path.read_bytes() in body for path in paths)


def test_a_200_that_names_nothing_is_no_proof(scripted: Scripted, tmp_path: Path) -> None:
    scripted.answers = [says(200, {})]
    with WebArchive(at(scripted)) as archive:
        [status] = archive.store(write_instances(tmp_path, 1))
    assert status.verdict == "retry"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (says(503, b"", Retry_After="17"), RetriableError, "503"),
        (says(429, b""), RetriableError, "429"),
        (says(500, b"boom"), RetriableError, "boom"),
        (says(400, b"no part"), FinalError, "no part"),
        (says(413, b""), FinalError, "413"),
        (says(302, b"", Location="http://elsewhere.invalid/"), FinalError, "302"),
        (says(200, b"<html>a proxy</html>"), FinalError, "not JSON"),
    ],
)
def test_other_answers(
    scripted: Scripted, tmp_path: Path, answer: Any, kind: type[Exception], words: str
) -> None:
    scripted.answers = [answer]
    with WebArchive(at(scripted)) as archive, pytest.raises(kind) as caught:
        archive.store(write_instances(tmp_path, 1))
    assert words in str(caught.value)
    if "503" in words:
        assert isinstance(caught.value, RetriableError)
        assert caught.value.after_seconds == 17


def test_retry_after_may_be_a_date(scripted: Scripted, tmp_path: Path) -> None:
    import time

    scripted.answers = [says(503, b"", Retry_After=formatdate(time.time() + 3600, usegmt=True))]
    with WebArchive(at(scripted)) as archive, pytest.raises(RetriableError) as caught:
        archive.store(write_instances(tmp_path, 1))
    assert 3000 < (caught.value.after_seconds or 0) <= 3600


def test_tokens_are_fetched_once_and_again_when_they_end(
    scripted: Scripted, tmp_path: Path
) -> None:
    token = {"access_token": "abc", "expires_in": 3600}
    destination = replace(
        at(scripted),
        oauth2=OAuth2(f"http://{LOOPBACK}:{scripted.port}/token", "node", "secret", "dicom"),
    )
    scripted.answers = [says(200, token), says(200, []), says(200, []), says(401)]
    with WebArchive(destination) as archive:
        archive.search("/studies", {})
        archive.search("/studies", {"PatientID": "1"})
        with pytest.raises(RejectedError):
            archive.search("/studies", {})
        scripted.answers = [says(200, {**token, "access_token": "new"}), says(200, [])]
        archive.search("/studies", {})
    asked = [request for request, _, _ in scripted.seen]
    assert [one.partition(" ")[0] for one in asked] == ["POST", "GET", "GET", "GET", "POST", "GET"]
    assert b"grant_type=client_credentials" in scripted.seen[0][2]
    sent = [
        headers.get("authorization", headers.get("Authorization"))
        for _, headers, _ in scripted.seen
    ]
    assert sent[1] == "Bearer abc" and sent[5] == "Bearer new"


def test_a_server_that_is_away_is_retriable(tmp_path: Path) -> None:
    with (
        WebArchive(WebDestination("gone", f"http://{LOOPBACK}:1/", timeouts=PATIENT)) as archive,
        pytest.raises(RetriableError) as caught,
    ):
        archive.search("/studies", {})
    assert "Is it running" in caught.value.sentence


def test_a_search_whose_pages_never_end_is_ended(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb_client, "_MOST_PAGES", 5)
    page = iter(range(100))

    def endless(*_: object) -> tuple[int, dict[str, str], object]:
        study = {"0020000D": {"vr": "UI", "Value": [f"1.2.{next(page)}"]}}
        return 200, {"Warning": "299 web: there are more"}, [study]

    scripted.answers = [endless] * 20
    with WebArchive(at(scripted)) as archive, pytest.raises(FinalError) as ended:
        archive.search("/studies", {})
    assert "more than 5 pages" in ended.value.sentence
    assert len(scripted.seen) == 5


def test_a_search_that_finds_more_than_can_be_kept_is_ended(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb_client, "_MOST_MATCHES", 3)
    studies = [{"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(4)]
    scripted.answers = [says(200, studies[:3]), says(200, studies)]
    with WebArchive(at(scripted)) as archive:
        assert archive.search("/studies", {}) == studies[:3]
        with pytest.raises(FinalError, match="more than 3 matches"):
            archive.search("/studies", {})


def test_an_object_that_is_too_large_is_not_gathered(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb_client, "_LARGEST_OBJECT", 1000)
    fetched: list[bytes] = []
    parts = b"".join(
        b"--x\r\nContent-Type: application/dicom\r\n\r\n" + bytes(size) + b"\r\n"
        for size in (1000, 1001)
    )
    kind = "multipart/related; type=application/dicom; boundary=x"
    scripted.answers = [says(200, parts + b"--x--\r\n", Content_Type=kind)]
    with WebArchive(at(scripted)) as archive, pytest.raises(FinalError) as ended:
        archive.retrieve("/studies/1.2", fetched.append)
    assert "an object of more than 1000 bytes" in ended.value.sentence
    assert [len(data) for data in fetched] == [1000]
