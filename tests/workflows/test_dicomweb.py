"""The DICOMweb server as a process, asked by dicomweb-client and by hand."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import dcmread
from pydicom.uid import UID, JPEGLSLossless
from sqlalchemy import func, select

from db.models import Instance, Refusal, Study
from tests.factories import write_ct_series
from tests.factories.certificates import make_certificate
from tests.workflows.test_workers import ROOT, wait_for
from tests.workflows.whole_node import ct_volume, make_node
from workflows.node import Node

TOKEN = "a-token-for-the-test"
ALL_SERVICES = ["query", "retrieve", "store", "worklist"]
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Running:
    """A server, its node, and what was stored there first."""

    node: Node
    url: str
    paths: list[Path]
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def client(self) -> DICOMwebClient:
        session = requests.Session()
        session.headers.update(BEARER)
        return DICOMwebClient(self.url, session=session)

    @property
    def first(self) -> pydicom.Dataset:
        return dcmread(self.paths[0])

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers={**BEARER, **headers}, timeout=60)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("dicomweb")
    node = make_node(
        folder / "home",
        node={"host": "127.0.0.1", "port": 0},
        dicomweb={
            "port": 0,
            "longest_body": "64 MiB",
            "read_timeout_seconds": 2.0,
            "users": [
                {"name": "all", "allow": ALL_SERVICES, "token": TOKEN},
                {"name": "looker", "allow": ["query"], "user": "looker", "password": "secret"},
            ],
        },
    )
    log = folder / "dicomweb.log"
    paths = write_ct_series(folder / "ct", ct_volume())
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workflows.dicomweb"],
            cwd=ROOT,
            env=os.environ | {"UNIBIOMED_HOME": str(node.home.root)},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for("dicomweb.json", node.home.dicomweb_json.exists)
        url = json.loads(node.home.dicomweb_json.read_text())["url"]
        served = Running(node, url, paths, process, log)
        served.client.store_instances([dcmread(path) for path in paths])
        yield served
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not node.home.dicomweb_json.exists()
        assert "Phantom" not in log.read_text(), "no patient data in logs"
    finally:
        process.kill()
        process.wait()
        node.database.dispose()


def test_what_is_stored_lies_there_byte_for_byte_and_is_released(running: Running) -> None:
    with running.node.database.reading() as session:
        kept = {one.sop_instance_uid: one for one in session.scalars(select(Instance))}
    for path in running.paths:
        sent = dcmread(path)
        there = dcmread(running.node.archive.absolute(kept[sent.SOPInstanceUID].path))
        assert there == sent

    def released() -> bool:
        with running.node.database.reading() as session:
            return session.scalar(select(Study.released_at)) is not None

    wait_for("the study is released", released)


def test_search_at_each_level(running: Running) -> None:
    client, first = running.client, running.first
    [study] = client.search_for_studies(search_filters={"PatientID": first.PatientID})
    assert study["0020000D"]["Value"] == [first.StudyInstanceUID]
    assert study["00201208"]["Value"] == [len(running.paths)]
    assert study["00100010"]["Value"][0]["Alphabetic"] == str(first.PatientName)
    assert study["00081190"]["Value"] == [f"{running.url}/studies/{first.StudyInstanceUID}"]
    [series] = client.search_for_series(first.StudyInstanceUID)
    assert series["00080060"]["Value"] == ["CT"]
    found = client.search_for_instances(
        first.StudyInstanceUID, first.SeriesInstanceUID, fields=["SliceThickness"]
    )
    assert len(found) == len(running.paths)
    assert {"00280010", "00180050"} <= found[0].keys()
    uids = [one["00080018"]["Value"][0] for one in found]
    listed = running.get(f"/instances?SOPInstanceUID={uids[0]},{uids[1]}").json()
    assert {one["00080018"]["Value"][0] for one in listed} == set(uids[:2])
    pages = [
        client.search_for_instances(first.StudyInstanceUID, limit=3, offset=offset)
        for offset in range(0, len(uids), 3)
    ]
    assert [one["00080018"]["Value"][0] for page in pages for one in page] == uids


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("PatientName=*nobody*", 0),
        ("00100020=%27%3B+drop+table+study%3B+--", 0),
        ("StudyDate=19000101-19010101", 0),
        ("ModalitiesInStudy=CT", 1),
        ("ModalitiesInStudy=MR", 0),
        ("includefield=all", 1),
        ("StudyInstanceUID=1.2.3,1.2.4", 0),
        ("StudyDate=1900.01.01", 0),
        ("StudyDate=19000101-", 1),
        ("StudyTime=*", 1),
        ("fuzzymatching=true", 1),
    ],
)
def test_matching(running: Running, query: str, count: int) -> None:
    answer = running.get(f"/studies?{query}")
    assert (answer.status_code, len(answer.json())) == (200, count)
    assert answer.headers["content-type"] == "application/dicom+json"
    assert ("Warning" in answer.headers) == ("fuzzy" in query)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies?NoSuchKey=1", 400),
        ("/studies?limit=-1", 400),
        ("/studies?StudyDate=' OR 1=1", 400),
        ("/studies?StudyDate=2026-01-31", 400),
        ("/studies?StudyDate=20261301", 400),
        ("/studies?StudyTime=noon", 400),
        ("/studies?StudyInstanceUID=../../etc/passwd", 400),
        ("/series?SeriesNumber=1;drop", 400),
        ("/instances?Rows=-1", 400),
        ("/studies?" + "&".join(f"PatientID={n}" for n in range(300)), 400),
        ("/studies/1.2.3", 404),
        ("/studies/..%2f..%2fetc", 404),
        ("/studies/1.2.3/series/4/instances/5/frames/1", 404),
        ("/nothing", 404),
    ],
)
def test_mistakes_have_a_status_and_a_sentence(running: Running, path: str, status: int) -> None:
    answer = running.get(path)
    assert answer.status_code == status
    assert set(answer.json()) <= {"error", "detail"}


def test_retrieve_whole_objects(running: Running) -> None:
    client, first = running.client, running.first
    study = client.retrieve_study(first.StudyInstanceUID)
    assert len(study) == len(running.paths)
    whole = client.retrieve_instance(
        first.StudyInstanceUID, first.SeriesInstanceUID, first.SOPInstanceUID
    )
    assert whole.PixelData == first.PixelData
    at = instance_of(first)
    single = running.get(at, accept="application/dicom; transfer-syntax=*")
    assert dcmread(BytesIO(single.content)) == first
    assert running.get(at, accept="image/gif").status_code == 406


def instance_of(dataset: pydicom.Dataset) -> str:
    return (
        f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}"
    )


def test_metadata_name_the_pixels_by_address(running: Running) -> None:
    client, first = running.client, running.first
    metadata = client.retrieve_series_metadata(first.StudyInstanceUID, first.SeriesInstanceUID)
    assert len(metadata) == len(running.paths)
    [one] = [m for m in metadata if m["00080018"]["Value"] == [first.SOPInstanceUID]]
    address = one["7FE00010"]["BulkDataURI"]
    assert client.retrieve_bulkdata(address) == [first.PixelData]
    del one["7FE00010"]
    again = pydicom.Dataset.from_json(json.dumps(one))
    assert again.PatientName == first.PatientName
    assert again.ImagePositionPatient == first.ImagePositionPatient
    missing = running.get(f"{instance_of(first)}/bulkdata/00091010")
    assert missing.status_code == 404


def test_frames_and_pictures(running: Running) -> None:
    client, first = running.client, running.first
    uids = first.StudyInstanceUID, first.SeriesInstanceUID, first.SOPInstanceUID
    [frame] = client.retrieve_instance_frames(*uids, [1])
    assert frame == first.PixelData
    at = instance_of(first)
    assert running.get(f"{at}/frames/2").status_code == 404
    assert running.get(f"{at}/frames/one").status_code == 400
    middle = instance_of(dcmread(running.paths[len(running.paths) // 2]))
    picture = running.get(f"{middle}/rendered", accept="image/png")
    assert picture.headers["content-type"] == "image/png"
    image = Image.open(BytesIO(picture.content))
    assert image.size == (first.Columns, first.Rows)
    assert np.asarray(image).std() > 5
    windowed = running.get(f"{at}/rendered?window=40,1&viewport=32,32", accept="image/png")
    small = Image.open(BytesIO(windowed.content))
    assert max(small.size) == 32
    assert running.get(f"{at}/rendered?window=1").status_code == 400
    thumbnail = running.get(f"{at}/thumbnail")
    assert Image.open(BytesIO(thumbnail.content)).format == "JPEG"


def test_compressed_objects_come_as_they_are_or_decompressed(running: Running) -> None:
    dataset = running.first
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.99")
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3.98", "1.2.3.97"
    running.client.store_instances([dataset])
    at = instance_of(dataset)
    whole = running.get(at, accept="application/dicom; transfer-syntax=*")
    assert dcmread(BytesIO(whole.content)).PixelData == dataset.PixelData
    plain = running.get(at, accept="application/dicom")
    decompressed = dcmread(BytesIO(plain.content))
    assert not decompressed.file_meta.TransferSyntaxUID.is_encapsulated
    assert decompressed.PixelData == running.first.PixelData
    frame = running.get(
        f"{at}/frames/1", accept='multipart/related; type="image/jls"; transfer-syntax=*'
    )
    assert b"image/jls" in frame.content[:200]
    octets = running.get(
        f"{at}/frames/1", accept='multipart/related; type="application/octet-stream"'
    )
    assert running.first.PixelData in octets.content
    mp4 = running.get(f"{at}/frames/1", accept='multipart/related; type="video/mp4"')
    assert mp4.status_code == 406


def multipart(boundary: str, *parts: bytes, closed: bool = True) -> bytes:
    body = b"".join(
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part + b"\r\n"
        for part in parts
    )
    return body + (f"--{boundary}--\r\n".encode() if closed else b"")


def post(running: Running, body: bytes, kind: str | None = None, path: str = "/studies") -> Any:
    kind = kind or 'multipart/related; type="application/dicom"; boundary=b'
    headers = {**BEARER, "Content-Type": kind}
    return httpx.post(running.url + path, content=body, headers=headers, timeout=60)


def test_each_part_has_an_outcome_of_its_own(running: Running) -> None:
    good, text = running.paths[0].read_bytes(), b"no DICOM at all" * 20
    answer = post(running, multipart("b", good, text))
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert answer.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]
    only = post(running, multipart("b", text))
    assert only.status_code == 409
    other = post(running, multipart("b", good), path="/studies/1.2.3.4")
    assert other.status_code == 409
    assert other.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ('multipart/related; type="application/dicom+json"; boundary=b', b"x", 415),
        ('multipart/related; type="application/dicom"', multipart("b", b"x"), 400),
        ("multipart/related; boundary=" + "x" * 300, multipart("b", b"x"), 400),
        ("multipart/related; boundary=other", multipart("b", b"x" * 99_999), 400),
        ("multipart/related; boundary=b", b"--b\r\n" + b"a: b\r\n" * 9999, 400),
        ("multipart/related; boundary=b", b"", 400),
        ("multipart/related; boundary=b", b"--b--\r\n", 400),
    ],
)
def test_bad_bodies(running: Running, kind: str, body: bytes, status: int) -> None:
    answer = post(running, body, kind)
    assert answer.status_code == status
    sentence = answer.json()["error"]
    assert len(sentence) > 20
    # One line in the log, and a count.
    assert f"answered {status}: {sentence[:60]}" in running.log.read_text()

    wait_for("it is counted", lambda: counted(running, status))


def counted(running: Running, status: int, said: str = "") -> bool:
    """Whether bad input that was answered so is counted, with this in its sentence."""
    with running.node.database.reading() as session:
        found = session.scalars(select(Refusal).where(Refusal.reason == f"1/0/{status}"))
        return any(one.count and said in one.sentence for one in found)


def test_a_part_that_is_cut_off_is_not_kept(running: Running) -> None:
    dataset = running.first
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4.5.6")
    out = BytesIO()
    dataset.save_as(out)
    body = multipart("b", running.paths[0].read_bytes(), out.getvalue(), closed=False)[:-500]
    answer = post(running, body)
    assert answer.status_code == 202
    wait_for("it is counted", lambda: counted(running, 202, "cut off"))
    lines = running.log.read_text().count("cut off before its closing boundary")
    # And one whose connection ends: only what was whole is there.
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f"POST /studies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: multipart/related; boundary=b\r\nContent-Length: 9999999\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
    said = "cut off before its closing boundary"
    wait_for("it is noted", lambda: running.log.read_text().count(said) > lines)
    with running.node.database.reading() as session:
        statement = select(func.count()).where(Instance.sop_instance_uid == "1.2.3.4.5.6")
        assert session.scalar(statement) == 0
    # Its line may have been the first one's, a little late.
    incoming = running.node.archive.incoming
    wait_for("nothing is left", lambda: not list(incoming.iterdir()))


def test_ten_gigabytes_are_refused_before_and_while_they_come(running: Running) -> None:
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/studies")
    for name, value in {
        **BEARER,
        "Content-Type": "multipart/related; boundary=b",
        "Content-Length": str(10 << 30),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert "GiB" in json.loads(answer.read())["error"]
    connection.close()

    def endless() -> Iterator[bytes]:
        yield b"--b\r\nContent-Type: application/dicom\r\n\r\n"
        while True:
            yield bytes(1 << 20)

    try:
        chunked = httpx.post(
            f"{running.url}/studies",
            content=endless(),
            headers={**BEARER, "Content-Type": "multipart/related; boundary=b"},
            timeout=60,
        )
        assert chunked.status_code == 413
    except httpx.TransportError:
        pass  # it was hung up on while still sending
    assert running.get("/studies").status_code == 200


def test_a_silent_client_is_let_go(running: Running) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            f"POST /studies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: multipart/related; boundary=b\r\nContent-Length: 999\r\n\r\n--b".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, "/studies", 401),
        ({"Authorization": "Bearer wrong"}, "/studies", 401),
        ({"Authorization": "Basic !!!"}, "/studies", 401),
        ({"Authorization": "Basic bG9va2VyOndyb25n"}, "/studies", 401),
        ({"Authorization": "Basic bG9va2VyOnNlY3JldA=="}, "/studies", 200),
        ({"Authorization": "Basic bG9va2VyOnNlY3JldA=="}, "/studies/1.2", 403),
    ],
)
def test_denied_by_default(
    running: Running, headers: dict[str, str], path: str, status: int
) -> None:
    answer = httpx.get(running.url + path, headers=headers, timeout=60)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_who_was_denied_is_counted(running: Running) -> None:
    httpx.get(f"{running.url}/studies", timeout=60)

    def counted() -> bool:
        with running.node.database.reading() as session:
            return bool(session.scalar(select(func.sum(Refusal.count))))

    wait_for("the refusal is counted", counted)


def workitem(study: str) -> list[dict[str, Any]]:
    item = {"0020000D": {"vr": "UI", "Value": [study]}}
    return [
        {
            "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
            "00741204": {"vr": "LO", "Value": ["Read this study"]},
            "00404021": {"vr": "SQ", "Value": [item]},
        }
    ]


def test_a_workitem_is_created_watched_and_cancelled(running: Running) -> None:
    at, study = f"{running.url}/workitems", running.first.StudyInstanceUID
    made = httpx.post(f"{at}?1.2.3.77", json=workitem(study), headers=BEARER, timeout=60)
    assert made.status_code == 201
    assert made.headers["location"] == f"{at}/1.2.3.77"
    assert (
        httpx.post(f"{at}?1.2.3.77", json=workitem(study), headers=BEARER, timeout=60).status_code
        == 409
    )
    [item] = running.get("/workitems/1.2.3.77").json()
    # No worker runs: the study has arrived, and waits.
    assert item["00741000"]["Value"] == ["SCHEDULED"]
    assert item["00741204"]["Value"] == ["Read this study"]
    claiming = {
        "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]},
        "00081195": {"vr": "UI", "Value": ["1.2.3.99"]},
    }
    claim = httpx.put(f"{at}/1.2.3.77/state", json=[claiming], headers=BEARER, timeout=60)
    assert claim.status_code == 409 and "itself" in claim.json()["error"]
    for body, words in (([], "one data set"), ([{}], "state must be"), (
        [{"00741000": claiming["00741000"]}], "Transaction UID",
    )):  # fmt: skip
        wrong = httpx.put(f"{at}/1.2.3.77/state", json=body, headers=BEARER, timeout=60)
        assert wrong.status_code == 400 and words in wrong.json()["error"]
    wrong = httpx.post(f"{at}/1.2.3.77?1.2.3.99", json=[claiming], headers=BEARER, timeout=60)
    assert wrong.status_code == 400 and "cannot set" in wrong.json()["error"]
    [found] = running.get(
        f"/workitems?StudyInstanceUID={study}&ProcedureStepState=SCHEDULED"
    ).json()
    assert found == item
    assert running.get("/workitems?ProcedureStepState=COMPLETED").json() == []
    assert len(running.get(f"/workitems?StudyInstanceUID={study},1.2.3").json()) == 1
    for asked, words in (
        ("PatientBirthDate=2026", "PatientBirthDate must be a date"),
        ("StudyInstanceUID=1.2.x", "StudyInstanceUID must be UIDs"),
    ):
        refused = running.get(f"/workitems?{asked}")
        assert refused.status_code == 400 and words in refused.text
    assert httpx.post(f"{at}/1.2.3.77/cancelrequest", headers=BEARER, timeout=60).status_code == 202
    [item] = running.get("/workitems/1.2.3.77").json()
    assert item["00741000"]["Value"] == ["CANCELED"]
    assert httpx.post(f"{at}/1.2.3.77/cancelrequest", headers=BEARER, timeout=60).status_code == 409
    assert running.get("/workitems/1.2.3.78").status_code == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"no json", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "one data set"),
        (b'{"00404021": {"Value": "x"}}', "must name one study"),
        (b'{"00080018": {"Value": ["../x"]}}', "UID is none"),
        (b'{"00741000": {"Value": ["COMPLETED"]}}', "SCHEDULED"),
        (b"{" + b" " * (1 << 19) + b"}", "at most"),
    ],
)
def test_what_is_no_workitem(running: Running, body: bytes, words: str) -> None:
    answer = httpx.post(f"{running.url}/workitems", content=body, headers=BEARER, timeout=60)
    assert answer.status_code in (400, 413)
    assert words in answer.json()["error"]


def test_by_tls_a_pinned_certificate_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "tls"
    authority = make_certificate(folder, "authority")
    make_certificate(folder, "node", by=authority)
    viewer = make_certificate(folder, "viewer")
    stranger = make_certificate(folder, "stranger", by=authority)
    expired = make_certificate(folder, "expired", by=authority, days=-1)
    node = make_node(
        tmp_path / "home",
        tls={
            "certificate": "tls/node.pem",
            "key": "tls/node.key",
            "authorities": "tls/authority.pem",
        },
        dicomweb={
            "port": 0,
            "tls": True,
            "users": [{"name": "viewer", "certificate": "tls/viewer.pem"}],
        },
    )
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workflows.dicomweb"],
            cwd=ROOT,
            env=os.environ | {"UNIBIOMED_HOME": str(node.home.root)},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for("dicomweb.json", node.home.dicomweb_json.exists)
        url = json.loads(node.home.dicomweb_json.read_text())["url"]
        assert url.startswith("https://")
        for who, status in ((viewer, 200), (stranger, 401), (None, 401)):
            context = ssl.create_default_context(cafile=str(authority.path))
            if who is not None:
                context.load_cert_chain(who.path, who.key_path)
            with httpx.Client(verify=context, timeout=60) as client:
                assert client.get(f"{url}/studies").status_code == status
        context = ssl.create_default_context(cafile=str(authority.path))
        context.load_cert_chain(expired.path, expired.key_path)
        with (
            httpx.Client(verify=context, timeout=60) as client,
            pytest.raises(httpx.TransportError),
        ):
            client.get(f"{url}/studies")
    finally:
        process.kill()
        process.wait()
        node.database.dispose()
