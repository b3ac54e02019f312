from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from datetime import date, time
from pathlib import Path

import pydicom
import pytest
from hypothesis import example, given
from hypothesis.strategies import dates, from_regex, integers, lists, sampled_from, text, times
from pydicom import DataElement
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from dicom_node.errors import FinalError
from dicom_node.peers import Peer, Peers
from dicom_node.services.association import MOVE_CLASSES, STUDY_ROOT_FIND, Destination
from dicom_node.services.identifiers import answer_of, asked_for, retrieve_query
from dicom_node.services.key_values import problem_of
from dicom_node.services.query import (
    Exact,
    Level,
    Match,
    Matching,
    Query,
    Range,
    Wildcard,
    matching_of,
)
from dicom_node.services.query_retrieve_scp import QueryRetrieveScp
from tests.dicom_node.services.conftest import NodeFactory

STUDY_ROOT = tuple(Level)[1:]


class Studies:
    """A catalog of numbered studies; remembers what it was asked."""

    def __init__(self, count: int = 3, path: Path | None = None) -> None:
        self.asked: list[Query] = []
        self.may_find: threading.Semaphore | None = None
        self.number = count
        self._path = path

    def matched_keywords(self) -> frozenset[str]:
        return frozenset({"StudyInstanceUID", "PatientName", "StudyDate", "StudyTime"})

    def level_of(self, keyword: str) -> Level | None:
        return Level.STUDY if keyword in self.matched_keywords() else None

    def find(
        self, query: Query, wanted: Collection[str], *, start: int = 0, size: int | None = None
    ) -> Iterator[Match]:
        self.asked.append(query)
        for number in range(self.number):
            if self.may_find is not None:
                assert self.may_find.acquire(timeout=20)
            yield Match({"StudyInstanceUID": f"1.2.{number}", "PatientName": "Łoś^Ewa"}, self._path)

    def count(self, query: Query) -> int:
        return self.number


@pytest.mark.parametrize(
    ("vr", "values", "asks"),
    [
        ("PN", [""], None),
        ("PN", ["*"], None),
        ("PN", ["Doe*"], Wildcard(("Doe*",))),
        ("PN", ["Doe^John "], Exact(("Doe^John",))),
        ("UI", ["1.2", "1.3\0"], Exact(("1.2", "1.3"))),
        ("UI", ["1.*"], Exact(("1.*",))),
        ("DA", ["20240101-"], Range("20240101", "")),
        ("DA", ["2024.01.01-2024.02.01"], Range("20240101", "20240201")),
        ("DA", ["20240101"], Exact(("20240101",))),
        ("TM", ["10:30-1100"], Range("1030", "1100")),
        ("IS", ["01"], Exact(("01", "1"))),
        ("DA", ["*"], None),
        ("LO", ['""'], Exact(("",))),
        ("LO", ["a?", "b"], Wildcard(("a?", "b"))),
    ],
)
def test_what_a_value_asks_for(vr: str, values: list[str], asks: Matching | None) -> None:
    assert matching_of(vr, values) == asks


@given(
    dates(min_value=date(1000, 1, 1)),
    times(),
    integers(-(10**11), 10**11),
    lists(from_regex(r"[0-9.]{1,64}", fullmatch=True), min_size=1, max_size=5),
)
def test_what_the_standard_lets_be_asked_is_taken(
    day: date, moment: time, number: int, uids: list[str]
) -> None:
    whole, clock = f"{day:%Y%m%d}", f"{moment:%H%M%S}"
    for value in (
        whole,
        f"{whole}-",
        f"-{whole}",
        f"{whole}-{whole}",
        f"{day:%Y.%m.%d}",
        "*",
        '""',
    ):
        assert problem_of("DA", [value]) == ""
    for value in (clock, clock[:2], clock[:4], f"{clock}.12", f"{clock[:4]}-", f"{moment:%H:%M}"):
        assert problem_of("TM", [value]) == ""
    assert problem_of("IS", [str(number)]) == problem_of("DS", [str(number / 7)]) == ""
    assert problem_of("UI", uids) == ""
    assert problem_of("LO", ["' OR 1=1"]) == problem_of("PN", ["-"]) == ""


@given(sampled_from(["DA", "TM", "UI", "IS", "US", "DS", "LO"]), text() | from_regex(r"[0-9.:-]*"))
@example("DA", "9" * 64)
def test_whatever_is_asked_is_judged(vr: str, value: str) -> None:
    problem_of(vr, [value])


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        *(
            ("DA", one)
            for one in ("' OR 1=1", "20261301", "2026-01-31", "-", "2026", "２０２６0101")
        ),
        *(("TM", one) for one in ("noon", "2561", "-", "10-x", "1030.5")),
        *(("UI", one) for one in ("../etc", "1.2.*", "1" * 65, "1.2 or 1=1")),
        *(("IS", one) for one in ("1;drop", "1.5", "٣")),
        *(("US", one) for one in ("-1", "x")),
        *(("DS", one) for one in ("1,5", "e5", "nan")),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_not_quoted(vr: str, value: str) -> None:
    assert problem_of(vr, [value]).startswith("must be")
    assert value not in problem_of(vr, [value])
    if vr == "DA":
        question = identifier(StudyDate=value)
        with pytest.raises(FinalError, match="StudyDate must be a date"):
            asked_for(question, STUDY_ROOT, Studies())


def identifier(**keys: object) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        vr = dictionary_VR(tag)
        made.add(DataElement(tag, vr, value, validation_mode=IGNORE))
    return made


def test_date_and_time_are_one_moment_where_that_was_negotiated() -> None:
    question = identifier(StudyDate="20240101-20240103", StudyTime="2200-0600")
    alone = asked_for(question, STUDY_ROOT, Studies()).query
    assert alone.moment is None and alone.matching["StudyTime"] == Range("2200", "0600")
    combined = asked_for(question, STUDY_ROOT, Studies(), combined=True).query
    assert combined.moment == Range("202401012200", "202401030600")
    assert "StudyTime" not in combined.matching


def test_keys_that_are_not_supported_are_said_to_be_so() -> None:
    assert asked_for(identifier(StudyInstanceUID=""), STUDY_ROOT, Studies()).is_complete
    for more in ({"SliceThickness": "1"}, {"PatientAge": "030Y"}):
        question = identifier(StudyInstanceUID="", **more)
        assert not asked_for(question, STUDY_ROOT, Studies()).is_complete


def test_sequences_of_return_keys_are_read_from_a_file(tmp_path: Path) -> None:
    code, other = Dataset(), Dataset()
    code.CodeValue, code.CodeMeaning = "T-D3000", "Chest"
    other.CodeValue = other.CodeMeaning = ""
    stored = Dataset()
    stored.SpecificCharacterSet = "ISO_IR 100"
    stored.SOPClassUID, stored.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    stored.ProcedureCodeSequence = [code]
    stored.AdmittingDiagnosesDescription = "Zürich"
    stored.file_meta = pydicom.dataset.FileMetaDataset()
    stored.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path = tmp_path / "one.dcm"
    stored.save_as(path, enforce_file_format=True)
    wanted = Dataset()
    wanted.CodeMeaning = ""
    question = identifier(ProcedureCodeSequence=[wanted], AdmittingDiagnosesDescription="")
    catalog = Studies(path=path)
    asked = asked_for(question, STUDY_ROOT, catalog)
    (match, *_) = catalog.find(asked.query, asked.wanted)
    answer = answer_of(asked, match, "UNIBIOMED")
    (item,) = answer.ProcedureCodeSequence
    assert item.CodeMeaning == "Chest" and "CodeValue" not in item
    assert answer.AdmittingDiagnosesDescription == "Zürich"
    assert answer.SpecificCharacterSet == "ISO_IR 192"


def test_a_retrieval_needs_the_key_of_its_level() -> None:
    query = retrieve_query(identifier(StudyInstanceUID=["1.2", "1.3"]), STUDY_ROOT)
    assert query == Query(Level.IMAGE, {"StudyInstanceUID": Exact(("1.2", "1.3"))})
    bads = (
        identifier(),
        identifier(StudyInstanceUID="", PatientID="P*"),
        identifier(StudyInstanceUID=["1.2", "1.2; drop"]),
        identifier(StudyInstanceUID="1.2.*"),
        identifier(StudyInstanceUID="*"),
    )
    for bad in bads:
        with pytest.raises(FinalError):
            retrieve_query(bad, STUDY_ROOT)
    wrong = identifier(StudyInstanceUID="1.2")
    wrong.QueryRetrieveLevel = "PATIENT"
    with pytest.raises(FinalError):
        retrieve_query(wrong, STUDY_ROOT)


def test_ten_thousand_keys_cancel_and_negotiation(start_node: NodeFactory) -> None:
    catalog = Studies(count=500)
    peers = Peers([Peer("tests", "SENDER")])
    node = start_node(
        peers=peers, services=[QueryRetrieveScp(catalog, "UNIBIOMED", lambda _: None)]
    )
    caller = AE(ae_title="SENDER")
    caller.add_requested_context(STUDY_ROOT_FIND)
    wish = SOPClassExtendedNegotiation()
    wish.sop_class_uid = STUDY_ROOT_FIND
    wish.service_class_application_information = b"\1\1\1\1\1"
    association = caller.associate(
        "127.0.0.1", node.scp.port, ae_title="UNIBIOMED",
        ext_neg=[wish],
    )  # fmt: skip
    assert association.is_established
    said = association.acceptor.sop_class_extended
    assert said == {STUDY_ROOT_FIND: b"\1\1\0\0\0"}

    many = identifier(StudyInstanceUID="")
    for number in range(10_000):
        block = many.private_block(
            0x1001 + 2 * (number // 200), f"TEST {number // 200}", create=True
        )
        block.add_new(number % 200, "LO", "'; DROP TABLE study; --")
    answers = list(association.send_c_find(many, STUDY_ROOT_FIND))
    assert [status.Status for status, _ in answers] == [0xFF00] * 500 + [0]
    assert all(match is not None and len(match) < 6 for _, match in answers[:-1])

    # Never more than a hundred matches ahead of the caller, and more than it will ever wait for:
    # only the cancellation ends it, however late that comes.
    catalog.may_find = threading.Semaphore(100)
    catalog.number = 100_000
    seen = []
    for status, _ in association.send_c_find(identifier(StudyInstanceUID=""), STUDY_ROOT_FIND):
        seen.append(status.Status)
        catalog.may_find.release()
        if len(seen) == 1:
            association.send_c_cancel(1, query_model=STUDY_ROOT_FIND)
    assert seen[-1] == 0xFE00 and set(seen[:-1]) == {0xFF00}
    association.release()


# pydicom says so as well, when it decodes what no UID can be.
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("keys", "expected", "words"),
    [
        ({"StudyInstanceUID": "1.2"}, 0xA801, "no host and port"),
        ({"StudyInstanceUID": ""}, 0xA900, "no StudyInstanceUID"),
        ({"StudyInstanceUID": "1.2.x"}, 0xA900, "StudyInstanceUID must be UIDs"),
        ({"StudyInstanceUID": "*"}, 0xA900, "StudyInstanceUID must be UIDs"),
    ],
)
def test_a_retrieval_that_is_refused_says_why(
    start_node: NodeFactory, keys: dict[str, str], expected: int, words: str
) -> None:
    known = Destination("store", "STORE", "127.0.0.1", 1)
    scp = QueryRetrieveScp(
        Studies(count=1), "UNIBIOMED", lambda _: known if expected == 0xA900 else None
    )
    node = start_node(peers=Peers([Peer("tests", "SENDER")]), services=[scp])
    caller = AE(ae_title="SENDER")
    caller.add_requested_context(MOVE_CLASSES[1])
    association = caller.associate("127.0.0.1", node.scp.port, ae_title="UNIBIOMED")
    [(status, _)] = association.send_c_move(identifier(**keys), "STORE", MOVE_CLASSES[1])
    association.release()
    assert status.Status == expected
    assert words in status.ErrorComment
