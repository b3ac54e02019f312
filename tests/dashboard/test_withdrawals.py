"""Results that a person withdraws on the page, or a program by the interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.audit import audit_page
from db.models_access import Role
from db.session import Database
from tests.dashboard.conftest import Browser, csrf_of
from tests.workflows.nodes import Clock, told
from tests.workflows.test_withdrawal import encoded
from workflows.delivery import deliver_job
from workflows.node import Node

BECAUSE = "the mask lies on\nthe wrong \u202eside"


@pytest.fixture
def node(tmp_path: Path, sqlite_database: Database, clock: Clock) -> Iterator[Node]:
    """Return a node with a job whose results go nowhere."""
    node = encoded(tmp_path, [])
    yield node
    node.database.dispose()


def test_an_operator_withdraws_on_the_page(browser: Browser, node: Node) -> None:
    client = browser(Role.OPERATOR)
    form = {"csrf": csrf_of(client), "reason": "safety", "because": BECAUSE}
    assert "Withdraw the results" not in client.get("/jobs/1").text
    early = client.post("/jobs/1/withdrawal", data=form)
    assert "still%20at%20work" in early.headers["set-cookie"]
    deliver_job(node, 1)
    assert 'action="/jobs/1/withdrawal"' in client.get("/jobs/1").text
    assert (
        "Say%20why"
        in client.post("/jobs/1/withdrawal", data={**form, "because": " "}).headers["set-cookie"]
    )
    assert client.post("/jobs/1/withdrawal", data=form).status_code == 303
    results = told(node, 1)["results"]
    assert results[0]["withdrawn_because"] == "the mask lies on the wrong side"
    assert "were withdrawn" in client.get("/jobs/1").text
    with node.database.reading() as session:
        records = audit_page(session, action="results.withdraw").records
    assert [(one.outcome, one.account, one.host) for one in records] == [
        ("success", "operator", "testclient"),
        ("refused", "operator", "testclient"),
    ]


def test_a_program_withdraws(browser: Browser, node: Node) -> None:
    client = browser(Role.OPERATOR)
    client.headers["X-CSRF-Token"] = csrf_of(client)
    wish = {"reason": "quality", "because": BECAUSE}
    assert client.post("/api/jobs/1/withdrawal", json=wish).status_code == 409
    deliver_job(node, 1)
    answer = client.post("/api/jobs/1/withdrawal", json=wish)
    assert (answer.status_code, answer.json()) == (200, [])
    results = client.get("/api/jobs/1").json()["results"]
    assert {one["kind"] for one in results if one["withdrawn_at"]} == {
        "segmentation", "measurement_report", "grounded_report",
    }  # fmt: skip
    assert client.post("/api/jobs/77/withdrawal", json=wish).status_code == 404
    silent = client.post("/api/jobs/1/withdrawal", json={**wish, "because": " "})
    assert silent.status_code == 422
