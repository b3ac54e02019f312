"""What answers to queries say of the things below: counts, modalities, SOP classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session, aliased

from db.held import HELD_RESULT, HELD_SOURCE, STORED_SOURCE
from db.models import Instance, Job, ResultRecord, Series, Study, Withdrawal

_Named = aliased(Study)


@dataclass(slots=True)
class Below:
    """What is held below a study, sources and results alike."""

    series: int = 0
    instances: int = 0
    modalities: set[str] = field(default_factory=set)


def below_studies(session: Session, study_ids: Sequence[int]) -> dict[int, Below]:
    """Count what is held of studies, and collect the modalities of their series."""
    below = {study_id: Below() for study_id in study_ids}
    for study_id, count, modality in _series_of_sources(session, study_ids):
        one = below[study_id]
        one.series += 1
        one.instances += count
        one.modalities.add(modality)
    of_result = func.coalesce(ResultRecord.attributes["Modality"].as_string(), "")
    series: dict[int, set[str]] = {}
    for study_id, uid, text in session.execute(
        select(Job.study_id, ResultRecord.series_instance_uid, of_result)
        .join(ResultRecord, ResultRecord.job_id == Job.id)
        .where(Job.study_id.in_(study_ids), HELD_RESULT)
    ):
        below[study_id].instances += 1
        below[study_id].modalities.add(text)
        series.setdefault(study_id, set()).add(uid)
    for study_id, uids in series.items():
        below[study_id].series += len(uids)
    return below


def _series_of_sources(
    session: Session, study_ids: Sequence[int]
) -> Iterator[tuple[int, int, str]]:
    """Yield study, number of held instances and modality of each series with any.

    An index has all that says whether a file is there; whether it was withdrawn is asked of the
    few that were, not of each instance.
    """
    counted = (
        select(Instance.study_id, Instance.series_id, func.count().label("instances"))
        .where(Instance.study_id.in_(study_ids), STORED_SOURCE)
        .group_by(Instance.study_id, Instance.series_id)
        .subquery()
    )
    # An outer join goes from the few that were withdrawn to their series, whatever a database
    # knows of sizes; "+ 0" keeps it from looking through the studies.
    stored = and_(
        Instance.sop_instance_uid == Withdrawal.sop_instance_uid,
        (Instance.study_id + 0).in_(study_ids),
        STORED_SOURCE,
    )
    withdrawn = Counter(
        session.scalars(
            select(Instance.series_id).select_from(Withdrawal).outerjoin(Instance, stored)
        )
    )
    rows = session.execute(
        select(counted.c.study_id, counted.c.series_id, counted.c.instances, Series.modality).join(
            Series, Series.id == counted.c.series_id
        )
    )
    for study_id, series_id, count, modality in rows:
        held = count - withdrawn[series_id]
        if held:
            yield study_id, held, modality


def sop_classes_of(session: Session, study_ids: Sequence[int]) -> dict[int, set[str]]:
    """Give the SOP Class UIDs of held instances by study."""
    sources = (
        select(Instance.study_id, Instance.sop_class_uid)
        .where(Instance.study_id.in_(study_ids), HELD_SOURCE)
        .distinct()
    )
    results = (
        select(Job.study_id, ResultRecord.sop_class_uid)
        .join(ResultRecord, ResultRecord.job_id == Job.id)
        .where(Job.study_id.in_(study_ids), HELD_RESULT)
        .distinct()
    )
    found: dict[int, set[str]] = {}
    for statement in (sources, results):
        for study_id, uid in session.execute(statement):
            found.setdefault(study_id, set()).add(uid)
    return found


def counts_of_patients(
    session: Session, keyword: str, study_ids: Sequence[int]
) -> Mapping[int, int]:
    """Count what is held of patients, each of whom one study stands for.

    Parameters
    ----------
    session
        A transaction that reads.
    keyword
        Of `db.query_keys.COUNTS`, at patient level.
    study_ids
        The studies.
    """
    things = keyword.rpartition("Related")[2]
    source: Any = {"Studies": Instance.study_id, "Series": Instance.series_id}.get(
        things, Instance.id
    )
    result: Any = {
        "Studies": Job.study_id,
        "Series": ResultRecord.series_instance_uid,
    }.get(things, ResultRecord.id)
    sources = (
        select(_Named.id, source)
        .select_from(Instance)
        .join(Study, Study.id == Instance.study_id)
        .join(_Named, _Named.patient_id == Study.patient_id)
        .where(_Named.id.in_(study_ids), HELD_SOURCE)
    )
    made = (
        select(_Named.id, result)
        .select_from(ResultRecord)
        .join(Job, Job.id == ResultRecord.job_id)
        .join(Study, Study.id == Job.study_id)
        .join(_Named, _Named.patient_id == Study.patient_id)
        .where(_Named.id.in_(study_ids), HELD_RESULT)
    )
    if things == "Studies":
        return _count_distinct(session, [sources, made])
    counts: dict[int, int] = {}
    for statement in (sources, made):
        table = statement.distinct().subquery()
        rows = session.execute(select(table.c[0], func.count()).group_by(table.c[0]))
        for key, count in rows:
            counts[key] = counts.get(key, 0) + count
    return counts


def _count_distinct(session: Session, pairs: Sequence[Select[Any]]) -> dict[int, int]:
    """Count things that sources and results have in common once."""
    things: dict[int, set[Any]] = {}
    for statement in pairs:
        for key, thing in session.execute(statement.distinct()):
            things.setdefault(key, set()).add(thing)
    return {key: len(some) for key, some in things.items()}


def instances_of_series(session: Session, series_ids: Sequence[int]) -> Mapping[int, int]:
    """Count the held instances of received series."""
    rows = session.execute(
        select(Instance.series_id, func.count())
        .where(Instance.series_id.in_(series_ids), HELD_SOURCE)
        .group_by(Instance.series_id)
    )
    return {key: count for key, count in rows}


def results_of_series(session: Session, result_ids: Sequence[int]) -> Mapping[int, int]:
    """Count the held results of series of results, each of which its first result stands for."""
    first = aliased(ResultRecord)
    first_job = aliased(Job)
    rows = session.execute(
        select(first.id, func.count(ResultRecord.id))
        .join(first_job, first_job.id == first.job_id)
        .join(Job, Job.study_id == first_job.study_id)
        .join(ResultRecord, ResultRecord.job_id == Job.id)
        .where(
            first.id.in_(result_ids),
            ResultRecord.series_instance_uid == first.series_instance_uid,
            HELD_RESULT,
        )
        .group_by(first.id)
    )
    return {key: count for key, count in rows}
