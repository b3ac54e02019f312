"""Names of patients are on no page until a person asks to see them, which is kept and audited."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread
from starlette.testclient import TestClient

from db.audit import audit_page
from db.catalog import add_quarantined
from db.models import Job
from db.models_access import Role
from db.operation import quarantine_page
from tests.dashboard.conftest import PASSWORD, Browser, csrf_of
from tests.workflows.nodes import encoded_job
from workflows.node import Node

NAMED = ("Mustermann", "PID-4711", "ACC-0815", "1961-02-03")


@pytest.fixture
def addresses(node: Node) -> list[str]:
    """Return the pages that speak of a patient whose job has results."""
    job_id = encoded_job(node, ["pacs"])
    with node.database.session() as session:
        study = session.get_one(Job, job_id).study
        study.patient_name, study.patient_id = "Mustermann^Erika", "PID-4711"
        study.accession_number, study.patient_birth_date = "ACC-0815", "19610203"
        number = study.id
    return ["/jobs", f"/jobs/{job_id}", "/studies", f"/studies/{number}", "/", "/failures"]


def seen(client: TestClient, addresses: list[str]) -> set[str]:
    """Return what of the patient stands anywhere in the pages, also as they refresh themselves."""
    pages = [client.get(address, headers={"X-Live": "1"}).text for address in addresses]
    pages += [client.get(address).text for address in addresses]
    return {text for text in NAMED for page in pages if text in page}


def choose(client: TestClient, shown: str) -> None:
    form = {"csrf": csrf_of(client), "shown": shown, "back": "/jobs?state=failed"}
    assert client.post("/account/patients", data=form).headers["location"] == form["back"]


def test_patients_are_hidden_until_a_person_shows_them_and_that_is_kept_and_audited(
    browser: Browser, node: Node, addresses: list[str]
) -> None:
    client, other = browser(Role.VIEWER), browser(Role.OPERATOR)
    assert seen(client, addresses) == set()
    choose(client, "yes")
    assert seen(client, addresses) == set(NAMED)
    again = browser(None)
    again.post("/login", data={"name": "viewer", "password": PASSWORD})
    assert seen(again, addresses) == set(NAMED)
    assert seen(other, addresses) == set()
    choose(client, "no")
    assert seen(again, addresses) == set()
    with node.database.reading() as session:
        records = audit_page(session).records
    kept = [(one.account, one.action) for one in records if one.action.startswith("patients.")]
    assert kept == [("viewer", "patients.hide"), ("viewer", "patients.show")]


def test_the_audit_page_hides_whom_somebody_looked_at(
    browser: Browser, addresses: list[str]
) -> None:
    client = browser(Role.ADMIN)
    client.get(addresses[1])
    assert "job.view" in client.get("/audit").text
    assert seen(client, ["/audit"]) == set()
    choose(client, "yes")
    assert seen(client, ["/audit"]) == {"PID-4711"}


def test_a_header_in_quarantine_hides_what_names_the_patient(browser: Browser, node: Node) -> None:
    from tests.workflows.nodes import _file, dataset_of

    dataset = dataset_of("", "1.2.9.1.1", "1.2.9", "1.2.9.1")
    dataset.PatientName, dataset.PatientID = "Mustermann^Erika", "PID-4711"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "ACC-0815", "Mustermann^Max"
    dataset.private_block(0x0011, "A VENDOR", create=True).add_new(1, "LO", "Mustermann")
    dataset.StudyDescription = "of the leg"
    assert dcmread(io.BytesIO(_file(dataset))).PatientID == "PID-4711"
    path = node.archive.quarantine(_file(dataset), "could not be read", {})
    with node.database.session() as session:
        add_quarantined(
            session, path=node.archive.relative(path), reason="x", received_at=node.now()
        )
        number = quarantine_page(session)[0][0].id
    client = browser(Role.OPERATOR)
    address = f"/quarantine/{number}"
    assert "of the leg" in client.get(address).text
    assert seen(client, [address]) == set()
    choose(client, "yes")
    assert seen(client, [address]) >= {"Mustermann", "PID-4711", "ACC-0815"}
