from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from db import catalog, jobs
from db.jobs import JobState
from db.models import Instance, Job, JobEvent, Quarantine, Refusal, Series, Study
from db.session import Database
from tests.databases import START, later
from tests.db.arrivals import STUDY, arrival, claimed, pair, queued_job, state_of


def open_jobs(database: Database) -> list[int]:
    with database.reading() as session:
        return list(session.scalars(select(Job.id).where(Job.state == JobState.WAITING)))


def test_listeners_that_meet_in_the_same_studies_neither_cross_nor_lose_any(
    database: Database,
) -> None:
    start = threading.Barrier(3)

    def listen(name: int) -> None:
        # Each batch holds studies that are known by now and others that all make at once.
        start.wait()
        for turn in range(8):
            batch = [
                arrival(10 * turn + name, study=f"1.{number}", association=f"a{name}")
                for number in range(turn, turn + 4)
            ]
            with database.session() as session:
                catalog.register_batch(session, batch if name % 2 else batch[::-1])

    with ThreadPoolExecutor(3) as pool:
        for call in [pool.submit(listen, name) for name in range(3)]:
            call.result(60)
    with database.reading() as session:
        studies = session.scalars(select(Study)).all()
        series = session.scalars(select(Series)).all()
    assert len(studies) == len(series) == len(open_jobs(database)) == 11
    for counts in (
        [one.arrivals for one in studies],
        [one.number_of_instances for one in studies],
        [one.number_of_instances for one in series],
    ):
        assert sum(counts) == 3 * 8 * 4


def test_a_batch_makes_studies_series_instances_and_one_waiting_job_each(
    database: Database,
) -> None:
    batch = [arrival(number, study=f"1.{number % 3 + 1}") for number in range(30)]
    with database.session() as session:
        registered = catalog.register_batch(session, batch)
    assert {one.outcome for one in registered} == {"new"}
    with database.reading() as session:
        studies = session.scalars(select(Study)).all()
        assert {study.number_of_instances for study in studies} == {10}
        assert {study.arrivals for study in studies} == {10}
        assert studies[0].patient_id == "P1"
        series = session.scalars(select(Series)).all()
        assert [(one.modality, one.attributes) for one in series] == [
            ("CT", {"StationName": "CT7"})
        ] * 3
        assert len(catalog.instances_of(session, studies[0].id)) == 10
    assert len(open_jobs(database)) == 3


def test_the_same_bytes_again_change_the_clock_only(database: Database) -> None:
    with database.session() as session:
        catalog.register(session, arrival())
    [job_id] = open_jobs(database)
    with database.session() as session:
        again = catalog.register(session, arrival(received_at=later(9), association="a2"))
        assert again.outcome == "same"
        study = session.get_one(Study, again.study_id)
        assert (study.number_of_instances, study.arrivals) == (1, 2)
        assert study.last_received_at == later(9)
        assert study.first_received_at == START
    assert open_jobs(database) == [job_id]


def test_the_same_bytes_of_a_finished_study_open_no_job(database: Database) -> None:
    with database.session() as session:
        catalog.register(session, arrival())
        session.get_one(Job, 1).state = JobState.DELIVERED
    with database.session() as session:
        catalog.register(session, arrival())
    assert open_jobs(database) == []
    with database.session() as session:
        catalog.register(session, arrival(2))
    assert len(open_jobs(database)) == 1


def end_job(database: Database, job_id: int, state: JobState) -> None:
    with database.session() as session:
        session.get_one(Job, job_id).state = state


@pytest.mark.parametrize(
    "end", [JobState.FAILED, JobState.NOT_APPLICABLE, JobState.CANCELLED, JobState.SUPERSEDED]
)
def test_a_study_that_ended_without_a_result_and_is_sent_again_waits_again(
    database: Database, end: JobState
) -> None:
    with database.session() as session:
        catalog.register_batch(session, [arrival(1), arrival(2)])
    end_job(database, 1, end)
    again = [arrival(number, received_at=later(90 + number)) for number in (2, 1, 1)]
    with database.session() as session:
        registered = catalog.register_batch(session, again)
    assert {one.outcome for one in registered} == {"same"}
    [job_id] = open_jobs(database)
    with database.session() as session:
        job = session.get_one(Job, job_id)
        assert (job.received_at, job.next_attempt_at) == (later(91), later(92))
        texts = session.scalars(select(JobEvent.text).where(JobEvent.job_id == job_id)).all()
        assert texts == ["the study was sent again"]
        assert session.get_one(Study, job.study_id).number_of_instances == 2
        catalog.register_batch(session, again)
    assert open_jobs(database) == [job_id]


@pytest.mark.parametrize("standing", [JobState.DELIVERED, JobState.QUEUED, JobState.CONFIRMING])
def test_one_job_that_stands_keeps_a_study_sent_again_from_waiting(
    database: Database, standing: JobState
) -> None:
    with database.session() as session:
        catalog.register(session, arrival(1))
    end_job(database, 1, standing)
    with database.session() as session:
        catalog.register(session, arrival(2))
        catalog.register(session, arrival(1, study="1.9"))
    for job_id in open_jobs(database):
        end_job(database, job_id, JobState.FAILED)
    with database.session() as session:
        catalog.register_batch(session, [arrival(1), arrival(2), arrival(1, study="1.9")])
        other = catalog.study_by_uid(session, "1.9")
        assert other is not None
        waiting = select(Job.study_id).where(Job.state == JobState.WAITING)
        assert session.scalars(waiting).all() == [other.id]


def test_bytes_beside_that_come_again_open_no_job(database: Database) -> None:
    beside = arrival(sha256="f" * 64, beside=True, path="studies/x~ff.dcm")
    with database.session() as session:
        study_id = catalog.register_batch(session, [arrival(), beside])[0].study_id
        rows = session.scalars(select(Instance.id).where(Instance.study_id == study_id)).all()
        catalog.forget(session, rows, later(1))
    end_job(database, 1, JobState.FAILED)
    with database.session() as session:
        catalog.register(session, beside)
    assert open_jobs(database) == []


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.DELIVERED])
def test_a_purged_study_that_is_sent_again_waits_again(database: Database, end: JobState) -> None:
    job_id = queued_job(database)
    end_job(database, job_id, end)
    sent = [arrival(number, received_at=later(99)) for number in (1, 2, 3)]
    with database.session() as session:
        rows = session.scalars(select(Instance.id)).all()
        catalog.forget(session, rows, later(1))
        catalog.register_batch(session, sent)
    [again] = open_jobs(database)
    lease = claimed(database, again, JobState.WAITING, later(100))
    with database.session() as session:
        assert session.get_one(Job, again).received_at == later(99)
        made = jobs.enqueue(session, lease, [pair(database, again)], later(100))
    if end is JobState.FAILED:
        assert made == [again]
    else:
        assert made == []
        assert state_of(database, again) is JobState.SUPERSEDED
        assert state_of(database, job_id) is JobState.DELIVERED


def test_other_bytes_under_the_uid_are_flagged_and_not_read(database: Database) -> None:
    with database.session() as session:
        catalog.register(session, arrival())
        beside = arrival(sha256="f" * 64, beside=True, path="studies/x~ff.dcm")
        assert catalog.register(session, beside).outcome == "conflict"
        assert catalog.register(session, beside).outcome == "same"
        study = catalog.study_by_uid(session, STUDY)
        assert study is not None
        assert (study.number_of_instances, study.conflicts) == (1, 1)
        assert [one.conflict for one in catalog.instances_of(session, study.id)] == [False]


def test_twice_in_one_batch_counts_once(database: Database) -> None:
    with database.session() as session:
        outcomes = [one.outcome for one in catalog.register_batch(session, [arrival(), arrival()])]
        study = catalog.study_by_uid(session, STUDY)
        assert study is not None
        assert (outcomes, study.number_of_instances) == (["new", "same"], 1)


def test_a_purged_file_that_comes_again_is_kept_again(database: Database) -> None:
    with database.session() as session:
        study_id = catalog.register(session, arrival()).study_id
        [instance] = catalog.instances_of(session, study_id)
        catalog.forget(session, [instance.id], later(1))
    with database.session() as session:
        assert catalog.instances_of(session, study_id) == []
        assert catalog.known_paths(session, f"{STUDY}.1") == set()
        catalog.register(session, arrival(received_at=later(2)))
        assert len(catalog.instances_of(session, study_id)) == 1


def test_one_series_uid_under_two_studies_is_two_series(database: Database) -> None:
    with database.session() as session:
        catalog.register(session, arrival(study="1.1", series="9.9"))
        catalog.register(session, arrival(study="1.2", series="9.9"))
        assert len(session.scalars(select(Series)).all()) == 2


def test_a_study_is_released_with_its_last_association(database: Database) -> None:
    with database.session() as session:
        catalog.register_batch(session, [arrival(1), arrival(2, association="a2")])
    with database.session() as session:
        assert catalog.association_ended(session, "a1", "released", later(1)) == []
    with database.session() as session:
        assert catalog.association_ended(session, "a2", "aborted", later(2)) == [1]
        study = session.get_one(Study, 1)
        assert study.released_at == later(2)
        associations = catalog.associations_of(session, 1)
        assert [(one.association, one.outcome, one.instances) for one in associations] == [
            ("a1", "released", 1),
            ("a2", "aborted", 1),
        ]
        assert session.get_one(Job, 1).next_attempt_at == later(2)
        catalog.register(session, arrival(3, association="a3"))
    with database.reading() as session:
        assert session.get_one(Study, 1).released_at is None
    with database.session() as session:
        assert catalog.association_ended(session, "unheard of", "released", later(2)) == []


def test_what_a_dead_listener_left_open_is_closed_at_its_start(database: Database) -> None:
    with database.session() as session:
        catalog.register(session, arrival(1))
        catalog.register(session, arrival(2, study="1.9", association="b", listener="l2"))
    with database.session() as session:
        assert catalog.close_associations(session, "l1", later(5)) == [1]
        assert catalog.associations_of(session, 1)[0].outcome == "lost"
        assert catalog.associations_of(session, 2)[0].ended_at is None


def test_the_end_of_an_association_does_not_touch_a_claimed_job(database: Database) -> None:
    with database.session() as session:
        catalog.register(session, arrival())
    claimed(database, 1, JobState.WAITING)
    with database.session() as session:
        catalog.association_ended(session, "a1", "released", later(7))
    with database.reading() as session:
        assert session.get_one(Job, 1).next_attempt_at == START


def test_refusals_are_counted_per_sender(database: Database) -> None:
    for number in range(3):
        with database.session() as session:
            catalog.add_refusal(
                session,
                calling_ae_title="STRANGER",
                called_ae_title="UNIBIOMED",
                peer_host="10.0.0.9",
                reason="1/1/3",
                sentence="list it",
                now=later(number),
            )
    with database.reading() as session:
        [row] = session.scalars(select(Refusal)).all()
        assert (row.count, row.first_at, row.last_at) == (3, START, later(2))


def test_quarantine_is_noted_once_per_file(database: Database) -> None:
    for reason in ("cut off", "again"):
        with database.session() as session:
            catalog.add_quarantined(
                session,
                path="quarantine/1.dcm",
                reason=reason,
                received_at=START,
                origin={"calling_ae_title": "A", "unknown": "x"},
            )
    with database.reading() as session:
        [row] = session.scalars(select(Quarantine)).all()
        assert (row.reason, row.calling_ae_title) == ("cut off", "A")
        assert catalog.quarantined_paths(session) == {"quarantine/1.dcm"}


hostile = st.text(max_size=80) | st.sampled_from(
    ["\x00", "'; DROP TABLE study; --", "\ud800", "x" * 70_000, "\u202e%_\\"]
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.dictionaries(st.sampled_from(["PatientName", "PatientID", "Modality", "Any"]), hostile))
def test_hostile_text_is_kept_as_text(database: Database, attributes: dict[str, str]) -> None:
    with database.session() as session:
        study_id = catalog.register(
            session, arrival(attributes=attributes, calling_ae_title="\x00" * 3)
        ).study_id
        assert session.get_one(Study, study_id)


def test_other_columns_refuse_what_is_not_a_time(sqlite_database: Database) -> None:
    naive = START.replace(tzinfo=None)
    with sqlite_database.session() as session, pytest.raises(Exception, match="time zone"):
        catalog.register(session, arrival(received_at=naive))
    with sqlite_database.reading() as session:
        assert session.scalars(select(Instance)).all() == []
