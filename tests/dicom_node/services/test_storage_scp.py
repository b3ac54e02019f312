"""The Storage SCP: what it takes, what it refuses, and what it says."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from dicom_node.errors import RetriableError
from dicom_node.part10 import read_file_meta
from dicom_node.peers import Peer, Peers
from dicom_node.services.events import ReceivedInstance
from dicom_node.services.storage_scu import verify
from tests.dicom_node.services.conftest import Node, NodeFactory, run_dcmtk, write_instances

CT = "1.2.840.10008.5.1.4.1.1.2"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


def associate(node: Node, *contexts: Any, calling: str = "SENDER") -> Association:
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    return entity.associate(
        "127.0.0.1",
        node.scp.port,
        contexts=list(contexts) or [build_context(CT)],
        ae_title="UNIBIOMED",
    )


def data_set_of(path: Path) -> bytes:
    with path.open("rb") as file:
        read_file_meta(file, path)
        return file.read()


def test_storescu_delivers_the_bytes_as_they_are(
    start_node: NodeFactory, instances: list[Path]
) -> None:
    node = start_node()
    port = node.scp.port
    done = run_dcmtk(
        "storescu",
        "-aet",
        "SENDER",
        "-aec",
        "UNIBIOMED",
        "-xe",
        "-R",
        "localhost",
        port,
        *instances,
    )
    assert done.returncode == 0, done.stderr
    ended = node.ended()
    assert (ended.ended, ended.stored, ended.calling_ae_title) == ("released", 3, "SENDER")
    assert ended.study_instance_uids == {node.stored[0].study_instance_uid}
    for instance in node.stored:
        source = next(
            p for p in instances if dcmread(p).SOPInstanceUID == instance.sop_instance_uid
        )
        kept = data_set_of(node.archive.absolute(instance.file.path))
        assert kept == data_set_of(source)
        assert instance.file.sha256 == hashlib.sha256(kept).hexdigest()
        assert instance.attributes["Modality"] == "CT"
        assert instance.attributes["PatientName"] == str(dcmread(source).PatientName)
        assert instance.attributes["Rows"] == "8"


def test_dcmsend_and_echoscu(start_node: NodeFactory, instances: list[Path]) -> None:
    node = start_node()
    at = ("-aet", "SENDER", "-aec", "UNIBIOMED", "localhost", node.scp.port)
    assert run_dcmtk("echoscu", *at).returncode == 0
    assert node.ended().stored == 0
    done = run_dcmtk("dcmsend", *at, "+sd", instances[0].parent)
    assert done.returncode == 0, done.stderr
    assert node.ended().stored == 3


@pytest.mark.parametrize(
    ("calling", "called", "words"),
    [
        ("STRANGER", "UNIBIOMED", "Calling AE Title Not Recognized"),
        ("SENDER", "OTHER", "Called AE Title Not Recognized"),
    ],
)
def test_strangers_are_refused_with_reason_and_mend(
    start_node: NodeFactory, calling: str, called: str, words: str
) -> None:
    node = start_node()
    done = run_dcmtk("echoscu", "-aet", calling, "-aec", called, "localhost", node.scp.port)
    assert done.returncode != 0
    assert "Rejected Permanent, Source: Service User" in done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    refusal = node.refused.get(timeout=60)
    assert "node.yaml" in refusal.sentence
    assert refusal.host == "127.0.0.1"
    assert node.released.empty()


def test_one_peer_does_not_take_the_associations_of_all(start_node: NodeFactory) -> None:
    greedy = Peer("greedy", "SENDER", max_associations=1)
    node = start_node(peers=Peers([greedy, Peer("other", "OTHER")]))
    first = associate(node)
    assert first.is_established
    answer = verify(node.destination, "SENDER")
    assert "limit of associations" in answer.sentence
    refusal = node.refused.get(timeout=60)
    assert (refusal.result, refusal.source, refusal.reason) == (2, 3, 2)
    assert "max_associations of that peer" in refusal.sentence
    assert verify(node.destination, "OTHER").ok
    node.ended()
    first.release()
    node.ended()
    assert verify(node.destination, "SENDER").ok


def test_a_peer_may_call_the_node_by_its_further_names(start_node: NodeFactory) -> None:
    node = start_node(peers=Peers([Peer("tests", "SENDER")], called=["UNIBIOMED_LUNG"]))
    for called, answers in (("UNIBIOMED_LUNG", True), ("UNIBIOMED", True), ("OTHER", False)):
        assert verify(replace(node.destination, ae_title=called), "SENDER").ok is answers


def test_more_associations_than_allowed_are_refused_for_now(start_node: NodeFactory) -> None:
    node = start_node(max_associations=1)
    first = associate(node)
    assert first.is_established
    # By our own caller: pynetdicom's takes a refusal that comes fast for a failed connection.
    answer = verify(node.destination, "SENDER")
    assert "limit of associations" in answer.sentence
    refusal = node.refused.get(timeout=60)
    assert (refusal.result, refusal.source, refusal.reason) == (2, 3, 2)
    assert "max_associations" in refusal.sentence
    first.release()
    node.ended()
    assert verify(node.destination, "SENDER").ok


def test_a_peer_gets_only_the_services_it_is_listed_for(start_node: NodeFactory) -> None:
    node = start_node(peers=Peers([Peer("probe", "SENDER", allow=frozenset({"echo"}))]))
    association = associate(node, build_context(CT), build_context("1.2.840.10008.1.1"))
    assert [str(c.abstract_syntax) for c in association.accepted_contexts] == ["1.2.840.10008.1.1"]
    assert association.send_c_echo().Status == 0
    association.release()


def test_the_callers_preferred_transfer_syntax_is_kept(start_node: NodeFactory) -> None:
    node = start_node()
    preferred = ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
    association = associate(node, build_context(LABEL_MAP, preferred), build_context(CT, "1.2.3.4"))
    accepted = association.accepted_contexts
    assert [(c.abstract_syntax, c.transfer_syntax[0]) for c in accepted] == [
        (LABEL_MAP, preferred[0])
    ]
    association.release()


def send(association: Association, dataset: Dataset) -> Dataset:
    return association.send_c_store(dataset)


def test_the_same_again_and_other_bytes_under_its_uid(
    start_node: NodeFactory, instances: list[Path]
) -> None:
    node = start_node()
    association = associate(node)
    dataset = dcmread(instances[0])
    assert send(association, dataset).Status == 0
    assert send(association, dataset).Status == 0
    dataset.InstanceNumber = "99"
    assert send(association, dataset).Status == 0
    association.release()
    ended = node.ended()
    assert (ended.stored, ended.same, ended.conflicts) == (1, 1, 1)
    assert [s.file.outcome for s in node.stored] == ["new", "same", "conflict"]
    assert len(list(node.archive.walk())) == 2


def test_what_cannot_be_filed_is_put_aside_and_the_association_goes_on(
    start_node: NodeFactory, instances: list[Path]
) -> None:
    node = start_node()
    association = associate(node)
    missing = dcmread(instances[0])
    del missing.StudyInstanceUID
    hostile = dcmread(instances[1])
    hostile["SeriesInstanceUID"]._value = UID("../../etc", validation_mode=0)
    for dataset, reason in ((missing, "Study Instance UID"), (hostile, "Series Instance UID")):
        answer = send(association, dataset)
        assert answer.Status == 0xC000
        assert reason in answer.ErrorComment
    assert send(association, dcmread(instances[2])).Status == 0
    association.release()
    ended = node.ended()
    assert (ended.quarantined, ended.stored) == (2, 1)
    for event in node.quarantined:
        path = node.archive.absolute(event.path)
        assert path.exists() and path.with_suffix(".json").exists()
        assert event.status == 0xC000
    assert len(list(node.archive.walk())) == 1


def store_raw(association: Association, uid: str, data: bytes, sop_class: str = CT) -> int:
    """Send bytes as a data set, which pynetdicom would not do."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(sop_class), UID(uid)
    request.DataSet = BytesIO(data)
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        threading.Event().wait(0.001)
    context = association.accepted_contexts[0].context_id
    assert context is not None
    association.dimse.send_msg(request, context)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert isinstance(answer, C_STORE) and answer.Status is not None
    return int(answer.Status)


def test_broken_data_sets(start_node: NodeFactory, instances: list[Path]) -> None:
    node = start_node()
    association = associate(node, build_context(CT, "1.2.840.10008.1.2.1"))
    whole = data_set_of(instances[0])
    uid = dcmread(instances[0]).SOPInstanceUID
    assert store_raw(association, uid, whole[:-20]) == 0xC000
    assert store_raw(association, uid, b"this is no data set at all, sorry") == 0xC000
    assert store_raw(association, "1.2.3", whole) == 0xA900
    assert store_raw(association, uid, whole, sop_class="1.2.840.10008.5.1.4.1.1.4") == 0xA900
    assert store_raw(association, uid, whole) == 0
    association.release()
    ended = node.ended()
    assert (ended.quarantined, ended.stored) == (4, 1)
    assert "cut off" in node.quarantined[0].reason
    assert "SOPInstanceUID" in node.quarantined[2].reason


def test_under_the_watermark_the_answer_is_out_of_resources(
    start_node: NodeFactory, instances: list[Path]
) -> None:
    node = start_node(reserve_bytes=1 << 60)
    association = associate(node)
    for path in instances:
        assert send(association, dcmread(path)).Status == 0xA700
    association.release()
    assert node.ended().refused == 3
    assert not list(node.archive.incoming.iterdir())


def test_a_catalog_that_cannot_register_makes_the_sender_try_again(
    start_node: NodeFactory, instances: list[Path]
) -> None:
    calls: list[str] = []

    def register(instance: ReceivedInstance) -> None:
        calls.append(instance.file.outcome)
        if len(calls) == 1:
            raise RetriableError("the database is away")

    node = start_node(on_stored=register)
    association = associate(node)
    dataset = dcmread(instances[0])
    assert send(association, dataset).Status == 0xA700
    assert send(association, dataset).Status == 0
    association.release()
    # The file of the first try lies there; the second is told, so that it gets registered.
    assert calls == ["new", "same"]


def test_an_association_that_breaks_off_leaves_nothing_half(
    start_node: NodeFactory, tmp_path: Path
) -> None:
    node = start_node()
    (tmp_path / "large").mkdir()
    (path,) = write_instances(tmp_path / "large", 1, PixelData=bytes(4 << 20))
    association = associate(node, build_context(CT, "1.2.840.10008.1.2.1"))
    store_raw_start(association, path)
    association.abort()
    assert node.ended().ended == "aborted"
    assert not list(node.archive.incoming.iterdir())
    assert not list(node.archive.walk())


def store_raw_start(association: Association, path: Path) -> None:
    """Send the command set and one fragment of the data set, no more."""
    from io import BytesIO

    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE

    dataset = dcmread(path)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = dataset.SOPClassUID
    request.AffectedSOPInstanceUID = dataset.SOPInstanceUID
    request.DataSet = BytesIO(data_set_of(path))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    fragments = message.encode_msg(1, 16382)
    for _ in range(2):
        association.dul.send_pdu(next(fragments))


def test_stop_ends_an_idle_association_at_once(start_node: NodeFactory) -> None:
    node = start_node()
    association = associate(node)
    assert association.is_established
    node.scp.stop(10)
    assert node.ended().ended == "aborted"
    association.join(60)
    assert association.is_aborted
