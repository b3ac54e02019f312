"""Looking at a waiting study: evidence from the database, jobs into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from db import catalog
from db.jobs import JobState, claim, job_as_json
from db.models import Job, JobEvent, Series, Study
from dicom_node.objects.series import read_sources
from tests.factories import StudyIdentity, write_ct_series, write_mr_series, write_text_report
from tests.workflows.whole_node import Clock, ct_volume, make_node, states, take_in
from workflows import consider
from workflows.consider import consider_study, evidence_of
from workflows.dispatch import Dispatch
from workflows.node import Node
from workflows.sweep import sweep


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(tmp_path: Path, clock: Clock) -> Iterator[Node]:
    node = make_node(
        tmp_path / "home",
        clock,
        peers=[{"name": "slow", "ae_title": "SLOW", "quiet_seconds": 90, "allow": ["store"]}],
        jobs={"lease_seconds": 60, "attempts": 2, "resend_seconds": 30},
    )
    yield node
    node.database.dispose()


def job(node: Node, job_id: int = 1) -> Job:
    with node.database.reading() as session:
        return session.get_one(Job, job_id)


def test_each_series_that_fits_becomes_a_job_and_the_others_are_explained(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    study = StudyIdentity()
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume(), study=study))
    take_in(node, write_mr_series(tmp_path / "mr", ct_volume(), study=study, series_number=2))
    take_in(node, [write_text_report(tmp_path / "sr.dcm", study=study)])
    clock.forward(21)
    queued = consider_study(node, 1)
    assert [(one.argument, one.state, one.priority) for one in queued] == [
        (1, JobState.QUEUED, 6),
        (2, JobState.QUEUED, 6),
    ]
    assert job(node).targets == ["liver", "aorta"]
    assert job(node).description.startswith("series 1")
    with node.database.reading() as session:
        events = session.scalars(select(JobEvent.text).where(JobEvent.job_id == 1)).all()
    assert any(text.startswith("left out: 1 image: This object is") for text in events)


def test_instances_that_come_while_files_are_read_are_not_forgotten(
    node: Node, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_ct_series(tmp_path / "ct", ct_volume())
    take_in(node, paths[:5])
    clock.forward(21)
    real = read_sources

    def slow(files: Sequence[Path]) -> object:
        monkeypatch.setattr(consider, "read_sources", real)
        take_in(node, paths[5:])
        return real(files)

    monkeypatch.setattr(consider, "read_sources", slow)
    (again,) = consider_study(node, 1)
    assert again.state is JobState.WAITING
    assert "more instances came in" in job(node).wait_reason
    clock.forward(25)
    (queued,) = consider_study(node, 1)
    assert queued.state is JobState.QUEUED
    with node.database.reading() as session:
        from db.jobs import sources_of

        assert len(sources_of(session, 1)) == 8


def test_a_study_waits_for_a_model_that_is_not_there(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    card = Path(str(node.settings.model.folder)) / "card.yaml"
    card.rename(card.with_suffix(".away"))
    for _ in range(node.settings.retries.attempts + 1):
        consider_study(node, 1)
        assert job(node).state is JobState.WAITING
        assert "the model cannot be used" in job(node).wait_reason
        assert str(card) in job(node).wait_reason
        clock.forward(60)
    card.with_suffix(".away").rename(card)
    assert [one.state for one in consider_study(node, 1)] == [JobState.QUEUED]


def test_a_file_that_the_archive_lost_holds_up_no_other_series(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    study = StudyIdentity()
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume(), study=study))
    take_in(node, write_mr_series(tmp_path / "mr", ct_volume(), study=study, series_number=2))
    with node.database.reading() as session:
        lost = [
            node.archive.absolute(one.path)
            for one in catalog.instances_of(session, 1)
            if one.sop_class_uid == "1.2.840.10008.5.1.4.1.1.4"
        ]
    for path in lost:
        path.unlink()
    clock.forward(21)
    assert len(consider_study(node, 1)) == 1
    assert job(node).modality == "CT"
    with node.database.reading() as session:
        notes = session.scalars(select(JobEvent.text).where(JobEvent.job_id == 1)).all()
    assert any("missing from the archive; send them again" in note for note in notes)


def test_a_study_waits_for_an_archive_that_is_away(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    node.archive.studies.rename(tmp_path / "away")
    clock.forward(21)
    consider_study(node, 1)
    assert job(node).state is JobState.WAITING
    assert "is its disk mounted?" in job(node).wait_reason


def test_late_instances_make_a_new_job_in_place_of_the_one_that_knows_a_part(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    paths = write_ct_series(tmp_path / "ct", ct_volume())
    take_in(node, paths[:5])
    clock.forward(21)
    consider_study(node, 1)
    take_in(node, paths[5:])
    clock.forward(21)
    (queued,) = consider_study(node, 1)
    assert (queued.argument, states(node)) == (2, {1: JobState.SUPERSEDED, 2: JobState.QUEUED})


def test_evidence_names_senders_and_their_times(node: Node, clock: Clock, tmp_path: Path) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    with node.database.session() as session:
        study = session.get_one(Study, 1)
        arrival = catalog.Arrival(
            study_instance_uid=study.study_instance_uid,
            series_instance_uid="1.2.3",
            sop_instance_uid="1.2.3.4",
            sop_class_uid="1.2",
            transfer_syntax_uid="1.2",
            path="x",
            size=1,
            sha256="0" * 64,
            received_at=clock(),
            attributes={"NumberOfStudyRelatedInstances": " 12 "},
            association="a1",
            calling_ae_title="SLOW",
            peer_host="10.0.0.1",
        )
        catalog.register(session, arrival)
        catalog.association_ended(session, "a1", "aborted", clock() + timedelta(seconds=1))
    with node.database.reading() as session:
        evidence = evidence_of(session, session.get_one(Job, 1), node.settings)
    (one,) = evidence.associations
    assert (one.calling_ae_title, one.ending, one.quiet_seconds) == ("SLOW", "aborted", 90)
    assert evidence.instances == 9
    assert evidence.expected == 12


@pytest.mark.parametrize("text", ["", "many", "-3", "1e9", "9999999999", "１２x"])
def test_an_announced_number_that_is_none_is_not_believed(text: str) -> None:
    series = Series(attributes={"NumberOfStudyRelatedInstances": text})
    assert consider.expected_instances([series]) is None


class Messages:
    """Takes messages like a broker, or refuses them."""

    def __init__(self, *, away: bool = False) -> None:
        self.taken: list[Dispatch] = []
        self.away = away

    def __call__(self, dispatches: Sequence[Dispatch]) -> list[Dispatch]:
        if self.away:
            return []
        self.taken += dispatches
        return list(dispatches)


def test_the_sweep_announces_once_and_again_only_after_a_while(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    messages = Messages()
    assert sweep(node, messages) == 0
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    assert sweep(node, Messages(away=True)) == 0
    assert sweep(node, messages) == 1
    assert messages.taken == [Dispatch(1, JobState.WAITING, 1)]
    assert sweep(node, messages) == 0
    clock.forward(31)
    assert sweep(node, messages) == 1


def test_the_sweep_frees_silent_workers_jobs(node: Node, clock: Clock, tmp_path: Path) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    consider_study(node, 1)
    messages = Messages()
    for expected in (JobState.QUEUED, JobState.FAILED):
        with node.database.session() as session:
            assert claim(session, 1, "killed", JobState.QUEUED, 60, clock())
        assert sweep(node, messages) == 0
        clock.forward(61)
        sweep(node, messages)
        assert job(node).state is expected
    assert [one.state for one in messages.taken] == [JobState.QUEUED]
    assert "the worker was lost 2 times" in job(node).error


def test_a_job_that_no_worker_takes_up_says_where_to_look(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    consider_study(node, 1)
    sweep(node, Messages())
    assert job(node).wait_reason == ""
    clock.forward(130)
    sweep(node, Messages())
    assert f"{node.home.log}/worker-gpu.log" in job(node).wait_reason


@pytest.mark.parametrize("held", [False, True])
def test_a_clock_that_was_set_back_puts_nobody_to_sleep(
    node: Node, clock: Clock, tmp_path: Path, held: bool
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(3600)  # now it is an hour ahead
    with node.database.session() as session:
        catalog.association_ended(session, "", "released", clock())
        study = session.scalars(select(Study)).one()
        study.last_received_at = clock()
    consider_study(node, 1)
    assert job(node).state is JobState.WAITING
    if held:
        with node.database.session() as session:
            due = job(node).next_attempt_at + timedelta(seconds=1)
            assert claim(session, 1, "killed", JobState.WAITING, 60, due)
    clock.forward(-3600)
    messages = Messages()
    sweep(node, messages)
    clock.forward(31 if not held else 100)
    sweep(node, messages)
    assert messages.taken, "it sleeps"
    consider_study(node, 1)
    clock.forward(31)
    consider_study(node, 1)
    assert job(node).state is JobState.QUEUED


def test_an_idle_sweep_waits_for_nobody(node: Node) -> None:
    with node.database.session() as session:
        session.execute(select(Job.id))  # SQLite's only write lock is taken here
        assert sweep(node, Messages()) == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_a_study_of_two_patients_is_flagged_and_each_keeps_its_own(
    node: Node, clock: Clock, tmp_path: Path, at_once: bool
) -> None:
    study = StudyIdentity()
    other = replace(study, patient_id="PHANTOM-2")
    first = write_ct_series(tmp_path / "a", ct_volume(), study=study)
    second = write_mr_series(tmp_path / "b", ct_volume(), study=other, series_number=2)
    for paths in [[*first, *second]] if at_once else [first, second]:
        take_in(node, paths)
        clock.forward(21)
        consider_study(node, 1)
        clock.forward(21)
    assert states(node)[2] is JobState.QUEUED
    with node.database.reading() as session:
        told, considered = (job_as_json(session, one) for one in (2, 1 if at_once else 2))
    assert told is not None and considered is not None
    assert any("more than one Patient ID" in note for note in told["notes"])
    warned = [event["text"] for event in considered["events"] if event["level"] == "warning"]
    assert any("more than one Patient ID" in text for text in warned)
    assert "PHANTOM" not in f"{told['notes']} {warned}"
