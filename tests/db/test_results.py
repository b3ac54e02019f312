from __future__ import annotations

import json
from dataclasses import replace

import pytest

from db import deliveries, jobs, results
from db.jobs import JobState, Lease, LostLease
from db.models import DeliveryState, Job
from db.results import FoundFinding, WrittenResult
from db.session import Database
from tests.databases import START, later
from tests.db.arrivals import brought_to, queued_job

SEG = WrittenResult(
    kind="segmentation",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
    sop_instance_uid="2.25.1",
    series_instance_uid="2.25.10",
    path="results/1/segmentation.dcm",
    size=10,
    sha256="a" * 64,
)
SR = WrittenResult(
    kind="measurement_report",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
    sop_instance_uid="2.25.2",
    series_instance_uid="2.25.20",
    path="results/1/measurement_report.dcm",
    size=10,
    sha256="b" * 64,
    problems=[{"rule": "AIR", "severity": "error", "text": "no"}],
    quarantined=True,
)
FOUND = FoundFinding(
    target="liver",
    text="There is a liver.",
    presence="present",
    confidence=0.9,
    key_frame=4,
    measurements={"volume_cm3": 1500.0},
)


def started(database: Database) -> Lease:
    return brought_to(database, queued_job(database), JobState.ENCODING)


def test_identifiers_are_drawn_once(database: Database) -> None:
    lease = started(database)
    with database.session() as session:
        assert results.draw_identifiers(session, lease, {"uid": "2.25.1"}) == {"uid": "2.25.1"}
    with database.session() as session:
        assert results.draw_identifiers(session, lease, {"uid": "2.25.9"}) == {"uid": "2.25.1"}


def test_a_second_attempt_replaces_what_the_first_said(database: Database) -> None:
    lease = started(database)
    for findings in ([FOUND, FOUND], [FOUND]):
        with database.session() as session:
            results.record_findings(
                session,
                lease,
                findings,
                model_name="nano",
                model_version="1",
                model_digest="d" * 64,
                intensity="HU -160..240",
            )
            results.record_results(session, lease, [SEG, SR], START)
    with database.session() as session:
        results.record_measurements(session, lease, {0: {"volume_cm3": 2.0}}, {0: 1}, {0: "2.25.7"})
    with database.reading() as session:
        [finding] = results.findings_of(session, lease.job_id)
        assert (finding.measurements, finding.segment_number) == ({"volume_cm3": 2.0}, 1)
        kinds = [one.kind for one in results.results_of(session, lease.job_id)]
        assert kinds == ["segmentation", "measurement_report"]


def test_a_lost_worker_records_nothing(database: Database) -> None:
    lease = started(database)
    with database.session() as session:
        jobs.finish(session, lease.job_id, JobState.CANCELLED, "by an operator", now=START)
    with pytest.raises(LostLease), database.session() as session:
        results.record_results(session, lease, [SEG], START)
    with pytest.raises(LostLease), database.session() as session:
        results.draw_identifiers(session, lease, {})
    with database.reading() as session:
        assert results.results_of(session, lease.job_id) == []


def test_deliveries_are_planned_once_and_never_for_quarantined_objects(
    database: Database,
) -> None:
    lease = started(database)
    with database.session() as session:
        results.record_results(session, lease, [SEG, SR], START)
        deliveries.plan_deliveries(session, lease, ["pacs"])
        deliveries.plan_deliveries(session, lease, ["pacs", "research"])
    with database.session() as session:
        seg, sr = results.results_of(session, lease.job_id)
        assert [one.destination for one in seg.deliveries] == ["pacs", "research"]
        assert sr.deliveries == []


def test_a_job_tells_all_as_json(database: Database) -> None:
    lease = started(database)
    with database.session() as session:
        results.record_findings(
            session,
            lease,
            [FOUND],
            model_name="nano",
            model_version="1",
            model_digest="d" * 64,
            intensity="as is",
        )
        results.record_results(session, lease, [SEG, SR], START)
        deliveries.plan_deliveries(session, lease, ["pacs"])
        [seg, _] = results.results_of(session, lease.job_id)
        delivery = seg.deliveries[0].id
        deliveries.record_sending(
            session, lease, [delivery], DeliveryState.SENT, "stored", later(1), status=0
        )
        deliveries.record_confirmation(session, lease, [delivery], "find", "found", later(2))
    with database.reading() as session:
        told = jobs.job_as_json(session, lease.job_id)
        assert jobs.job_as_json(session, 999) is None
    assert told is not None
    assert json.loads(json.dumps(told)) == told
    assert told["state"] == "encoding"
    assert told["study_instance_uid"] == "1.2.3"
    finding = told["findings"][0]
    assert finding["text"] == "There is a liver."
    assert finding["measurements"] == {"volume_cm3": 1500.0}
    seg_line, sr_line = told["results"]
    assert seg_line["file"] == "results/1/segmentation.dcm"
    assert (seg_line["destination"], seg_line["confirmed"]) == ("pacs", True)
    assert seg_line["attempts"] == 1
    assert (sr_line["destination"], sr_line["confirmed"]) == (None, False)
    assert [stage["stage"] for stage in told["stages"]][-1] == "encoding"
    assert told["stages"][0]["started_at"] == "2026-03-01T08:00:00.000+00:00"


def test_a_run_anew_finds_what_was_sent_before(database: Database) -> None:
    first = started(database)
    with database.session() as session:
        results.record_results(session, first, [SEG, replace(SR, quarantined=False)], START)
        deliveries.plan_deliveries(session, first, ["pacs"])
    kinds = ["measurement_report", "grounded_report"]

    def before(job_id: int) -> list[str]:
        with database.reading() as session:
            return [one.sop_instance_uid for one in results.sent_before(session, job_id, kinds)]

    assert before(first.job_id) == []  # planned, not sent
    with database.session() as session:
        sent = [
            delivery.id
            for one in results.results_of(session, first.job_id)
            for delivery in one.deliveries
        ]
        deliveries.record_sending(session, first, sent, DeliveryState.SENT, "0000", START, status=0)
    assert before(first.job_id) == [SR.sop_instance_uid]  # the job itself, begun anew
    other = queued_job(database, "1.2.999")
    assert before(other) == []
    with database.session() as session:
        one, two = session.get_one(Job, first.job_id), session.get_one(Job, other)
        two.study_id, two.rule = one.study_id, one.rule
        two.series_instance_uid = one.series_instance_uid
    assert before(other) == [SR.sop_instance_uid]
    with database.session() as session:
        session.get_one(Job, other).rule = "another rule"
    assert before(other) == []
