"""The node as an archive: DCMTK's findscu, movescu and getscu, and Orthanc, over real series."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.dsutils import split_dataset
from sqlalchemy import select

from db.models import Job, ResultRecord, Study
from db.query_keys import MATCHED, level_of
from deploy.demo_pacs import LOOPBACK, OrthancPacs, free_port
from dicom_node.services.association import Destination
from dicom_node.services.dialling import dial
from tests.dicom_node.services.conftest import wait_for_port
from tests.e2e.peers import dcmtk, need, orthanc
from tests.listening import listening as peer_listening
from tests.orthanc import Orthanc
from tests.workflows.test_listener import listening
from tests.workflows.whole_node import make_node, take_in
from workflows.node import Node

FINDSCU, MOVESCU, GETSCU, ECHOSCU, STORESCP = (
    Path("/usr/bin", name) for name in ("findscu", "movescu", "getscu", "echoscu", "storescp")
)
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
MR = "1.2.840.10008.5.1.4.1.1.4"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
CT = "1.2.840.10008.5.1.4.1.1.2"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG_2000_CT = "CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
FIND = "1.2.840.10008.5.1.4.1.2.1.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"

pytestmark = pytest.mark.e2e


@dataclass
class Served:
    """A listening node with real series in it, and who may call it."""

    node: Node
    port: int
    target_port: int
    files: dict[str, Path]

    def study_of(self, path: Path) -> str:
        return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)

    def ask(self, *arguments: object, model: str = "-S", ok: bool = True) -> list[pydicom.Dataset]:
        """Ask by findscu; returns the answers."""
        folder = self.node.home.root / f"answers{len(list(self.node.home.root.iterdir()))}"
        folder.mkdir()
        keys = [part for one in arguments for part in ("-k", str(one))]
        done = dcmtk(FINDSCU, model, "-aet", "READER", "-aec", "UNIBIOMED", "-X", "-od", folder,
                     *keys, LOOPBACK, str(self.port))  # fmt: skip
        assert (done.returncode == 0) is ok, done.stderr + done.stdout
        return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPacs]:
    folder = tmp_path_factory.mktemp("orthanc")
    with Orthanc(folder, {"DicomModalities": {}}) as running:
        yield running


@pytest.fixture(scope="module")
def served(
    shared_data: Path, pacs: OrthancPacs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    need(FINDSCU, MOVESCU, GETSCU, ECHOSCU, STORESCP)
    folder = tmp_path_factory.mktemp("served")
    root = shared_data / "dicom"
    paths = [
        *sorted((root / "udacity" / "Study3").rglob("*.dcm")),
        root / "dcm_qa_ts" / "5.dcm",
        root / "pydicom" / "charset" / "chrKoreanMulti.dcm",
        root / "pydicom" / "SC_rgb_jpeg_gdcm.dcm",
        root / "cornerstone3D" / JPEG_2000_CT,
    ]
    target_port = free_port()
    everything = ["echo", "store", "query", "retrieve"]
    node = make_node(
        folder / "home",
        node={"host": LOOPBACK, "port": 0},
        listener={"stop_timeout_seconds": 3.0},
        peers=[
            {"name": "reader", "ae_title": "READER", "allow": everything},
            {"name": "target", "ae_title": "TARGET", "host": LOOPBACK, "port": target_port},
            {"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port,
             "allow": everything},
        ],
    )  # fmt: skip
    assert take_in(node, paths) == len(paths)
    files = {
        str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in paths
    }
    with listening(node, folder / "listener.log") as (_, port):
        yield Served(node, port, target_port, files)
    node.database.dispose()


@pytest.mark.ihe("AIR", "Image Manager / Image Archive", "RAD-14")
def test_studies_are_found_by_name_date_and_modality(served: Served) -> None:
    done = dcmtk(ECHOSCU, "-aet", "READER", "-aec", "UNIBIOMED", LOOPBACK, str(served.port))
    assert done.returncode == 0
    wanted = ["QueryRetrieveLevel=STUDY", "StudyInstanceUID", "ModalitiesInStudy",
              "NumberOfStudyRelatedInstances", "NumberOfStudyRelatedSeries",
              "StudyDate"]  # fmt: skip
    (found,) = served.ask(*wanted, "PatientName=albus^dumble*")
    paths = sorted((p for p in served.files.values() if "Study3" in str(p)), key=str)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    assert found.StudyInstanceUID == headers[0].StudyInstanceUID
    assert found.NumberOfStudyRelatedInstances == len(paths)
    assert found.NumberOfStudyRelatedSeries == len({one.SeriesInstanceUID for one in headers})
    assert found.RetrieveAETitle == "UNIBIOMED"
    day = found.StudyDate
    for more in (f"StudyDate={day}-{day}", f"StudyDate=-{day}", "ModalitiesInStudy=MR"):
        keys = [one for one in wanted if one != more.partition("=")[0]]
        uids = [one.StudyInstanceUID for one in served.ask(*keys, more)]
        assert found.StudyInstanceUID in uids
    assert served.ask(*wanted, "PatientName=albus^dumble*", f"StudyTime={'2359-'}") == []


def test_the_hierarchy_is_walked_down_with_lists_and_sequences(served: Served) -> None:
    study = served.study_of(next(p for p in served.files.values() if "Study3" in str(p)))
    series = served.ask("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study}",
                        "SeriesInstanceUID", "Modality", "SeriesDescription",
                        "NumberOfSeriesRelatedInstances")  # fmt: skip
    assert len(series) == 3
    two = "\\".join(str(one.SeriesInstanceUID) for one in series[:2])
    images = served.ask("QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study}",
                        f"SeriesInstanceUID={two}", "SOPInstanceUID", "InstanceNumber", "Rows",
                        "PixelSpacing", "ImageType")  # fmt: skip
    assert len(images) == sum(one.NumberOfSeriesRelatedInstances for one in series[:2])
    for one in images:
        stored = pydicom.dcmread(served.files[one.SOPInstanceUID], stop_before_pixels=True)
        assert (one.Rows, one.InstanceNumber) == (stored.Rows, stored.InstanceNumber)
        assert one.PixelSpacing == stored.PixelSpacing
    patients = served.ask("QueryRetrieveLevel=PATIENT", "PatientID", "PatientName",
                          "NumberOfPatientRelatedStudies", model="-P")  # fmt: skip
    assert len(patients) == len({one.PatientID for one in patients}) >= 2


def test_character_sets_in_question_and_answer(served: Served) -> None:
    path = next(path for path in served.files.values() if "Korean" in path.name)
    name = pydicom.dcmread(path).PatientName
    keys = ["QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName"]
    (found,) = served.ask(*keys, f"StudyInstanceUID={served.study_of(path)}")
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == str(name)
    asked = ["SpecificCharacterSet=ISO_IR 192", f"PatientName=*{str(name)[1]}*"]
    (again,) = served.ask(*keys[:2], *asked)
    assert again.StudyInstanceUID == found.StudyInstanceUID


def test_getscu_gets_what_it_can_take(served: Served, tmp_path: Path) -> None:
    path = next(path for path in served.files.values() if path.match("dcm_qa_ts/5.dcm"))
    done = dcmtk(GETSCU, "-S", "-aet", "READER", "-aec", "UNIBIOMED", "-od", tmp_path,
                 "-k", "QueryRetrieveLevel=STUDY", "-k",
                 f"StudyInstanceUID={served.study_of(path)}",
                 LOOPBACK, str(served.port))  # fmt: skip
    assert done.returncode == 0, done.stderr
    (got,) = tmp_path.iterdir()
    new, old = pydicom.dcmread(got), pydicom.dcmread(path)
    assert new.SOPInstanceUID == old.SOPInstanceUID
    # It proposes uncompressed syntaxes alone, and gets the same pixels in one.
    assert not new.file_meta.TransferSyntaxUID.is_compressed
    assert (new.pixel_array == old.pixel_array).all()


def test_who_takes_the_stored_syntax_gets_the_stored_bytes(served: Served) -> None:
    path = next(path for path in served.files.values() if path.match("dcm_qa_ts/5.dcm"))
    got: list[tuple[str, bytes]] = []

    def keep(event: Any) -> int:
        got.append((str(event.context.transfer_syntax), event.encoded_dataset(include_meta=False)))
        return 0

    model = "1.2.840.10008.5.1.4.1.2.2.3"
    caller = AE(ae_title="READER")
    caller.add_requested_context(model)
    for syntax in (JPEG_LOSSLESS, "1.2.840.10008.1.2.1"):
        caller.add_requested_context(MR, syntax)
    roles = [build_role(MR, scp_role=True)]
    association = caller.associate(
        LOOPBACK, served.port, ae_title="UNIBIOMED", ext_neg=roles,  # type: ignore[arg-type]
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )  # fmt: skip
    assert association.is_established
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", served.study_of(path)
    statuses = [status for status, _ in association.send_c_get(wanted, model)]
    association.release()
    assert (statuses[-1].Status, statuses[-1].NumberOfCompletedSuboperations) == (0, 1)
    _, offset = split_dataset(path)
    assert got == [(JPEG_LOSSLESS, path.read_bytes()[offset:])]


def get(
    served: Served, study: str, contexts: list[tuple[str, list[str]]], handler: Any, **more: Any
) -> list[pydicom.Dataset]:
    """Ask by C-GET with pynetdicom; returns the statuses."""
    caller = AE(ae_title="READER")
    caller.add_requested_context(GET)
    for uid, syntaxes in contexts:
        caller.add_requested_context(uid, syntaxes)
    roles = [build_role(uid, scp_role=True) for uid, _ in contexts]
    association = caller.associate(
        LOOPBACK, served.port, ae_title="UNIBIOMED", ext_neg=roles,  # type: ignore[arg-type]
        evt_handlers=[(evt.EVT_C_STORE, handler)],
    )  # fmt: skip
    assert association.is_established
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study
    statuses = []
    for status, _ in association.send_c_get(wanted, GET):
        statuses.append(status)
        if "cancel_after" in more and len(statuses) == more["cancel_after"]:
            association.send_c_cancel(1, query_model=GET)
    association.release()
    return statuses


def test_of_several_syntaxes_in_one_context_the_stored_one_is_chosen(served: Served) -> None:
    came: list[tuple[str, bytes]] = []

    def keep(event: Any) -> int:
        came.append((str(event.context.transfer_syntax), event.encoded_dataset(include_meta=False)))
        return 0

    # The one CT image is JPEG 2000; MR images lie there in two syntaxes.
    path = next(path for path in served.files.values() if path.name == JPEG_2000_CT)
    syntaxes = ["1.2.840.10008.1.2.1", JPEG_LOSSLESS, JPEG_2000]
    statuses = get(served, served.study_of(path), [(CT, syntaxes)], keep)
    assert statuses[-1].Status == 0
    _, offset = split_dataset(path)
    assert came == [(JPEG_2000, path.read_bytes()[offset:])]
    path = next(path for path in served.files.values() if path.match("dcm_qa_ts/5.dcm"))
    statuses = get(served, served.study_of(path), [(MR, [JPEG_LOSSLESS, syntaxes[0]])], keep)
    assert (statuses[-1].Status, came[-1][0]) == (0, "1.2.840.10008.1.2.1")


def test_some_sub_operations_fail_and_are_named(served: Served) -> None:
    """B000, by C-GET and by C-MOVE: counts, and the list of what failed."""
    paths = [path for path in served.files.values() if "Study3" in str(path)]
    refused: list[str] = []

    def refuse_two(event: Any) -> int:
        refused.append(str(event.request.AffectedSOPInstanceUID))
        # Two are refused, the third is stored with a warning, the others are well.
        return {1: 0xA700, 2: 0xA700, 3: 0xB000}.get(len(refused), 0)

    study = served.study_of(paths[0])
    statuses = get(served, study, [(MR, ["1.2.840.10008.1.2.1"])], refuse_two)
    last = statuses[-1]
    assert last.Status == 0xB000
    counts = (
        last.NumberOfCompletedSuboperations,
        last.NumberOfFailedSuboperations,
        last.NumberOfWarningSuboperations,
    )
    assert counts == (len(paths) - 3, 2, 1)
    refused.clear()
    target = AE(ae_title="TARGET")
    target.add_supported_context(MR)
    handlers = [(evt.EVT_C_STORE, refuse_two)]
    server = peer_listening(target, handlers, port=served.target_port)
    try:
        final, identifier = move(served, study)[-1]
    finally:
        server.shutdown()
    assert final.Status == 0xB000 and final.NumberOfFailedSuboperations == 2
    assert sorted(identifier.FailedSOPInstanceUIDList) == sorted(refused[:2])


def test_a_retrieval_is_cancelled(served: Served) -> None:
    """FE00 after the current sub-operation; the rest is not sent, and the association goes on."""
    paths = [path for path in served.files.values() if "Study3" in str(path)]
    study = served.study_of(paths[0])
    came: list[str] = []

    def keep(event: Any) -> int:
        came.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    statuses = get(served, study, [(MR, ["1.2.840.10008.1.2.1"])], keep, cancel_after=2)
    last = statuses[-1]
    assert last.Status == 0xFE00
    assert last.NumberOfCompletedSuboperations == len(came) < len(paths)
    assert last.NumberOfRemainingSuboperations == len(paths) - len(came)
    came.clear()
    cancelled = threading.Event()

    def keep_until_cancelled(event: Any) -> int:
        if len(came) == 2:  # or all might have come before the other side hears of it
            assert cancelled.wait(60)
        return keep(event)

    target = AE(ae_title="TARGET")
    target.add_supported_context(MR)
    handlers = [(evt.EVT_C_STORE, keep_until_cancelled)]
    server = peer_listening(target, handlers, port=served.target_port)
    try:
        final, _ = move(served, study, cancel_after=2, on_cancel=cancelled.set)[-1]
    finally:
        server.shutdown()
    assert final.Status == 0xFE00
    assert final.NumberOfCompletedSuboperations == len(came) < len(paths)


def move(
    served: Served, study: str, cancel_after: int = 0, on_cancel: Callable[[], None] = lambda: None
) -> list[tuple[Any, Any]]:
    """Ask by C-MOVE to TARGET with pynetdicom; returns statuses and identifiers."""
    caller = AE(ae_title="READER")
    caller.add_requested_context(MOVE)
    association = caller.associate(LOOPBACK, served.port, ae_title="UNIBIOMED")
    assert association.is_established
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study
    answers = []
    for status, identifier in association.send_c_move(wanted, "TARGET", MOVE):
        answers.append((status, identifier))
        if len(answers) == cancel_after:
            association.send_c_cancel(1, query_model=MOVE)
            on_cancel()
    association.release()
    return answers


@pytest.mark.ihe("AIR", "Image Manager / Image Archive", "RAD-16")
def test_movescu_moves_a_study_to_a_known_entity(served: Served, tmp_path: Path) -> None:
    paths = [path for path in served.files.values() if "Study3" in str(path)]
    study = served.study_of(paths[0])
    move = ["-d", "-S", "-aet", "READER", "-aec", "UNIBIOMED", "-k",
            "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]  # fmt: skip
    there = [LOOPBACK, str(served.port)]
    process = subprocess.Popen(
        [STORESCP, "-od", tmp_path, "-aet", "TARGET", str(served.target_port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(served.target_port, process)
        done = dcmtk(MOVESCU, *move, "-aem", "TARGET", *there)
        assert done.returncode == 0, done.stderr
        got = {pydicom.dcmread(one).SOPInstanceUID for one in tmp_path.iterdir()}
        assert got == {uid for uid, path in served.files.items() if path in paths}
        said = done.stderr + done.stdout
        counts = re.findall(r"Completed Suboperations\s*: (\d+)", said)
        assert counts == [str(number) for number in range(1, len(paths))] + [str(len(paths))]
    finally:
        process.kill()
        process.wait()
    assert "0xa801" in _status_of(dcmtk(MOVESCU, *move, "-aem", "NOBODY", *there))
    # It is known, but does not listen any more: nothing can be sent.
    assert "0xa702" in _status_of(dcmtk(MOVESCU, *move, "-aem", "TARGET", *there))


def _status_of(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(re.findall(r"DIMSE Status\s*: (0x\w+)", done.stderr + done.stdout))


def test_orthanc_queries_and_retrieves(served: Served, pacs: OrthancPacs) -> None:
    paths = [path for path in served.files.values() if "Study3" in str(path)]
    study = served.study_of(paths[0])
    modality = {"AET": "UNIBIOMED", "Host": LOOPBACK, "Port": served.port}
    put = urllib.request.Request(
        f"http://127.0.0.1:{pacs.http_port}/modalities/node",
        data=json.dumps(modality).encode(),
        method="PUT",
    )
    urllib.request.urlopen(put, timeout=60).read()
    question: dict[str, Any] = {"Level": "Study", "Query": {"StudyInstanceUID": study}}
    query = orthanc(pacs, "/modalities/node/query", question)["ID"]
    assert orthanc(pacs, f"/queries/{query}/answers") == ["0"]
    # By C-MOVE, from the node to Orthanc.
    orthanc(pacs, f"/queries/{query}/answers/0/retrieve", {"TargetAet": pacs.ae_title})
    found = orthanc(pacs, "/tools/find", {"Level": "Instance", "Expand": True, "Query": {
        "StudyInstanceUID": study}})  # fmt: skip
    assert {one["MainDicomTags"]["SOPInstanceUID"] for one in found} == {
        uid for uid, path in served.files.items() if path in paths
    }


@pytest.mark.ihe("AIR", "Image Manager / Image Archive", "RAD-14", "RAD-16")
def test_results_are_found_and_retrieved_like_images(served: Served, tmp_path: Path) -> None:
    path = next(path for path in served.files.values() if "Study3" in str(path))
    source = served.node.archive.write_result(1, "segmentation.dcm", _segmentation(path))
    uid = pydicom.dcmread(served.node.archive.absolute(source.path)).SOPInstanceUID
    with served.node.database.session() as session:
        study = session.scalars(
            select(Study).where(Study.study_instance_uid == served.study_of(path))
        ).one()
        job = session.scalars(select(Job).where(Job.study_id == study.id)).first()
        assert job is not None
        session.add(
            ResultRecord(
                job_id=job.id, position=1, kind="segmentation", sop_class_uid=SEG,
                sop_instance_uid=uid, series_instance_uid=f"{uid}.1", path=source.path,
                size=source.size, sha256=source.sha256, created_at=served.node.now(),
                attributes={"Modality": "SEG", "SeriesNumber": "700"},
            )
        )  # fmt: skip
    (found,) = served.ask("QueryRetrieveLevel=SERIES", "StudyInstanceUID", "SeriesInstanceUID",
                          "Modality=SEG", "SeriesNumber")  # fmt: skip
    assert (found.SeriesInstanceUID, found.SeriesNumber) == (f"{uid}.1", 700)
    done = dcmtk(GETSCU, "-S", "-aet", "READER", "-aec", "UNIBIOMED", "-od", tmp_path, "-k",
                 "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={study.study_instance_uid}",
                 "-k", f"SeriesInstanceUID={uid}.1", LOOPBACK, str(served.port))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [pydicom.dcmread(one).SOPInstanceUID for one in tmp_path.iterdir()] == [uid]


def _segmentation(path: Path) -> bytes:
    """Give a small object of the node's own in the study of an image."""
    from io import BytesIO

    image = pydicom.dcmread(path, stop_before_pixels=True)
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = SEG, pydicom.uid.generate_uid(prefix="2.25.")[:50]
    made.StudyInstanceUID, made.SeriesInstanceUID = (
        image.StudyInstanceUID,
        f"{made.SOPInstanceUID}.1",
    )
    made.Modality = "SEG"
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


HOSTILE = (
    "'; DROP TABLE study; --", "..\\..\\etc\\passwd", "%", "_", "[!-~]*", "*" * 60, "?" * 60,
    '" OR 1=1', "\x1b$B", "\u202e", "9" * 64, "-", "1-", "20200101-20190101", "*a" * 3000, "\0",
)  # fmt: skip


def wanted_as_written(keys: dict[int, bytes]) -> pydicom.Dataset:
    """Return a query whose values go out as they stand, whatever their kind allows."""
    elements = [
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) + len(value) % 2)
        + value.ljust(len(value) + len(value) % 2)
        for tag, value in sorted(keys.items())
    ]
    return read_dataset(BytesIO(b"".join(elements)), is_implicit_VR=True, is_little_endian=True)


def test_attacks_in_every_key(served: Served) -> None:
    """SQL, paths, wildcards and wrong values in each key that is matched, at its level."""
    # Not pynetdicom's own caller: in quick succession its two threads take each other's answers.
    node = Destination("node", "UNIBIOMED", LOOPBACK, served.port)
    asked = 0
    with dial(
        node, [build_context(FIND, ImplicitVRLittleEndian)], calling_ae_title="READER"
    ) as one:
        for keyword in sorted(MATCHED):
            level, tag = level_of(keyword), tag_for_keyword(keyword)
            if level is None or tag is None:
                continue
            name = {"instance": "IMAGE"}.get(level, level.upper()).encode()
            for text in HOSTILE:
                keys = {0x00080005: b"ISO_IR 192", 0x00080052: name, tag: text.encode()}
                wanted = wanted_as_written(keys)
                answers = [status for status, _ in one.send_c_find(wanted, FIND)]
                assert answers[-1].get("Status") in (0, 0xA900, 0xC000), (keyword, text, answers)
                asked += 1
    assert asked > 25 * len(HOSTILE)
    assert len(served.ask("QueryRetrieveLevel=STUDY", "StudyInstanceUID")) == 5


def test_wrong_keys(served: Served) -> None:
    refused = dcmtk(FINDSCU, "-S", "-d", "-aet", "READER", "-aec", "UNIBIOMED", "-k",
                    "QueryRetrieveLevel=PATIENT", LOOPBACK, str(served.port))  # fmt: skip
    assert "0xa900" in _status_of(refused)
    refused = dcmtk(FINDSCU, "-S", "-d", "-aet", "READER", "-aec", "UNIBIOMED", "-k",
                    "QueryRetrieveLevel=STUDY", "-k", "StudyDate=yesterday",
                    LOOPBACK, str(served.port))  # fmt: skip
    assert "0xa900" in _status_of(refused)
    assert "StudyDate must be a date" in refused.stdout + refused.stderr
