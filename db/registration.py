"""Registering what is received: the hot path of the catalog.

A batch of instances takes a handful of statements, whatever its size. They are built once (see
`db.direct`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.orm import Session

from db.attributes import (
    INSTANCE_FIELDS,
    NAMED,
    SERIES_FIELDS,
    STUDY_FIELDS,
    name_keys,
    plain_text,
    taken,
)
from db.models import Instance, Job, JobEvent, JobStage
from db.registration_statements import Statements
from db.registration_statements import statements as registration_statements
from db.states import LIVE_STATES, JobState

_Identity = tuple[int, str, str]
_Times = dict[int, tuple[datetime, datetime]]
"""Of each study: when the first and the last of its instances arrived."""
_STANDING_STATES = sorted(LIVE_STATES | {JobState.DELIVERED})

Outcome = Literal["new", "same", "conflict"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One stored instance, as the catalog needs it.

    Attributes
    ----------
    attributes
        DICOM keyword -> text. Those that the catalog has no column for are kept with the series.
    path, size, sha256
        Of the file: relative to the archive's root; bytes; digest of the data set.
    beside
        Whether the file is kept beside another one with the same UID and other bytes.
    association
        Identifier of the association, empty for files found at start.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    sha256: str
    received_at: datetime
    beside: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)
    association: str = ""
    listener: str = ""
    calling_ae_title: str = ""
    called_ae_title: str = ""
    peer_host: str = ""


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of an arrival: its study, and whether the catalog had it before."""

    study_id: int
    outcome: Outcome


def register(session: Session, arrival: Arrival) -> Registered:
    """Register one instance; see `register_batch`."""
    return register_batch(session, [arrival])[0]


def register_batch(session: Session, arrivals: Sequence[Arrival]) -> list[Registered]:
    """Take stored instances up: studies, series, instances, the study's clock, its waiting job.

    A study gets a waiting job for new instances, and when it is sent again although nothing came
    of it: no job of it is under way or delivered, or its files had been deleted. One delivered
    job makes a study finished, whatever became of its others; those are retried by hand.

    Parameters
    ----------
    session
        An open transaction; nothing is acknowledged to a sender before it is committed.
    arrivals
        Any number of instances of any studies.

    Returns
    -------
    list of Registered
        In the order of the arrivals.
    """
    return register_arrivals(session.connection(), arrivals) if arrivals else []


def register_arrivals(connection: Connection, arrivals: Sequence[Arrival]) -> list[Registered]:
    """Do what `register_batch` does, in a transaction without a session."""
    if not arrivals:
        return []
    statements = registration_statements(connection.dialect.name)
    studies = _studies(connection, statements, arrivals)
    series = _series(connection, statements, arrivals, studies)
    new, back = _insert_instances(connection, statements, arrivals, studies, series)
    pairs = sorted({(one.sop_class_uid, one.transfer_syntax_uid) for one in arrivals})
    statements.syntaxes.run(
        connection,
        [{"sop_class_uid": uid, "transfer_syntax_uid": syntax} for uid, syntax in pairs],
    )
    _upsert_associations(connection, statements, arrivals, studies)
    registered = []
    fresh: _Times = {}
    again: _Times = {}
    returned: set[int] = set()
    for arrival in arrivals:
        study_id = studies[arrival.study_instance_uid]
        identity = _identity(arrival, series)
        outcome: Outcome = "same"
        if identity in new:
            new.discard(identity)
            outcome = "conflict" if arrival.beside else "new"
        if outcome == "new":
            _extend(fresh, study_id, arrival.received_at)
        elif outcome == "same" and not arrival.beside:
            _extend(again, study_id, arrival.received_at)
            if identity in back:
                returned.add(study_id)
        registered.append(Registered(study_id, outcome))
    _count(connection, statements, arrivals, registered, series)
    _open_jobs(connection, statements, fresh, "the first instance arrived")
    if again := {study_id: times for study_id, times in again.items() if study_id not in fresh}:
        finished = _standing(connection, again.keys() - returned)
        resent = {study_id: times for study_id, times in again.items() if study_id not in finished}
        _open_jobs(connection, statements, resent, "the study was sent again")
    return registered


def _extend(times: _Times, study_id: int, at: datetime) -> None:
    first, last = times.get(study_id, (at, at))
    times[study_id] = (min(first, at), max(last, at))


def _identity(arrival: Arrival, series: Mapping[tuple[str, str], int]) -> _Identity:
    series_id = series[arrival.study_instance_uid, arrival.series_instance_uid]
    return series_id, arrival.sop_instance_uid, arrival.sha256


def _studies(
    connection: Connection, statements: Statements, arrivals: Sequence[Arrival]
) -> dict[str, int]:
    """Give the studies' numbers, each held until the commit; those that are new are inserted."""
    first: dict[str, Arrival] = {}
    for arrival in arrivals:
        first.setdefault(arrival.study_instance_uid, arrival)
    # In the order of their UIDs: two listeners that lock the same rows must not cross.
    keys = [{"study_instance_uid": uid} for uid in sorted(first)]
    numbers = {uid: id_ for id_, uid in statements.known_studies.run(connection, keys)}
    rows = [
        {
            "study_instance_uid": uid,
            **taken(first[uid].attributes, STUDY_FIELDS),
            **name_keys(first[uid].attributes),
            "first_received_at": first[uid].received_at,
            "last_received_at": first[uid].received_at,
            "arrivals": 0,
            "number_of_instances": 0,
            "conflicts": 0,
        }
        for uid in sorted(first.keys() - numbers.keys())
    ]
    if rows:
        numbers |= {uid: id_ for id_, uid in statements.studies.run(connection, rows)}
    return numbers


def _series(
    connection: Connection,
    statements: Statements,
    arrivals: Sequence[Arrival],
    studies: Mapping[str, int],
) -> dict[tuple[str, str], int]:
    """Give the numbers of the series; those that are new are inserted."""
    first: dict[tuple[int, str], Arrival] = {}
    for arrival in arrivals:
        first.setdefault(
            (studies[arrival.study_instance_uid], arrival.series_instance_uid), arrival
        )
    keys = [{"study_id": study_id, "series_instance_uid": uid} for study_id, uid in sorted(first)]
    found = statements.known_series.run(connection, keys)
    numbers = {(study_id, uid): id_ for id_, study_id, uid in found}
    rows = [
        {
            "study_id": key[0],
            "series_instance_uid": key[1],
            **taken(first[key].attributes, SERIES_FIELDS),
            "attributes": {
                keyword: plain_text(text)
                for keyword, text in first[key].attributes.items()
                if keyword not in NAMED
            },
            "number_of_instances": 0,
        }
        for key in sorted(first.keys() - numbers.keys())
    ]
    if rows:
        made = statements.series.run(connection, rows)
        numbers |= {(study_id, uid): id_ for id_, study_id, uid in made}
    return {
        (arrival.study_instance_uid, arrival.series_instance_uid): numbers[key]
        for key, arrival in first.items()
    }


def _insert_instances(
    connection: Connection,
    statements: Statements,
    arrivals: Sequence[Arrival],
    studies: Mapping[str, int],
    series: Mapping[tuple[str, str], int],
) -> tuple[set[_Identity], set[_Identity]]:
    """Insert what the catalog lacks; returns the new ones, and those that had been purged."""
    rows: dict[_Identity, dict[str, Any]] = {}
    for arrival in arrivals:
        identity = _identity(arrival, series)
        rows.setdefault(
            identity,
            {
                "study_id": studies[arrival.study_instance_uid],
                "series_id": identity[0],
                "sop_instance_uid": arrival.sop_instance_uid,
                "sop_class_uid": arrival.sop_class_uid,
                "transfer_syntax_uid": arrival.transfer_syntax_uid,
                "path": arrival.path,
                "size": arrival.size,
                "sha256": arrival.sha256,
                "conflict": arrival.beside,
                **taken(arrival.attributes, INSTANCE_FIELDS),
                "association": arrival.association,
                "received_at": arrival.received_at,
            },
        )
    ordered = [rows[key] for key in sorted(rows)]
    new = {(row[0], row[1], row[2]) for row in statements.instances.run(connection, ordered)}
    return new, _bring_back(connection, {key: rows[key] for key in rows if key not in new})


def _bring_back(
    connection: Connection, rows: Mapping[_Identity, Mapping[str, Any]]
) -> set[_Identity]:
    """Note files that were purged and came again; returns them."""
    back: set[_Identity] = set()
    for identity, row in rows.items():
        result = connection.execute(
            update(Instance)
            .where(
                Instance.series_id == row["series_id"],
                Instance.sop_instance_uid == row["sop_instance_uid"],
                Instance.sha256 == row["sha256"],
                Instance.purged_at.is_not(None),
            )
            .values(path=row["path"], purged_at=None, received_at=row["received_at"])
        )
        if result.rowcount:
            back.add(identity)
    return back


def _upsert_associations(
    connection: Connection,
    statements: Statements,
    arrivals: Sequence[Arrival],
    studies: Mapping[str, int],
) -> None:
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for arrival in arrivals:
        if not arrival.association:
            continue
        key = (studies[arrival.study_instance_uid], arrival.association)
        row = rows.setdefault(
            key,
            {
                "study_id": key[0],
                "association": arrival.association,
                "listener": arrival.listener,
                "calling_ae_title": plain_text(arrival.calling_ae_title, 64),
                "called_ae_title": plain_text(arrival.called_ae_title, 64),
                "peer_host": plain_text(arrival.peer_host, 256),
                "first_received_at": arrival.received_at,
                "last_received_at": arrival.received_at,
                "instances": 0,
                "outcome": "",
            },
        )
        row["last_received_at"] = max(row["last_received_at"], arrival.received_at)
        row["instances"] += 1
    if rows:
        statements.associations.run(connection, [rows[key] for key in sorted(rows)])


def _count(
    connection: Connection,
    statements: Statements,
    arrivals: Sequence[Arrival],
    registered: Sequence[Registered],
    series: Mapping[tuple[str, str], int],
) -> None:
    """Note of each study when its last instance came, and how many came; of each series, too."""
    of_study: dict[int, dict[str, Any]] = {}
    of_series: dict[int, int] = {}
    for arrival, one in zip(arrivals, registered, strict=True):
        row = of_study.setdefault(
            one.study_id,
            {
                "of_id": one.study_id,
                "last": arrival.received_at,
                "arrived": 0,
                "new": 0,
                "beside": 0,
            },
        )
        row["last"] = max(row["last"], arrival.received_at)
        row["arrived"] += 1
        if one.outcome == "new":
            row["new"] += 1
            key = series[arrival.study_instance_uid, arrival.series_instance_uid]
            of_series[key] = of_series.get(key, 0) + 1
        elif one.outcome == "conflict":
            row["beside"] += 1
    statements.study_clocks.run(connection, [of_study[key] for key in sorted(of_study)])
    if of_series:
        statements.series_counts.run(
            connection,
            [{"of_id": series_id, "new": new} for series_id, new in sorted(of_series.items())],
        )


def _standing(connection: Connection, study_ids: Collection[int]) -> set[int]:
    """Return those studies of which a job is under way or delivered."""
    if not study_ids:
        return set()
    return set(
        connection.scalars(
            select(Job.study_id).where(
                Job.study_id.in_(sorted(study_ids)), Job.state.in_(_STANDING_STATES)
            )
        )
    )


def _open_jobs(connection: Connection, statements: Statements, fresh: _Times, event: str) -> None:
    """Give each study a waiting job with this first event, unless one is open."""
    if not fresh:
        return
    rows = [
        {
            "study_id": study_id,
            "state": JobState.WAITING,
            "wait_reason": "instances are arriving",
            "received_at": first,
            "updated_at": last,
            "next_attempt_at": last,
        }
        for study_id, (first, last) in sorted(fresh.items())
    ]
    stages: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for job_id, study_id in statements.open_jobs.run(connection, rows):
        first, last = fresh[study_id]
        received = {"stage": JobState.RECEIVED, "started_at": first, "ended_at": last}
        waiting = {"stage": JobState.WAITING, "started_at": last, "ended_at": None}
        stages += [{"job_id": job_id, **received}, {"job_id": job_id, **waiting}]
        events.append({"job_id": job_id, "at": first, "text": event})
    if stages:
        connection.execute(insert(JobStage), stages)
        connection.execute(insert(JobEvent), events)
