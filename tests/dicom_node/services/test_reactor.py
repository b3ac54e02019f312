"""The receive path against broken and hostile peers, and against kill -9."""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

from dicom_node.archive import Archive
from dicom_node.errors import DicomNodeError
from dicom_node.part10 import read_file_meta
from dicom_node.peers import MALFORMED, SOURCE_TRANSPORT
from dicom_node.services.association import Destination
from dicom_node.services.command_set import (
    MalformedCommandError,
    StoreCommand,
    elements_of,
    store_response,
)
from dicom_node.services.header import MalformedDataSetError, read_header
from dicom_node.services.storage_scu import StoreStatus, send, verify
from tests.dicom_node.services.conftest import PATIENT, Node, NodeFactory, write_instances

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def association_request() -> bytes:
    """Return the bytes of an A-ASSOCIATE-RQ of SENDER for CT."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "SENDER", "UNIBIOMED"
    context = build_context(CT, EXPLICIT)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    request.user_information = [length, implementation]
    return A_ASSOCIATE_RQ(request).encode()


def established(node: Node) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", node.scp.port), 10)
    connection.sendall(association_request())
    assert connection.recv(1) == b"\x02"
    (length,) = struct.unpack(">xI", connection.recv(5, socket.MSG_WAITALL))
    connection.recv(length, socket.MSG_WAITALL)
    return connection


def pdv(control: int, data: bytes, context_id: int = 1) -> bytes:
    item = struct.pack(">IBB", len(data) + 2, context_id, control) + data
    return struct.pack(">BxI", 4, len(item)) + item


def command(uid: bytes, sop_class: bytes = CT.encode() + b"\0") -> bytes:
    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    return b"".join(
        (
            element(0x0002, sop_class),
            element(0x0100, b"\1\0"),
            element(0x0110, b"\7\0"),
            element(0x0700, b"\0\0"),
            element(0x0800, b"\0\0"),
            element(0x1000, uid),
        )
    )


def assert_told_once(node: Node, log: pytest.LogCaptureFixture, said: str) -> None:
    """Assert that one refusal and one line of the log tell of the connection, in the same words."""
    refusal = node.refused.get(timeout=60)
    assert said in refusal.sentence
    assert (refusal.source, refusal.reason) == (SOURCE_TRANSPORT, MALFORMED)
    assert [one.getMessage() for one in log.records if one.levelno >= logging.WARNING] == [
        refusal.sentence
    ]


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x04\0\xff\xff\xff\xff",
        b"\x01\0\xff\xff\xff\xff",
        b"\x01\0\0\0\0\4abcd",
        b"\x09\0\0\0\0\0",
    ],
)
def test_garbage_before_an_association_harms_nobody(
    start_node: NodeFactory, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    node = start_node(acse_timeout=2.0)
    with socket.create_connection(("127.0.0.1", node.scp.port), 10) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection)[:1] in (b"", b"\x07")
    assert_told_once(node, caplog, "no DICOM message, a PDU of ")
    assert verify(node.destination, "SENDER").ok


@pytest.mark.parametrize(
    "broken",
    [
        pdv(3, command(b"1.2\0"), context_id=5),
        pdv(0, b"data without a command"),
        pdv(3, b"not a command set"),
        pdv(3, command(b"1.2\0")) + pdv(3, command(b"1.2\0")),
        pdv(3, command(b"1.2\0")) + pdv(0, b"x", context_id=3),
        b"\x04\0\0\0\0\4\0\0\xff\xff",
        b"\x04\0\x7f\xff\xff\xff",
        pdv(1, bytes(1 << 15)),
    ],
)
def test_broken_messages_are_answered_with_an_abort(
    start_node: NodeFactory, broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    node = start_node()
    with established(node) as connection:
        connection.sendall(broken)
        assert read_all(connection)[:1] == b"\x07"
    assert node.ended().ended == "aborted"
    assert_told_once(node, caplog, "SENDER at 127.0.0.1 was aborted")
    assert not list(node.archive.incoming.iterdir())
    assert verify(node.destination, "SENDER").ok


def test_fragments_of_any_size_make_one_instance(start_node: NodeFactory, tmp_path: Path) -> None:
    (path,) = write_instances(tmp_path, 1)
    with path.open("rb") as file:
        uid = read_file_meta(file, path).sop_instance_uid.encode()
        data = file.read()
    node = start_node()
    request = command(uid + b"\0" * (len(uid) % 2))
    with established(node) as connection:
        stream = b"".join(pdv(1, request[n : n + 1]) for n in range(len(request) - 1))
        stream += pdv(3, request[-1:])
        stream += b"".join(pdv(0, data[n : n + 3]) for n in range(0, len(data), 3)) + pdv(2, b"")
        for start in range(0, len(stream), 1000):
            connection.sendall(stream[start : start + 1000])
        answer = connection.recv(65536)
        assert struct.pack("<HHIH", 0, 0x0900, 2, 0) in answer
        connection.sendall(b"\x05\0\0\0\0\4\0\0\0\0")
        assert read_all(connection)[:1] == b"\x06"
    assert node.ended().ended == "released"
    assert node.archive.absolute(node.stored[0].file.path).read_bytes().endswith(data)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_hostile_bytes_neither_crash_nor_hang_nor_stay(fuzzed: Node, data: st.DataObject) -> None:
    valid = pdv(3, command(b"1.2.3\0")) + pdv(2, bytes(40)) + b"\x05\0\0\0\0\4\0\0\0\0"
    stream = bytearray(valid)
    for _ in range(data.draw(st.integers(0, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(stream)))
    with established(fuzzed) as connection:
        connection.sendall(bytes(stream[:cut]))
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)
    fuzzed.ended()
    assert not list(fuzzed.archive.incoming.iterdir())
    assert not list(fuzzed.archive.walk())


@pytest.fixture
def fuzzed(start_node: NodeFactory) -> Node:
    return start_node()


@given(
    st.binary(max_size=400),
    st.sampled_from(
        [EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
    ),
)
def test_any_bytes_are_a_header_or_malformed(data: bytes, syntax: str) -> None:
    try:
        read_header(lambda offset, count: data[offset : offset + count], len(data), syntax)
    except MalformedDataSetError as error:
        assert error.sentence


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_set_or_malformed(data: bytes) -> None:
    try:
        elements_of(data)
    except MalformedCommandError:
        return


@given(st.binary(max_size=64), st.integers(0, 0xFFFF), st.text(max_size=80), st.integers(64, 300))
def test_a_response_fits_the_peers_pdus(uid: bytes, status: int, comment: str, most: int) -> None:
    pdus = store_response(StoreCommand(7, uid, uid), 3, status, comment, most)
    message, offset = b"", 0
    while offset < len(pdus):
        kind, length, item, context, control = struct.unpack_from(">BxIIBB", pdus, offset)
        assert (kind, context, item) == (4, 3, length - 4)
        assert length <= max(most, 70)
        message += pdus[offset + 12 : offset + 6 + length]
        offset += 6 + length
    assert control == 3
    assert elements_of(message)[0x0900] == status.to_bytes(2, "little")


SERVER = """
import sys
from pathlib import Path
from threading import Event
from dicom_node.archive import Archive
from dicom_node.peers import Peer, Peers
from dicom_node.services.association import ListenerSettings
from dicom_node.services.storage_scp import StorageScp
nothing = lambda event: None
archive = Archive(Path(sys.argv[1]), reserve_bytes=0)
scp = StorageScp(ListenerSettings(host="127.0.0.1", port=0), archive,
    lambda: Peers([Peer("tests", "SENDER")]), on_stored=nothing, on_quarantined=nothing,
    on_released=nothing, on_refused=nothing)
scp.start()
print(scp.port, flush=True)
Event().wait()
"""


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    (tmp_path / "send").mkdir()
    files = write_instances(tmp_path / "send", 60, PixelData=bytes(200_000))
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "archive")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    answered: list[StoreStatus] = []

    def note(status: StoreStatus) -> None:
        answered.append(status)
        if len(answered) == 20:
            process.send_signal(signal.SIGKILL)

    destination = Destination("node", "UNIBIOMED", "127.0.0.1", port, timeouts=PATIENT)
    with pytest.raises(DicomNodeError):
        send(files, destination, calling_ae_title="SENDER", on_status=note)
    process.wait(60)
    process.stdout.close()
    archive = Archive(tmp_path / "archive", reserve_bytes=0)
    archive.sweep_incoming()
    assert not list(archive.incoming.iterdir())
    kept = {path.stem: path for path in archive.walk()}
    for status in answered:
        assert status.status == 0
        assert kept[status.sop_instance_uid].stat().st_size > 200_000
    assert len(answered) <= len(kept) <= len(answered) + 1


def test_associations_leave_no_thread_and_no_descriptor(start_node: NodeFactory) -> None:
    node = start_node()
    verify(node.destination, "SENDER")
    node.ended()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for number in range(30):
        with established(node) as connection:
            if number % 2:
                connection.sendall(pdv(3, command(b"1.2\0")))
        node.ended()

    def left() -> tuple[int, int]:
        return threading.active_count() - threads, len(os.listdir("/proc/self/fd")) - descriptors

    # An association is told as ended by its own thread, which ends a moment later.
    until = time.monotonic() + 60
    while max(left()) > 1:
        assert time.monotonic() < until, left()
        time.sleep(0.01)


def test_an_association_that_ended_holds_no_room_for_reading(start_node: NodeFactory) -> None:
    """Associations are cycles of references; ended ones wait for the collector, without a MiB."""
    node = start_node()
    connection = established(node)
    (association,) = node.scp._servers[0].running()
    assert len(association.connection._room) > 0
    connection.close()
    node.ended()
    assert len(association.connection._room) == 0
