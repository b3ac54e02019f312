"""What the first page says of queue, workers and GPU, and what operators order from the list."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from dashboard.app import create_app
from dashboard.overview import SILENT_AFTER, forecast
from db.figures import Hour
from db.models_access import Role
from db.models_operation import WorkerRecord
from db.session import Database
from tests.dashboard.conftest import Browser
from tests.dashboard.test_pages import post
from tests.workflows.nodes import Clock, encoded_job, make_node
from workflows.node import Node

GPU = {
    "name": "NVIDIA H100", "kind": "gpu", "utilisation": 73, "temperature": 51,
    "memory_used": 20 * 2**30, "memory_total": 80 * 2**30,
}  # fmt: skip


def test_the_queue_is_empty_at_the_rate_of_the_last_hour(clock: Clock) -> None:
    now = clock()
    hours = [Hour(now - timedelta(hours=2), 90), Hour(now - timedelta(hours=1), 3, 1)]
    assert forecast(8, hours, now).empty_at == now + timedelta(hours=2)
    assert forecast(0, hours, now).sentence == "The queue is empty."
    assert "no forecast" in forecast(8, [Hour(now)], now).sentence


def test_each_worker_has_a_tile_with_its_gpu_and_a_missing_one_is_named(
    browser: Browser, node: Node, clock: Clock
) -> None:
    client = browser(Role.VIEWER)
    with node.database.session() as session:
        session.add(
            WorkerRecord(
                name="gpu@host",
                queue="gpu",
                host="reader-3",
                processes=[7],
                model="nano 1.1",
                started_at=clock(),
                seen_at=clock(),
                memory=2**30,
                processor=88.0,
                device=GPU,
            )
        )
    page = client.get("/").text
    for words in ("reader-3", "nano 1.1", "73 % busy, 20.0 GiB of 80.0 GiB, 51 °C", ">ready<"):
        assert words in page, words
    assert "nothing is delivered" in page and "nothing is interpreted" not in page
    clock.forward(SILENT_AFTER.total_seconds() + 1)
    page = client.get("/").text
    assert "silent for" in page and "nothing is interpreted" in page


def test_ticked_jobs_are_made_urgent_together(browser: Browser, node: Node) -> None:
    made = [encoded_job(node, ["pacs"], study=f"1.2.{number}") for number in (5, 6)]
    client = browser(Role.OPERATOR)
    said = post(client, "/jobs/orders", order="urgent", job=made)
    assert said == "2 of 2 jobs: urgent."
    listed = client.get("/api/jobs").json()["jobs"]
    assert {job["priority"] for job in listed} == {3}


@pytest.mark.parametrize("address", [None, "https://ohif.example/viewer"])
def test_a_job_opens_in_ohif_where_the_site_has_one(
    tmp_path_factory: pytest.TempPathFactory, sqlite_database: Database, clock: Clock,
    address: str | None,
) -> None:  # fmt: skip
    settings = {"viewer_url": address} if address else {}
    node = make_node(tmp_path_factory.mktemp("n"), sqlite_database, clock, dashboard=settings)
    job_id = encoded_job(node, [], study="1.2.77")
    page = job_page(create_app(node), node, job_id)
    assert ("Open in OHIF" in page) is bool(address)
    assert ("https://ohif.example/viewer?StudyInstanceUIDs=1.2.77" in page) is bool(address)


def job_page(app: FastAPI, node: Node, job_id: int) -> str:
    from tests.dashboard.test_api import token_for

    client = TestClient(app, headers=token_for(node, Role.VIEWER))
    return client.get(f"/jobs/{job_id}").text
