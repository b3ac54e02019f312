"""Every page as everybody, with jobs to show, and the sentences of what cannot be done."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydicom import Dataset
from sqlalchemy import select
from sqlalchemy.exc import DataError
from starlette.testclient import TestClient

from dashboard.rendering import MENU
from db import jobs
from db.audit import audit_page
from db.catalog import add_quarantined, forget, register
from db.jobs import JobState
from db.models import Instance
from db.models_access import Role
from db.operation import quarantine_page
from tests.dashboard.conftest import PASSWORD, Browser, csrf_of
from tests.workflows.nodes import dataset_of, encoded_job, store_source
from workflows.node import Node

ROLES = list(Role)


@pytest.fixture
def failed_job(node: Node) -> int:
    job_id = encoded_job(node, ["pacs"])
    with node.database.session() as session:
        jobs.finish(session, job_id, JobState.FAILED, "the PACS said 0122", now=node.now())
    return job_id


@pytest.fixture
def quarantined(node: Node) -> int:
    """Put a sound object into quarantine, as a former version might have."""
    dataset = dataset_of("", "1.2.9.1.1", "1.2.9", "1.2.9.1")
    path = node.archive.quarantine(_file(dataset), "could not be read", {})
    with node.database.session() as session:
        add_quarantined(
            session,
            path=node.archive.relative(path),
            reason="could not be read",
            received_at=node.now(),
        )
        return quarantine_page(session)[0][0].id


def _file(dataset: Dataset) -> bytes:
    from tests.workflows.nodes import _file as file_of

    return file_of(dataset)


@pytest.mark.parametrize("role", ROLES)
def test_each_page_of_the_menu_opens_for_those_who_may(
    browser: Browser, failed_job: int, quarantined: int, role: Role
) -> None:
    client = browser(role)
    own = [f"/jobs/{failed_job}", "/account"]
    needs_operator = [f"/quarantine/{quarantined}"] if role.may(Role.OPERATOR) else []
    for address in [entry[0] for entry in MENU if role.may(entry[2])] + own + needs_operator:
        answer = client.get(address)
        assert answer.status_code == 200, (address, answer.text[:300])
        assert "<h1>" in answer.text
    for address in [entry[0] for entry in MENU if not role.may(entry[2])]:
        assert client.get(address).status_code == 403


def post(client: TestClient, address: str, **fields: object) -> str:
    """Send a form of this session; return what the next page says."""
    answer = client.post(address, data={"csrf": csrf_of(client), **fields})
    assert answer.status_code == 303, answer.text[:400]
    said = client.cookies.get("said") or ""
    client.cookies.delete("said")
    from urllib.parse import unquote

    return unquote(said.strip('"'))


def state_of(node: Node, job_id: int) -> str:
    with node.database.reading() as session:
        job = jobs.job_as_json(session, job_id)
    assert job is not None
    return str(job["state"])


def test_the_second_of_two_who_retry_at_once_is_told(
    browser: Browser, node: Node, failed_job: int
) -> None:
    first = browser(Role.OPERATOR)
    second = browser(Role.ADMIN)
    ready = threading.Barrier(2)

    def press(client: TestClient) -> str:
        ready.wait(30)
        return post(client, "/jobs/orders", order="retry", job=failed_job)

    with ThreadPoolExecutor(2) as people:
        said = sorted(people.map(press, [first, second]))
    assert "goes on: delivering" in said[0], said
    assert "looked at at once" in said[1], said
    assert state_of(node, failed_job) == "delivering"
    assert "is cancelled" in post(second, "/jobs/orders", order="cancel", job=failed_job)
    assert "it is cancelled" in post(first, "/jobs/orders", order="cancel", job=failed_job)
    assert "Tick the jobs" in post(first, "/jobs/orders", order="cancel")


def test_failures_of_one_cause_stand_together(browser: Browser, node: Node) -> None:
    for number in range(3):
        job_id = encoded_job(node, ["pacs"], study=f"1.2.{number + 5}")
        with node.database.session() as session:
            said = f"no answer from 10.0.0.{number} for 'study {number}'"
            jobs.finish(session, job_id, JobState.FAILED, said, now=node.now())
    page = browser(Role.VIEWER).get("/failures").text
    assert page.count('<article class="card">') == 1
    assert "3 jobs" in page


def test_an_object_in_quarantine_is_taken_up_once(
    browser: Browser, node: Node, quarantined: int
) -> None:
    client = browser(Role.OPERATOR)
    assert "1.2.9.1.1" in client.get(f"/quarantine/{quarantined}").text
    address = f"/quarantine/{quarantined}/reinject"
    assert "study 1.2.9 waits" in post(client, address)
    assert "not in quarantine any more" in post(client, address)
    assert "not in quarantine any more" in post(client, f"/quarantine/{quarantined}/discard")
    headers = {"X-CSRF-Token": csrf_of(client)}
    assert client.post(f"/api{address}", headers=headers).status_code == 409
    with node.database.reading() as session:
        assert [job["state"] for job in jobs.list_jobs(session).jobs] == ["waiting"]
        told = [
            (one.action, one.outcome)
            for one in audit_page(session).records
            if one.action in ("quarantine.reinject", "quarantine.discard")
        ]
    assert told == [
        ("quarantine.reinject", "refused"),
        ("quarantine.discard", "refused"),
        ("quarantine.reinject", "refused"),
        ("quarantine.reinject", "success"),
    ]
    assert not list((node.archive.root / "quarantine").iterdir())


def test_a_job_with_results_has_its_picture_in_the_list_however_it_ended(
    browser: Browser, node: Node, failed_job: int
) -> None:
    client = browser(Role.VIEWER)
    assert f"/api/jobs/{failed_job}/picture.png" in client.get("/jobs").text
    waiting = store_source(node, study="1.2.77")
    with node.database.session() as session:
        register(session, waiting)
    page = client.get("/jobs").text
    assert page.count('<tr id="job-') == 2 and page.count("picture.png") == 1


def test_no_picture_is_asked_for_of_images_that_were_deleted(
    browser: Browser, node: Node, failed_job: int
) -> None:
    client = browser(Role.VIEWER)
    assert client.get("/studies/1").text.count("picture.png") == 1
    with node.database.session() as session:
        ids = session.scalars(select(Instance.id)).all()
        forget(session, ids, node.now())
    for address in ("/jobs", "/studies/1"):
        page = client.get(address).text
        assert "picture.png" not in page and "images deleted" in page, address


RULES = "rules:\n  - name: only CT\n    series: {modality: CT}\n"


def test_rules_are_checked_tried_saved_and_kept(browser: Browser, node: Node) -> None:
    client = browser(Role.ADMIN)
    before = node.home.rules_yaml.read_text()
    csrf = csrf_of(client)
    wrong = {"csrf": csrf, "text": "rules:\n  - nam: x\n", "before": before}
    answer = client.post("/rules", data=wrong)
    assert answer.status_code == 422
    assert "rules.yaml:2" in answer.text
    right = {"csrf": csrf, "text": RULES, "before": before, "comment": "CT alone"}
    assert client.post("/rules", data=right).status_code == 303
    assert node.home.rules_yaml.read_text() == RULES
    page = client.get("/rules").text
    assert "CT alone" in page
    assert "only CT" in page  # in force in this process, too
    late = client.post("/rules", data={**right, "text": RULES + "# again\n"})
    assert late.status_code == 409
    assert "Somebody changed the rules meanwhile" in late.text


def test_rules_are_tried_on_a_file_and_on_the_past(
    browser: Browser, node: Node, shared_data: Path
) -> None:
    client = browser(Role.OPERATOR)
    fields = {"csrf": csrf_of(client), "text": RULES}
    image = next(path for path in sorted((shared_data / "dicom").rglob("*.dcm")))
    with image.open("rb") as file:
        answer = client.post("/rules/try", data=fields, files={"file": file})
    assert answer.status_code == 200
    assert "only CT" in answer.text
    junk = client.post("/rules/try", data=fields, files={"file": ("x.dcm", b"junk" * 99)})
    assert "no DICOM file" in junk.text
    encoded_job(node, [])
    past = client.post("/rules/try", data=fields)
    assert "of 1 studies of the last 7 days" in past.text
    # The page now stands under this address: opened again, it is the editor.
    assert client.get("/rules/try").headers["location"] == "/rules"
    assert node.home.rules_yaml.read_text() != RULES


def test_a_dropped_file_of_two_gigabytes_is_refused_before_it_is_read(browser: Browser) -> None:
    client = browser(Role.OPERATOR)
    answer = client.post("/rules/try", headers={"Content-Length": str(2 * 2**30)}, content=b"x")
    assert answer.status_code == 413
    assert "larger than" in answer.text


def test_an_invited_person_comes_in_and_can_be_shut_out(browser: Browser, node: Node) -> None:
    client = browser(Role.ADMIN)
    form = {"csrf": csrf_of(client), "role": "viewer", "name": "Eve"}
    page = client.post("/people/invite", data=form).text
    link = page.partition("/invitation/")[2].partition("<")[0]
    guest = browser(None)
    guest.post(f"/invitation/{link}", data={"password": PASSWORD, "again": PASSWORD})
    assert "Eve" in guest.get("/").text
    with node.database.reading() as session:
        from db.accounts import list_users

        numbers = {user.name: user.id for user in list_users(session)}
    assert "shut out" in post(client, f"/people/{numbers['Eve']}", role="viewer")
    assert guest.get("/").status_code == 303
    assert "last administrator" in post(client, f"/people/{numbers['admin']}", role="viewer")


def test_the_audit_trail_shows_when_a_record_was_changed(browser: Browser, node: Node) -> None:
    from sqlalchemy import text

    client = browser(Role.ADMIN)
    assert "chain is whole" in post(client, "/audit/check")
    with node.database.session() as session:
        session.execute(text("UPDATE audit SET account = 'nobody' WHERE id = 1"))
    assert "Record 1 does not fit" in post(client, "/audit/check")


@pytest.mark.parametrize("address", ["/failures", "/api/failures"])
def test_a_mistake_of_the_node_itself_is_said(
    app: FastAPI, browser: Browser, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    def broken(session: object) -> None:
        raise RuntimeError("John Doe")

    cookies = browser(Role.VIEWER).cookies
    monkeypatch.setattr("dashboard.intake.causes", broken)
    monkeypatch.setattr("dashboard.api.jobs.causes", broken)
    client = TestClient(app, raise_server_exceptions=False, cookies=cookies)
    answer = client.get(address)
    assert answer.status_code == 500
    assert "log/dashboard.log has more" in answer.text
    assert "John Doe" not in answer.text
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_value_that_the_database_cannot_hold_is_refused(
    app: FastAPI, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise DataError("SELECT", {}, ValueError("John Doe"))  # as PostgreSQL does at a NUL

    client = browser(Role.VIEWER)
    monkeypatch.setattr("dashboard.jobs.list_jobs", refused)
    answer = client.get("/jobs?rule=%00")
    assert answer.status_code == 422
    assert "cannot hold" in answer.text and "John Doe" not in answer.text


def test_the_database_gone_for_a_while_is_said_and_recovers(
    browser: Browser, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = browser(Role.VIEWER)
    path = Path(str(node.database.engine.url.database))
    node.database.dispose()
    path.rename(path.with_suffix(".away"))
    path.mkdir()  # SQLite would make an empty file
    answer = client.get("/jobs")
    assert answer.status_code == 503
    assert "database does not answer" in answer.text
    assert answer.headers["refresh"] == "3"
    path.rmdir()
    path.with_suffix(".away").rename(path)
    assert client.get("/jobs").status_code == 200
