"""Workitems follow the jobs of their study."""

from __future__ import annotations

from pathlib import Path

import pytest

from db import jobs
from db.jobs import JobState
from db.session import Database
from dicom_node.errors import FinalError
from dicom_node.services.dicomweb.worklist import (
    INPUT,
    STUDY,
    answer_of,
    sequence,
)
from dicom_node.services.dicomweb.worklist_search import conditions_of, fits
from tests.workflows.nodes import Clock, destination, encoded_job, make_node, told
from tests.workflows.pacs import Pacs
from workflows.delivery import deliver_job
from workflows.worklist import NodeWorklist


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("PatientBirthDate", "19700203", True),
        ("PatientBirthDate", "1970.02.03", True),
        ("PatientBirthDate", "19700101-19701231", True),
        ("PatientBirthDate", "-19691231", False),
        ("PatientBirthDate", "*", True),
        ("00100030", "19710203", False),
        ("00404021.0020000D", "1.2.4,1.2.3", True),
        ("StudyInstanceUID", "1.2.4", False),
        ("PatientName", "DOE*", True),
        ("99990010", "1", False),
        # Noon at +0200 is ten o'clock at Greenwich, and half past five at -0430.
        ("ScheduledProcedureStepStartDateTime", "20240601120000+0200", True),
        ("ScheduledProcedureStepStartDateTime", "20240601100000+0000", True),
        ("ScheduledProcedureStepStartDateTime", "20240601100000 0000", True),
        ("ScheduledProcedureStepStartDateTime", "2024060105-0430", True),
        ("ScheduledProcedureStepStartDateTime", "20240601120000+0100", False),
        ("ScheduledProcedureStepStartDateTime", "20240601-0500-20240601060000-0500", True),
        ("ScheduledProcedureStepStartDateTime", "20240601-0500-20240601045959-0500", False),
        ("ScheduledProcedureStepStartDateTime", "2024-2025", True),
        ("ScheduledProcedureStepStartDateTime", "-202405", False),
        ("00404005", "202406-", True),
    ],
)
def test_workitems_are_found_by_dates_and_uids_as_studies_are(
    name: str, value: str, found: bool
) -> None:
    item = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DOE^JANE"}]},
        "00100030": {"vr": "DA", "Value": ["19700203"]},
        "00404005": {"vr": "DT", "Value": ["20240601120000.00+0200"]},
        INPUT: sequence({STUDY: {"vr": "UI", "Value": ["1.2.3"]}}),
    }
    assert fits(item, conditions_of([(name, value)])) is found


@pytest.mark.parametrize(("offset", "found"), [("+0200", True), ("-0500", False)])
def test_a_date_time_without_offset_counts_in_the_zone_that_is_named(
    offset: str, found: bool
) -> None:
    item = {
        "00080201": {"vr": "SH", "Value": ["+0200"]},
        "00404005": {"vr": "DT", "Value": ["20240601120000"]},
    }
    asked = [("00404005", "20240601113000-20240601123000"), ("TimezoneOffsetFromUTC", offset)]
    assert fits(item, conditions_of(asked)) is found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientBirthDate", "1970"),
        ("00100030", "' OR 1=1"),
        ("StudyInstanceUID", "1.2.*"),
        ("InputInformationSequence.StudyInstanceUID", "1.2,x"),
        ("NoSuchKeyword", "1"),
        ("00404005", "yesterday"),
        ("00404005", "--"),
        ("00404005", "20240230"),
        ("00404005", "20240601+1500"),
        ("TimezoneOffsetFromUTC", "CEST"),
    ],
)
def test_a_workitem_is_not_looked_for_by_what_cannot_be(name: str, value: str) -> None:
    with pytest.raises(FinalError) as refused:
        conditions_of([(name, value)])
    assert value not in refused.value.sentence or value == "1"


def test_from_scheduled_to_completed_with_outputs(
    tmp_path: Path, database: Database, clock: Clock, pacs: Pacs
) -> None:
    node = make_node(tmp_path, database, clock, destinations=[destination(pacs)])
    worklist = NodeWorklist(database, clock)
    assert worklist.create("1.9", "1.2.3", {}, "tests")
    assert not worklist.create("1.9", "1.2.3", {}, "tests")
    item = worklist.get("1.9")
    assert item is not None
    assert (item.state, item.sentence) == ("SCHEDULED", "the study has not arrived")
    job_id = encoded_job(node, ["pacs"])
    item = worklist.get("1.9")
    assert item is not None and item.state == "IN PROGRESS"
    assert 50 < item.progress < 100
    deliver_job(node, job_id)
    [item] = worklist.search("1.2.3")
    assert (item.state, item.progress) == ("COMPLETED", 100.0)
    answer = answer_of(item, "http://node")
    outputs = answer["00741216"]["Value"][0]["00404033"]["Value"]
    named = {
        one["00081155"]["Value"][0] for output in outputs for one in output["00081199"]["Value"]
    }
    assert named == {line["sop_instance_uid"] for line in told(node, job_id)["results"]}
    assert outputs[0]["0040E025"]["Value"][0]["00081190"]["Value"][0].startswith(
        "http://node/studies/1.2.3/series/"
    )


def test_a_cancelled_workitem_ends_its_jobs_and_a_failed_job_its_workitem(
    tmp_path: Path, sqlite_database: Database, clock: Clock, pacs: Pacs
) -> None:
    node = make_node(tmp_path, sqlite_database, clock, destinations=[destination(pacs)])
    worklist = NodeWorklist(sqlite_database, clock)
    first = encoded_job(node, ["pacs"])
    second = encoded_job(node, ["pacs"], study="1.2.4")
    assert worklist.create("1.8", "1.2.3", {}, "tests")
    assert worklist.create("1.9", "1.2.4", {}, "tests")
    assert worklist.cancel("1.8", "not wanted any more")
    assert not worklist.cancel("1.7", "there is none")
    assert told(node, first)["state"] == "cancelled"
    with sqlite_database.session() as session:
        jobs.finish(session, second, JobState.FAILED, "the PACS refuses us", now=clock())
    states = {item.uid: (item.state, item.sentence) for item in worklist.search("")}
    assert states == {
        "1.8": ("CANCELED", "not wanted any more"),
        "1.9": ("CANCELED", "the PACS refuses us"),
    }
