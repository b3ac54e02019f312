"""The catalog: what was received, and where it lies.

Registering is the hot path of receiving: a batch of instances takes a handful of statements,
whatever its size, through SQLAlchemy Core.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.models import (
    OPEN_STUDY_JOB,
    Instance,
    Job,
    JobEvent,
    JobStage,
    Quarantine,
    Refusal,
    Series,
    Study,
    StudyAssociation,
)
from db.states import JobState

Outcome = Literal["new", "same", "conflict"]
LONGEST_TEXT = 1024
"""Characters kept of an attribute without a narrower column."""

_STUDY_COLUMNS: Mapping[str, str] = {
    "PatientID": "patient_id",
    "PatientName": "patient_name",
    "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex",
    "AccessionNumber": "accession_number",
    "StudyDate": "study_date",
    "StudyTime": "study_time",
    "StudyID": "study_id",
    "StudyDescription": "study_description",
    "ReferringPhysicianName": "referring_physician_name",
}
_SERIES_COLUMNS: Mapping[str, str] = {
    "Modality": "modality",
    "SeriesNumber": "series_number",
    "SeriesDescription": "series_description",
    "BodyPartExamined": "body_part_examined",
}
_INSTANCE_COLUMNS: Mapping[str, str] = {
    "InstanceNumber": "instance_number",
    "NumberOfFrames": "number_of_frames",
    "Rows": "rows",
    "Columns": "columns",
    "ImageType": "image_type",
}


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
    if not arrivals:
        return []
    studies = _upsert_studies(session, arrivals)
    series = _upsert_series(session, arrivals, studies)
    new = _insert_instances(session, arrivals, studies, series)
    _upsert_associations(session, arrivals, studies)
    registered = []
    fresh: dict[int, tuple[datetime, datetime]] = {}
    for arrival in arrivals:
        study_id = studies[arrival.study_instance_uid]
        identity = _identity(arrival, series)
        outcome: Outcome = "same"
        if identity in new:
            new.discard(identity)
            outcome = "conflict" if arrival.beside else "new"
        if outcome == "new":
            first, last = fresh.get(study_id, (arrival.received_at, arrival.received_at))
            fresh[study_id] = (min(first, arrival.received_at), max(last, arrival.received_at))
        registered.append(Registered(study_id, outcome))
    _count(session, arrivals, registered, series)
    _open_jobs(session, fresh)
    return registered


def association_ended(session: Session, association: str, outcome: str, now: datetime) -> list[int]:
    """Note that an association is over; a study with no other open one counts as released.

    Returns
    -------
    list of int
        The studies that are released by it.
    """
    studies = list(
        session.execute(
            update(StudyAssociation)
            .where(StudyAssociation.association == association, StudyAssociation.ended_at.is_(None))
            .values(ended_at=now, outcome=outcome)
            .returning(StudyAssociation.study_id)
        ).scalars()
    )
    return _release(session, studies, now)


def close_associations(session: Session, listener: str, now: datetime) -> list[int]:
    """Close what a listener left open when it died; called at its next start."""
    studies = list(
        session.execute(
            update(StudyAssociation)
            .where(StudyAssociation.listener == listener, StudyAssociation.ended_at.is_(None))
            .values(ended_at=now, outcome="lost")
            .returning(StudyAssociation.study_id)
        ).scalars()
    )
    return _release(session, sorted(set(studies)), now)


def add_quarantined(
    session: Session,
    *,
    path: str,
    reason: str,
    received_at: datetime,
    size: int = 0,
    origin: Mapping[str, str] | None = None,
) -> None:
    """Note an object in quarantine; a second note about the same file changes nothing."""
    columns = Quarantine.__table__.c
    values: dict[str, Any] = {
        key: plain_text(text, getattr(columns[key].type, "length", None))
        for key, text in (origin or {}).items()
        if key in columns
    }
    statement = _insert(session, Quarantine).values(
        values
        | {"path": path, "reason": plain_text(reason), "received_at": received_at, "size": size}
    )
    session.execute(statement.on_conflict_do_nothing(index_elements=["path"]))


def quarantined_paths(session: Session) -> set[str]:
    """Paths, relative to the archive, of all objects in quarantine."""
    return set(session.scalars(select(Quarantine.path)))


def add_refusal(
    session: Session,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    peer_host: str,
    reason: str,
    sentence: str,
    now: datetime,
) -> None:
    """Count a rejected association; one row per sender and reason, however often it tries."""
    statement = _insert(session, Refusal).values(
        calling_ae_title=plain_text(calling_ae_title, 64),
        called_ae_title=plain_text(called_ae_title, 64),
        peer_host=plain_text(peer_host, 256),
        reason=plain_text(reason, 64),
        sentence=sentence,
        count=1,
        first_at=now,
        last_at=now,
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["calling_ae_title", "called_ae_title", "peer_host", "reason"],
            set_={"count": Refusal.count + 1, "last_at": now, "sentence": sentence},
        )
    )


def instances_of(session: Session, study_id: int) -> list[Instance]:
    """List the study's instances whose files are there, first versions only, in a fixed order."""
    return list(
        session.scalars(
            select(Instance)
            .where(
                Instance.study_id == study_id,
                Instance.conflict.is_(False),
                Instance.purged_at.is_(None),
            )
            .order_by(Instance.series_id, Instance.sop_instance_uid)
        )
    )


def study_by_uid(session: Session, study_instance_uid: str) -> Study | None:
    """Find a study by its Study Instance UID."""
    return session.scalars(
        select(Study).where(Study.study_instance_uid == study_instance_uid)
    ).one_or_none()


def associations_of(session: Session, study_id: int) -> list[StudyAssociation]:
    """List the associations that brought the study, oldest first."""
    return list(
        session.scalars(
            select(StudyAssociation)
            .where(StudyAssociation.study_id == study_id)
            .order_by(StudyAssociation.first_received_at, StudyAssociation.association)
        )
    )


def known_paths(session: Session, series_instance_uid: str) -> set[str]:
    """Paths, relative to the archive, of the series' instances that the catalog counts as kept."""
    return set(
        session.scalars(
            select(Instance.path)
            .join(Series, Series.id == Instance.series_id)
            .where(Series.series_instance_uid == series_instance_uid, Instance.purged_at.is_(None))
        )
    )


def forget(session: Session, instance_ids: Iterable[int], now: datetime) -> None:
    """Note that the files of these instances were deleted; their rows stay as history."""
    session.execute(
        update(Instance)
        .where(Instance.id.in_(list(instance_ids)), Instance.purged_at.is_(None))
        .values(purged_at=now)
    )


def _insert(session: Session, model: type[Any]) -> Any:
    """INSERT with ON CONFLICT in the dialect of the session's database."""
    table: Table = model.__table__
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _taken(
    attributes: Mapping[str, str], columns: Mapping[str, str], model: type[Any]
) -> dict[str, str]:
    table = model.__table__.c
    return {
        column: plain_text(attributes.get(keyword, ""), getattr(table[column].type, "length", None))
        for keyword, column in columns.items()
    }


def plain_text(text: str, length: int | None = None) -> str:
    """Cut text from DICOM to what both databases can hold.

    PostgreSQL takes neither NUL nor half a surrogate pair, and does not shorten by itself; what
    the column cannot hold stays in the stored file.
    """
    cleaned = text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return cleaned[: length or LONGEST_TEXT]


def _identity(arrival: Arrival, series: Mapping[tuple[str, str], int]) -> tuple[int, str, str]:
    series_id = series[arrival.study_instance_uid, arrival.series_instance_uid]
    return series_id, arrival.sop_instance_uid, arrival.sha256


def _upsert_studies(session: Session, arrivals: Sequence[Arrival]) -> dict[str, int]:
    rows: dict[str, dict[str, Any]] = {}
    for arrival in arrivals:
        row = rows.get(arrival.study_instance_uid)
        if row is None:
            rows[arrival.study_instance_uid] = {
                "study_instance_uid": arrival.study_instance_uid,
                **_taken(arrival.attributes, _STUDY_COLUMNS, Study),
                "first_received_at": arrival.received_at,
                "last_received_at": arrival.received_at,
                "arrivals": 1,
                "number_of_instances": 0,
                "conflicts": 0,
            }
        else:
            row["last_received_at"] = max(row["last_received_at"], arrival.received_at)
            row["arrivals"] += 1
    statement = _insert(session, Study)
    table = Study.__table__.c
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["study_instance_uid"],
        set_={
            "last_received_at": func.max(table.last_received_at, new.last_received_at)
            if session.get_bind().dialect.name == "sqlite"
            else func.greatest(table.last_received_at, new.last_received_at),
            "arrivals": table.arrivals + new.arrivals,
            "released_at": None,
        },
    ).returning(table.id, table.study_instance_uid)
    # In the order of their UIDs: two listeners that lock the same rows must not cross.
    ordered = [rows[uid] for uid in sorted(rows)]
    return {uid: id_ for id_, uid in session.execute(statement, ordered)}


def _upsert_series(
    session: Session, arrivals: Sequence[Arrival], studies: Mapping[str, int]
) -> dict[tuple[str, str], int]:
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    names = set(_STUDY_COLUMNS) | set(_SERIES_COLUMNS) | set(_INSTANCE_COLUMNS)
    for arrival in arrivals:
        key = (studies[arrival.study_instance_uid], arrival.series_instance_uid)
        if key not in rows:
            rows[key] = {
                "study_id": key[0],
                "series_instance_uid": key[1],
                **_taken(arrival.attributes, _SERIES_COLUMNS, Series),
                "attributes": {
                    keyword: plain_text(text)
                    for keyword, text in arrival.attributes.items()
                    if keyword not in names
                },
                "number_of_instances": 0,
            }
    table = Series.__table__.c
    statement = _insert(session, Series)
    # "DO UPDATE" that changes nothing, because "DO NOTHING" would not return the row.
    statement = statement.on_conflict_do_update(
        index_elements=["study_id", "series_instance_uid"],
        set_={"series_instance_uid": statement.excluded.series_instance_uid},
    ).returning(table.id, table.study_id, table.series_instance_uid)
    by_id = {id_: uid for uid, id_ in studies.items()}
    return {
        (by_id[study_id], uid): id_
        for id_, study_id, uid in session.execute(statement, [rows[key] for key in sorted(rows)])
    }


def _insert_instances(
    session: Session,
    arrivals: Sequence[Arrival],
    studies: Mapping[str, int],
    series: Mapping[tuple[str, str], int],
) -> set[tuple[int, str, str]]:
    rows: dict[tuple[int, str, str], dict[str, Any]] = {}
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
                **_taken(arrival.attributes, _INSTANCE_COLUMNS, Instance),
                "association": arrival.association,
                "received_at": arrival.received_at,
            },
        )
    table = Instance.__table__.c
    ordered = [rows[key] for key in sorted(rows)]
    statement = (
        _insert(session, Instance)
        .on_conflict_do_nothing(index_elements=["series_id", "sop_instance_uid", "sha256"])
        .returning(table.series_id, table.sop_instance_uid, table.sha256)
    )
    new = {(row[0], row[1], row[2]) for row in session.execute(statement, ordered)}
    _bring_back(session, [row for key, row in rows.items() if key not in new])
    return new


def _bring_back(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note files that were purged and came again."""
    for row in rows:
        session.execute(
            update(Instance)
            .where(
                Instance.series_id == row["series_id"],
                Instance.sop_instance_uid == row["sop_instance_uid"],
                Instance.sha256 == row["sha256"],
                Instance.purged_at.is_not(None),
            )
            .values(path=row["path"], purged_at=None, received_at=row["received_at"])
        )


def _upsert_associations(
    session: Session, arrivals: Sequence[Arrival], studies: Mapping[str, int]
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
    if not rows:
        return
    table = StudyAssociation.__table__.c
    statement = _insert(session, StudyAssociation)
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["study_id", "association"],
            set_={
                "last_received_at": new.last_received_at,
                "instances": table.instances + new.instances,
                "ended_at": None,
                "outcome": "",
            },
        ),
        [rows[key] for key in sorted(rows)],
    )


def _count(
    session: Session,
    arrivals: Sequence[Arrival],
    registered: Sequence[Registered],
    series: Mapping[tuple[str, str], int],
) -> None:
    of_study: dict[int, list[int]] = {}
    of_series: dict[int, int] = {}
    for arrival, one in zip(arrivals, registered, strict=True):
        if one.outcome == "same":
            continue
        counts = of_study.setdefault(one.study_id, [0, 0])
        counts[one.outcome == "conflict"] += 1
        if one.outcome == "new":
            key = series[arrival.study_instance_uid, arrival.series_instance_uid]
            of_series[key] = of_series.get(key, 0) + 1
    for study_id, (new, conflicts) in sorted(of_study.items()):
        session.execute(
            update(Study)
            .where(Study.id == study_id)
            .values(
                number_of_instances=Study.number_of_instances + new,
                conflicts=Study.conflicts + conflicts,
            )
        )
    for series_id, new in sorted(of_series.items()):
        session.execute(
            update(Series)
            .where(Series.id == series_id)
            .values(number_of_instances=Series.number_of_instances + new)
        )


def _open_jobs(session: Session, fresh: Mapping[int, tuple[datetime, datetime]]) -> None:
    """Give each study with new instances a waiting job, unless one is open."""
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
    statement = (
        _insert(session, Job)
        .on_conflict_do_nothing(index_elements=["study_id"], index_where=OPEN_STUDY_JOB)
        .returning(Job.__table__.c.id, Job.__table__.c.study_id)
    )
    for job_id, study_id in session.execute(statement, rows).all():
        first, last = fresh[study_id]
        session.add_all(
            [
                JobStage(job_id=job_id, stage=JobState.RECEIVED, started_at=first, ended_at=last),
                JobStage(job_id=job_id, stage=JobState.WAITING, started_at=last),
                JobEvent(job_id=job_id, at=first, text="the first instance arrived"),
            ]
        )
    session.flush()


def _release(session: Session, study_ids: Sequence[int], now: datetime) -> list[int]:
    """Set `released_at` where no association is open any more, and make the wait due."""
    if not study_ids:
        return []
    still_open = select(StudyAssociation.study_id).where(
        StudyAssociation.study_id.in_(study_ids), StudyAssociation.ended_at.is_(None)
    )
    released = list(
        session.execute(
            update(Study)
            .where(Study.id.in_(study_ids), Study.id.not_in(still_open))
            .values(released_at=now)
            .returning(Study.id)
        ).scalars()
    )
    session.execute(
        update(Job)
        .where(
            Job.study_id.in_(released),
            Job.state == JobState.WAITING,
            Job.lease_owner.is_(None),
        )
        .values(next_attempt_at=now, announced_at=None)
    )
    return sorted(released)
