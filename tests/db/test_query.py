from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from db import catalog
from db.commitments import held_files
from db.conditions import Between, Condition, Like, OneOf
from db.models import Instance, Job, ResultRecord, ResultState, Withdrawal
from db.query import Described, describe, find
from db.query_keys import KEYS, Level
from db.registration import Arrival
from db.session import Database
from db.withdrawals import record_withdrawal
from tests.databases import START
from tests.db.arrivals import arrival
from tests.db.query_oracle import matches

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
NAMES = ["Müller^Jürgen^^^", "MULLER^Jurgen", "Doe^John", "doe^jane", "Doe^John^Q",
         "Yamada^Tarou=山田^太郎=やまだ^たろう", "O'Neil; DROP TABLE study--", "100%_[a]*?", "",
         "Łukasz^Źdźbło", "Wang^XiaoDong=王^小东"]  # fmt: skip
IDS = ["P1", "p1", "P12", "P*", "%", "_", "[P]", "..\\..", "'; --", "", "Z" * 64, "é"]
DATES = ["20240101", "20240229", "20231231", "", "19991231"]
TIMES = ["", "10", "1030", "103000", "103000.5", "235959.999999", "000000"]
IMAGE_TYPES = ["ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\SECONDARY", "ORIGINAL", ""]


def _study(number: int) -> dict[str, str]:
    return {
        "PatientID": IDS[number % len(IDS)],
        "PatientName": NAMES[number % len(NAMES)],
        "StudyDate": DATES[number % len(DATES)],
        "StudyTime": TIMES[number % len(TIMES)],
        "AccessionNumber": f"A{number % 5}",
        "StudyDescription": IDS[-1 - number % len(IDS)],
        "ReferringPhysicianName": NAMES[-1 - number % len(NAMES)],
    }


def arrivals(studies: int = 24) -> list[Arrival]:
    """Give studies of two series with two instances each."""
    made = []
    for number in range(studies):
        for series in (1, 2):
            for instance in (1, 2):
                study = f"1.2.{number}"
                made.append(
                    arrival(
                        instance,
                        study=study,
                        series=f"{study}.{series}",
                        attributes={
                            **_study(number),
                            "Modality": ("CT", "MR", "PT")[(number + series) % 3],
                            "SeriesNumber": str(series),
                            "StationName": f"S{number % 4}",
                            "InstanceNumber": str(instance),
                            "ImageType": IMAGE_TYPES[(number + instance) % len(IMAGE_TYPES)],
                        },
                    )
                )
    return made


def fill(database: Database, made: list[Arrival]) -> None:
    with database.session() as session:
        catalog.register_batch(session, made)


def add_result(database: Database, study: str, uid: str, **changes: Any) -> None:
    """Give a study's job a result."""
    with database.session() as session:
        job = session.query(Job).join(Job.study).filter_by(study_instance_uid=study).one()
        values: dict[str, Any] = {
            "job_id": job.id, "position": int(uid.rpartition(".")[2]), "kind": "segmentation",
            "sop_class_uid": SEG, "sop_instance_uid": uid, "series_instance_uid": f"{uid}.0",
            "path": f"results/{uid}.dcm", "size": 7, "sha256": "0" * 64, "created_at": START,
            "attributes": {"Modality": "SEG", "SeriesNumber": "500"},
        }  # fmt: skip
        session.add(ResultRecord(**(values | changes)))


def asked(
    database: Database, level: Level, wanted: set[str], **conditions: Condition
) -> list[Described]:
    with database.reading() as session:
        found = find(session, level, conditions)
        return describe(session, found, wanted)


def values_of(keyword: str, described: list[Described]) -> list[str]:
    return [one.attributes[keyword] for one in described]


TEXT = st.one_of(
    st.sampled_from([*IDS, *NAMES]),
    st.text(alphabet="PpZ1*?%_[]'\\^=MülerDoJhn", max_size=6),
)
DATE = st.one_of(st.just(""), st.sampled_from(DATES), st.integers(19990101, 20250101).map(str))
TIME = st.sampled_from(TIMES)


def _texts(kind: type[OneOf] | type[Like]) -> st.SearchStrategy[Condition]:
    return st.lists(TEXT, min_size=1, max_size=3).map(lambda some: kind(tuple(some)))


CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "PatientID": st.one_of(_texts(OneOf), _texts(Like)),
        "PatientName": st.one_of(_texts(OneOf), _texts(Like)),
        "ReferringPhysicianName": st.one_of(_texts(OneOf), _texts(Like)),
        "StudyDescription": _texts(Like),
        "StudyDate": st.builds(Between, DATE, DATE),
        "StudyTime": st.one_of(
            st.builds(Between, TIME, TIME),
            st.lists(TIME.filter(bool), min_size=1, max_size=2).map(lambda t: OneOf(tuple(t))),
        ),
        "Modality": st.sampled_from([OneOf(("CT",)), Like(("C*", "?T")), OneOf(("ct",))]),
        "StationName": st.sampled_from([OneOf(("S1", "S2")), Like(("S?",)), OneOf(("",))]),
        "ImageType": st.sampled_from([OneOf(("PRIMARY",)), Like(("DER*",)), OneOf(("PRIM",))]),
        "StudyInstanceUID": st.lists(st.integers(0, 30), min_size=1, max_size=4).map(
            lambda some: OneOf(tuple(f"1.2.{one}" for one in some))
        ),
    },
)


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database, arrivals())
    return database


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(conditions=CONDITIONS)
def test_each_level_finds_what_the_standard_says(
    filled: Database, conditions: dict[str, Condition]
) -> None:
    meeting = [
        one
        for one in arrivals()
        if all(
            matches(_text_of(one, keyword), KEYS[keyword].kind, condition)
            for keyword, condition in conditions.items()
        )
    ]
    for level, keyword in (("instance", "SOPInstanceUID"), ("study", "StudyInstanceUID")):
        expected = {_text_of(one, keyword) for one in meeting}
        found = values_of(keyword, asked(filled, level, {keyword}, **conditions))  # type: ignore[arg-type]
        assert len(found) == len(set(found))
        assert set(found) == expected


def _text_of(one: Arrival, keyword: str) -> str:
    uids = {
        "StudyInstanceUID": one.study_instance_uid,
        "SeriesInstanceUID": one.series_instance_uid,
        "SOPInstanceUID": one.sop_instance_uid,
    }
    return uids.get(keyword) or one.attributes.get(keyword, "")


def test_patients_are_found_once_with_counts(filled: Database) -> None:
    wanted = {"PatientID", "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedInstances",
              "NumberOfPatientRelatedSeries"}  # fmt: skip
    found = asked(filled, "patient", wanted)
    assert sorted(values_of("PatientID", found)) == sorted(IDS)
    assert {one.attributes["NumberOfPatientRelatedStudies"] for one in found} == {"2"}
    assert {one.attributes["NumberOfPatientRelatedSeries"] for one in found} == {"4"}
    assert {one.attributes["NumberOfPatientRelatedInstances"] for one in found} == {"8"}


def test_results_are_found_beside_their_sources(filled: Database) -> None:
    add_result(filled, "1.2.3", "2.25.1")
    add_result(filled, "1.2.3", "2.25.2", state=ResultState.QUARANTINED)
    add_result(filled, "1.2.3", "2.25.3", purged_at=START)
    study = OneOf(("1.2.3",))
    wanted = {"ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedInstances",
              "NumberOfStudyRelatedSeries"}  # fmt: skip
    (found,) = asked(filled, "study", wanted, StudyInstanceUID=study)
    assert found.attributes == {
        "ModalitiesInStudy": "MR\\PT\\SEG",
        "SOPClassesInStudy": f"1.2.840.10008.5.1.4.1.1.2\\{SEG}",
        "NumberOfStudyRelatedInstances": "5",
        "NumberOfStudyRelatedSeries": "3",
    }
    segmentations = Like(("SE?",))
    (found,) = asked(filled, "study", {"StudyInstanceUID"}, ModalitiesInStudy=segmentations)
    assert found.attributes == {"StudyInstanceUID": "1.2.3"}
    wanted = {"SeriesInstanceUID", "Modality", "SeriesNumber", "NumberOfSeriesRelatedInstances",
              "PatientID"}  # fmt: skip
    (found,) = asked(filled, "series", wanted, Modality=segmentations)
    assert found.attributes == {
        "SeriesInstanceUID": "2.25.1.0", "Modality": "SEG", "SeriesNumber": "500",
        "NumberOfSeriesRelatedInstances": "1", "PatientID": "P*",
    }  # fmt: skip
    images = asked(filled, "instance", {"SOPInstanceUID"}, StudyInstanceUID=study)
    assert values_of("SOPInstanceUID", images)[-1] == "2.25.1"
    assert len(images) == 5
    assert (images[-1].path, images[-1].is_result) == ("results/2.25.1.dcm", True)


def test_what_was_withdrawn_is_not_found_and_does_not_come_back(filled: Database) -> None:
    add_result(filled, "1.2.3", "2.25.1")
    add_result(filled, "1.2.3", "2.25.2", kind="rejection_note", attributes={"Modality": "KO"})
    with filled.session() as session:
        job = session.query(Job).join(Job.study).filter_by(study_instance_uid="1.2.3").one()
        for words in ("on the wrong side", "asked again"):
            record_withdrawal(session, job.id, ["2.25.1"], reason="quality", words=words,
                              account="me", now=START)  # fmt: skip
    fill(filled, [arrival(1, study="1.2.3", series="2.25.1.0", sop_instance_uid="2.25.1",
                          attributes={"Modality": "SEG"})])  # fmt: skip
    wanted = {"ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedInstances",
              "NumberOfStudyRelatedSeries"}  # fmt: skip
    (found,) = asked(filled, "study", wanted, StudyInstanceUID=OneOf(("1.2.3",)))
    assert found.attributes["ModalitiesInStudy"] == "KO\\MR\\PT"
    assert found.attributes["NumberOfStudyRelatedInstances"] == "5"
    assert found.attributes["NumberOfStudyRelatedSeries"] == "3"
    for level in ("series", "instance"):
        listed = asked(filled, level, {"SeriesInstanceUID"}, StudyInstanceUID=OneOf(("1.2.3",)))
        assert "2.25.1.0" not in values_of("SeriesInstanceUID", listed)
    assert asked(filled, "study", wanted, ModalitiesInStudy=OneOf(("SEG",))) == []
    assert asked(filled, "instance", wanted, SOPInstanceUID=OneOf(("2.25.1",))) == []
    with filled.reading() as session:
        assert set(held_files(session, ["2.25.1", "2.25.2"])) == {"2.25.2"}
        assert session.get_one(Withdrawal, "2.25.1").words == "on the wrong side"


def test_a_result_that_came_back_counts_once(filled: Database) -> None:
    add_result(filled, "1.2.3", "2.25.1")
    back = arrival(1, study="1.2.3", series="2.25.1.0", sop_instance_uid="2.25.1",
                   attributes={"Modality": "SEG"})  # fmt: skip
    fill(filled, [back])
    wanted = {"NumberOfStudyRelatedInstances"}
    (found,) = asked(filled, "study", wanted, StudyInstanceUID=OneOf(("1.2.3",)))
    assert found.attributes == {"NumberOfStudyRelatedInstances": "5"}


def test_what_is_not_held_is_not_found(filled: Database) -> None:
    with filled.session() as session:
        session.execute(
            update(Instance)
            .where(Instance.sop_instance_uid.like("1.2.3.1.%"))
            .values(purged_at=START)
        )
        session.execute(
            update(Instance)
            .where(Instance.sop_instance_uid.like("1.2.3.2.%"))
            .values(conflict=True)
        )
    study = OneOf(("1.2.3",))
    for level in ("study", "series", "instance"):
        assert asked(filled, level, set(), StudyInstanceUID=study) == []
    assert len(asked(filled, "study", set())) == 23


def test_pages_cover_everything_once(filled: Database) -> None:
    for number in range(1, 4):
        add_result(filled, "1.2.3", f"2.25.{number}")
    with filled.reading() as session:
        found = find(session, "instance", {})
        assert len(found) == 99
        paths = [
            one.path
            for start in range(0, len(found), 7)
            for one in describe(session, found.page(start, 7), [])
        ]
    assert len(set(paths)) == len(paths) == 99


def test_an_unknown_keyword_is_an_error(database: Database) -> None:
    with database.reading() as session, pytest.raises(KeyError):
        find(session, "study", {"PatientComments": OneOf(("x",))})
