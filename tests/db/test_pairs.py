from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, select

from db import catalog, jobs
from db.jobs import JobState
from db.models import Job
from db.session import Database
from tests.databases import START, later
from tests.db.arrivals import arrival, brought_to, claimed, pair, queued_job, state_of, waiting_job

instances = st.lists(st.tuples(st.text("0123456789.", min_size=1), st.text("abcdef")), min_size=1)


@given(instances, st.randoms(use_true_random=False))
def test_the_key_knows_no_order(pairs: list[tuple[str, str]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert jobs.pairing_key("r", "d", ["b", "a"], pairs) == jobs.pairing_key(
        "r", "d", ["a", "b"], shuffled
    )


def test_the_key_knows_rule_model_targets_and_bytes() -> None:
    keys = {
        jobs.pairing_key("r", "d", None, [("1", "a")]),
        jobs.pairing_key("s", "d", None, [("1", "a")]),
        jobs.pairing_key("r", "d", None, [("1", "a")], "grounded_report"),
        jobs.pairing_key("r", "e", None, [("1", "a")]),
        jobs.pairing_key("r", "d", [], [("1", "a")]),
        jobs.pairing_key("r", "d", None, [("1", "b")]),
        jobs.pairing_key("r", "d", None, [("1", "a"), ("2", "b")]),
    }
    assert len(keys) == 7


def test_a_complete_study_becomes_one_job_per_pair(database: Database) -> None:
    job_id = waiting_job(database)
    lease = claimed(database, job_id, JobState.WAITING, later(5))
    pairs = [pair(database, job_id, rule) for rule in ("liver", "lung", "spleen")]
    with database.session() as session:
        made = jobs.enqueue(session, lease, pairs, later(6), "the sender released")
    assert made[0] == job_id
    assert len(made) == 3
    with database.reading() as session:
        assert [session.get_one(Job, one).rule for one in made] == ["liver", "lung", "spleen"]
        for one in made:
            job = jobs.job_as_json(session, one)
            assert job is not None
            assert [stage["stage"] for stage in job["stages"]] == ["received", "waiting", "queued"]
            assert job["stages"][1]["note"] == "the sender released"
            names = [source.path for source in jobs.sources_of(session, one)]
            assert len(names) == 3
        assert {due.job_id for due in jobs.due(session, later(6))} == set(made)


def test_the_source_keeps_its_order(database: Database) -> None:
    job_id = waiting_job(database)
    lease = claimed(database, job_id, JobState.WAITING)
    one = pair(database, job_id)
    turned = list(reversed(list(one.instance_ids)))
    with database.session() as session:
        jobs.enqueue(session, lease, [pair(database, job_id, instance_ids=turned)], START)
    with database.reading() as session:
        assert [source.id for source in jobs.sources_of(session, job_id)] == turned


def test_received_lasts_to_the_last_instance(database: Database) -> None:
    job_id = waiting_job(database)
    with database.session() as session:
        catalog.register(session, arrival(9, received_at=later(40)))
    lease = claimed(database, job_id, JobState.WAITING, later(60))
    with database.session() as session:
        jobs.enqueue(session, lease, [pair(database, job_id)], later(62))
    with database.reading() as session:
        job = jobs.job_as_json(session, job_id)
    assert job is not None
    assert [stage["seconds"] for stage in job["stages"]] == [40.0, 22.0, None]


def test_what_was_done_is_not_done_again(database: Database) -> None:
    first = waiting_job(database)
    again = pair(database, first)
    lease = claimed(database, first, JobState.WAITING)
    with database.session() as session:
        jobs.enqueue(session, lease, [again], START)
        catalog.register(session, arrival(9, series="1.2.3.2"))
        second = session.scalars(select(Job.id).where(Job.state == JobState.WAITING)).one()
    lease = claimed(database, second, JobState.WAITING)
    with database.session() as session:
        assert jobs.enqueue(session, lease, [again], START) == []
    with database.reading() as session:
        job = session.get_one(Job, second)
        assert job.state is JobState.SUPERSEDED
        assert "nothing new" in job.wait_reason
    assert state_of(database, first) is JobState.QUEUED


def test_only_the_new_pair_is_made_beside_the_old(database: Database) -> None:
    first = waiting_job(database)
    old = pair(database, first)
    lease = claimed(database, first, JobState.WAITING)
    with database.session() as session:
        jobs.enqueue(session, lease, [old], START)
        catalog.register(session, arrival(9))
        second = session.scalars(select(Job.id).where(Job.state == JobState.WAITING)).one()
    lease = claimed(database, second, JobState.WAITING)
    with database.session() as session:
        assert jobs.enqueue(session, lease, [old, pair(database, second)], START) == [second]


def test_a_failed_pair_may_be_made_again(database: Database) -> None:
    first = waiting_job(database)
    old = pair(database, first)
    lease = claimed(database, first, JobState.WAITING)
    with database.session() as session:
        jobs.enqueue(session, lease, [old], START)
        jobs.finish(session, first, JobState.FAILED, "no", now=START)
        catalog.register(session, arrival(9))
        second = session.scalars(select(Job.id).where(Job.state == JobState.WAITING)).one()
    lease = claimed(database, second, JobState.WAITING)
    with database.session() as session:
        assert jobs.enqueue(session, lease, [old], START) == [second]


def test_no_pair_is_a_mistake(sqlite_database: Database) -> None:
    job_id = waiting_job(sqlite_database)
    lease = claimed(sqlite_database, job_id, JobState.WAITING)
    with sqlite_database.session() as session, pytest.raises(ValueError, match="without pairs"):
        jobs.enqueue(session, lease, [], START)


def test_a_thousand_single_images_take_a_handful_of_statements(sqlite_database: Database) -> None:
    job_id = waiting_job(sqlite_database, instances=200)
    lease = claimed(sqlite_database, job_id, JobState.WAITING)
    one = pair(sqlite_database, job_id)
    pairs = [
        replace(one, key=f"{number:064x}", instance_ids=[instance])
        for number, instance in enumerate(one.instance_ids)
    ]
    statements: list[str] = []
    event.listen(
        sqlite_database.engine, "before_cursor_execute", lambda *about: statements.append(about[2])
    )
    with sqlite_database.session() as session:
        made = jobs.enqueue(session, lease, pairs, START)
        assert list(jobs.queued_priorities(session, 1).values()) == [6] * 200
    assert (len(made), made[0]) == (200, job_id)
    # Long lists of rows are sent in a few parts.
    assert len(statements) < 50
    with sqlite_database.reading() as session:
        read = [jobs.sources_of(session, number)[0].id for number in made]
    assert read == list(one.instance_ids)


@pytest.mark.parametrize("sent", [False, True])
def test_late_images_supersede_the_job_that_knows_a_part(database: Database, sent: bool) -> None:
    part = queued_job(database)
    lease = brought_to(database, part, JobState.DELIVERING if sent else JobState.INFERRING)
    with database.session() as session:
        catalog.register(session, arrival(9))
    with database.reading() as session:
        late = session.scalars(select(Job.id).where(Job.state == JobState.WAITING)).one()
    waiting = claimed(database, late, JobState.WAITING)
    whole = pair(database, late)
    with database.session() as session:
        assert jobs.enqueue(session, waiting, [whole], later(5)) == [late]
    if sent:
        assert state_of(database, part) is JobState.DELIVERING
        return
    assert state_of(database, part) is JobState.SUPERSEDED
    with pytest.raises(jobs.LostLease), database.session() as session:
        jobs.advance(session, lease, JobState.ENCODING, later(6))


def test_what_was_delivered_may_come_back_in_part_and_under_new_weights(
    database: Database,
) -> None:
    first = queued_job(database)
    lease = brought_to(database, first, JobState.CONFIRMING)
    with database.session() as session:
        jobs.finish(session, lease, JobState.DELIVERED, "proven", now=later(1))
        ids = [one.id for one in jobs.sources_of(session, first)]
        catalog.forget(session, ids, later(2))
        catalog.register_batch(session, [arrival(1), arrival(2)])
        second = session.scalars(select(Job.id).where(Job.state == JobState.WAITING)).one()
    part = pair(database, second, key="1" * 64)
    assert list(part.instance_ids) == ids[:2]
    lease = claimed(database, second, JobState.WAITING)
    with database.session() as session:
        assert jobs.enqueue(session, lease, [part], START) == []
    assert state_of(database, second) is JobState.SUPERSEDED


@pytest.mark.parametrize("new", ["image", "rule", "targets"])
def test_what_is_new_beside_the_delivered_is_interpreted(database: Database, new: str) -> None:
    first = queued_job(database)
    lease = brought_to(database, first, JobState.CONFIRMING)
    with database.session() as session:
        jobs.finish(session, lease, JobState.DELIVERED, "proven", now=later(1))
        catalog.register(session, arrival(9))
        second = session.scalars(select(Job.id).where(Job.state == JobState.WAITING)).one()
        old = [one.id for one in jobs.sources_of(session, first)]
    changes: dict[str, dict[str, Any]] = {
        "image": {},
        "rule": {"rule": "other", "instance_ids": old},
        "targets": {"targets": ["liver"], "instance_ids": old},
    }
    lease = claimed(database, second, JobState.WAITING)
    fresh = replace(pair(database, second), key="2" * 64, **changes[new])
    with database.session() as session:
        assert jobs.enqueue(session, lease, [fresh], START) == [second]
