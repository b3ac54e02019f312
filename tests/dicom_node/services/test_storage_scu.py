"""Sending to real peers, and to peers that misbehave."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import build_context, evt

from deploy.demo_pacs import free_port
from dicom_node.errors import FinalError, RetriableError
from dicom_node.services.association import Destination, Timeouts
from dicom_node.services.query_retrieve_scu import confirm
from dicom_node.services.storage_scu import StoreStatus, send, verify
from tests.dicom_node.services.conftest import (
    CT,
    PATIENT,
    NodeFactory,
    Serve,
    dcmtk,
    wait_for_port,
    write_instances,
)

FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def test_storescp_gets_the_same_bytes(tmp_path: Path, instances: list[Path]) -> None:
    port, out = free_port(), tmp_path / "out"
    out.mkdir()
    with subprocess.Popen(
        [dcmtk("storescp"), "-aet", "PACS", "+B", "-od", str(out), str(port)]
    ) as process:
        try:
            wait_for_port(port, process)
            destination = Destination("pacs", "PACS", "localhost", port, timeouts=PATIENT)
            assert verify(destination, "ME").ok
            statuses = send(instances, destination, calling_ae_title="ME")
        finally:
            process.terminate()
    assert [s.verdict for s in statuses] == ["stored"] * 3
    assert [s.path for s in statuses] == instances
    kept = {str(dcmread(p).SOPInstanceUID): p for p in out.iterdir()}
    for path in instances:
        source = path.read_bytes()
        assert source[-300:] == kept[str(dcmread(path).SOPInstanceUID)].read_bytes()[-300:]


def test_orthanc_stores_and_proves(tmp_path: Path, instances: list[Path]) -> None:
    program = next((p for p in ("/usr/sbin/Orthanc", "/usr/bin/Orthanc") if Path(p).exists()), None)
    if program is None:
        pytest.skip("needs Orthanc")
    port = free_port()
    settings = tmp_path / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "orthanc"),
                "IndexDirectory": str(tmp_path / "orthanc"),
                "DicomAet": "ORTHANC",
                "DicomPort": port,
                "HttpServerEnabled": False,
                "DicomAlwaysAllowStore": True,
                "DicomAlwaysAllowFind": True,
                "Plugins": [],
            }
        )
    )
    with subprocess.Popen(
        [program, str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for_port(port, process)
            destination = Destination("pacs", "ORTHANC", "127.0.0.1", port)
            statuses = send(instances, destination, calling_ae_title="ME")
            first = dcmread(instances[0])
            sent = {s.sop_instance_uid for s in statuses}
            proven = confirm(
                destination,
                "ME",
                first.StudyInstanceUID,
                {first.SeriesInstanceUID: {*sent, "1.2.3"}},
            )
            other = confirm(destination, "ME", "1.2.3", {first.SeriesInstanceUID: sent})
        finally:
            process.kill()
    assert proven == sent
    assert other == set()


def test_a_recode_only_where_the_peer_does_not_take_the_syntax(
    serve: Serve, instances: list[Path]
) -> None:
    received: list[tuple[str, Dataset]] = []

    def store(event: evt.Event) -> int:
        received.append((str(event.context.transfer_syntax), event.dataset))
        return 0

    destination = serve((evt.EVT_C_STORE, store), contexts=[build_context(CT, "1.2.840.10008.1.2")])
    (status, *_) = send(instances[:1], destination, calling_ae_title="ME")
    assert status.verdict == "stored"
    assert received[0][0] == "1.2.840.10008.1.2"
    assert received[0][1].PatientName == dcmread(instances[0]).PatientName


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (0x0000, "stored"),
        (0xB000, "warning"),
        (0xB007, "warning"),
        (0x0111, "warning"),
        (0xA700, "retry"),
        (0x0110, "retry"),
        (0xA900, "final"),
        (0xC123, "final"),
        (0x0122, "final"),
        (0x0124, "final"),
    ],
)
def test_statuses_and_what_they_ask_for(
    serve: Serve, instances: list[Path], code: int, verdict: str
) -> None:
    destination = serve((evt.EVT_C_STORE, lambda event: code))
    statuses = send(instances[:2], destination, calling_ae_title="ME")
    assert (statuses[0].status, statuses[0].verdict) == (code, verdict)
    assert f"{code:04X}" in statuses[0].sentence
    if not statuses[0].is_stored:
        # What depends on it is not sent.
        assert (statuses[1].status, statuses[1].verdict) == (None, "retry")
        assert instances[0].name in statuses[1].sentence


def test_unreadable_files_are_named_and_the_rest_goes(
    serve: Serve, instances: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("no DICOM")
    told: list[StoreStatus] = []
    destination = serve((evt.EVT_C_STORE, lambda event: 0))
    files = [tmp_path / "text.txt", instances[0], tmp_path / "missing.dcm", instances[1]]
    statuses = send(
        files,
        destination,
        calling_ae_title="ME",
        stop_on_failure=False,
        on_status=told.append,
    )
    assert [s.is_stored for s in statuses] == [False, True, False, True]
    assert "text.txt" in statuses[0].sentence
    assert len(told) == 4


def test_more_classes_than_one_association_holds(serve: Serve, tmp_path: Path) -> None:
    classes = [f"1.2.3.{n}" for n in range(100)]
    associations: list[object] = []
    destination = serve(
        (evt.EVT_ACCEPTED, lambda event: associations.append(event)),
        (evt.EVT_C_STORE, lambda event: 0),
        contexts=[build_context(CT)],
    )
    files = []
    for number, uid in enumerate(classes):
        folder = tmp_path / str(number)
        folder.mkdir()
        # Every other class is CT, so that each association has something to accept.
        files += write_instances(folder, 1, SOPClassUID=CT if number % 2 else uid)
        dataset = dcmread(files[-1])
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(files[-1])
    statuses = send(files, destination, calling_ae_title="ME", stop_on_failure=False)
    assert [s.is_stored for s in statuses] == [False, True] * 50
    assert "does not take" in statuses[0].sentence
    assert statuses[0].verdict == "final"


def test_nobody_listens(instances: list[Path]) -> None:
    destination = Destination("pacs", "PACS", "127.0.0.1", free_port(), timeouts=PATIENT)
    with pytest.raises(RetriableError, match="no connection"):
        send(instances, destination, calling_ae_title="ME")
    assert not verify(destination, "ME").ok


def test_a_peer_without_verification_answers_all_the_same(serve: Serve) -> None:
    answer = verify(serve(contexts=[build_context(CT)]), "ME")
    assert answer.ok
    assert "answers, but does not take Verification (C-ECHO)" in answer.sentence
    assert answer.seconds == 0.0  # no C-ECHO was measured


def test_a_peer_that_refuses_for_good(serve: Serve, instances: list[Path]) -> None:
    destination = serve(require_calling_aet=["OTHER"])
    with pytest.raises(FinalError, match="does not know our AE title ME"):
        send(instances, destination, calling_ae_title="ME")


def test_a_peer_that_takes_none_of_the_classes(serve: Serve, instances: list[Path]) -> None:
    destination = serve(contexts=[build_context("1.2.840.10008.1.1")])
    with pytest.raises(FinalError, match="takes none"):
        send(instances, destination, calling_ae_title="ME")


def test_a_peer_that_aborts_half_way(serve: Serve, instances: list[Path]) -> None:
    count: list[int] = []

    def store(event: evt.Event) -> int:
        count.append(1)
        if len(count) == 2:
            event.assoc.abort()
        return 0

    destination = serve((evt.EVT_C_STORE, store))
    told: list[StoreStatus] = []
    with pytest.raises(RetriableError, match="ended the association"):
        send(instances, destination, calling_ae_title="ME", on_status=told.append)
    assert len(told) == 1


def test_a_port_that_accepts_and_says_nothing(instances: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        destination = Destination(
            "pacs",
            "PACS",
            "127.0.0.1",
            silent.getsockname()[1],
            timeouts=Timeouts(connection=1, acse=0.5, dimse=0.5, network=0.5),
        )
        with pytest.raises(RetriableError, match="DICOM service"):
            send(instances, destination, calling_ae_title="ME")


def test_a_peer_that_never_answers_a_store(serve: Serve, instances: list[Path]) -> None:
    go = threading.Event()

    def store(event: evt.Event) -> int:
        go.wait(20)
        return 0

    answering = serve((evt.EVT_C_STORE, store))
    destination = Destination(
        "pacs", "PACS", "127.0.0.1", answering.port, timeouts=Timeouts(1, 2, 0.5, 1)
    )
    try:
        with pytest.raises(RetriableError, match=r"within 0\.5 s"):
            send(instances, destination, calling_ae_title="ME")
    finally:
        go.set()


def test_a_refused_query_does_not_pass_for_absence(serve: Serve) -> None:
    def find(event: evt.Event) -> Iterator[tuple[int, None]]:
        yield 0xA700, None

    destination = serve((evt.EVT_C_FIND, find), contexts=[build_context(FIND)])
    with pytest.raises(RetriableError, match="A700"):
        confirm(destination, "ME", "1.2", {"1.2.3": ["1.2.3.4"]})


def test_a_pacs_that_ignores_lists_of_uids_is_asked_for_the_series(serve: Serve) -> None:
    have = ["1.2.3.1", "1.2.3.2", "1.2.3.3"]

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        wanted = event.identifier.SOPInstanceUID
        for uid in have if not wanted else [u for u in have if u == wanted]:
            match = Dataset()
            match.QueryRetrieveLevel = "IMAGE"
            match.SOPInstanceUID = uid
            yield 0xFF00, match

    destination = serve((evt.EVT_C_FIND, find), contexts=[build_context(FIND)])
    found = confirm(destination, "ME", "1.2", {"1.2.3": ["1.2.3.1", "1.2.3.3", "1.2.3.9"]})
    assert found == {"1.2.3.1", "1.2.3.3"}


def test_a_pacs_without_study_root(serve: Serve) -> None:
    with pytest.raises(FinalError, match="Study Root"):
        confirm(serve(), "ME", "1.2", {"1.2.3": ["1.2.3.4"]})


def test_the_node_as_destination(start_node: NodeFactory, instances: list[Path]) -> None:
    node = start_node()
    statuses = send(instances, node.destination, calling_ae_title="SENDER")
    assert all(s.is_stored for s in statuses)
    ended = node.ended()
    assert (ended.stored, ended.ended) == (3, "released")
    with pytest.raises(FinalError, match="does not know our AE title"):
        send(instances, node.destination, calling_ae_title="STRANGER")
