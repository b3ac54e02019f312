"""What answers to queries say of the things below: counts, modalities, SOP classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Executable, Select, func, select
from sqlalchemy.orm import Session, aliased

from db.held import HELD_RESULT, HELD_SOURCE
from db.models import Instance, Job, ResultRecord, Series, Study

_Named = aliased(Study)


def modalities_of(session: Session, study_ids: Sequence[int]) -> dict[int, str]:
    """Give the modalities of held series by study, between backslashes."""
    held = select(Instance.id).where(Instance.series_id == Series.id, HELD_SOURCE).exists()
    sources = select(Series.study_id, Series.modality).where(Series.study_id.in_(study_ids), held)
    modality = func.coalesce(ResultRecord.attributes["Modality"].as_string(), "")
    return _joined(session, sources, _of_results(Job.study_id, modality, study_ids))


def sop_classes_of(session: Session, study_ids: Sequence[int]) -> dict[int, str]:
    """Give the SOP Class UIDs of held instances by study, between backslashes."""
    sources = (
        select(Instance.study_id, Instance.sop_class_uid)
        .where(Instance.study_id.in_(study_ids), HELD_SOURCE)
        .distinct()
    )
    return _joined(
        session, sources, _of_results(Job.study_id, ResultRecord.sop_class_uid, study_ids)
    )


def counts_of(
    session: Session, keyword: str, keys: Sequence[int], *, results: bool
) -> Mapping[int, int]:
    """Count what is held.

    Parameters
    ----------
    session
        A transaction that reads.
    keyword
        Of `db.query_keys.COUNTS`.
    keys
        Numbers of studies; for ``NumberOfSeriesRelatedInstances`` of series, or of the first
        result of each series.
    results
        Whether those are results.
    """
    if keyword == "NumberOfSeriesRelatedInstances":
        return _in_series_of_results(session, keys) if results else _in_series(session, keys)
    of_patient = keyword.startswith("NumberOfPatient")
    things = keyword.rpartition("Related")[2]
    source: Any = {"Studies": Instance.study_id, "Series": Instance.series_id}.get(
        things, Instance.id
    )
    result: Any = {
        "Studies": Job.study_id,
        "Series": ResultRecord.series_instance_uid,
    }.get(things, ResultRecord.id)
    named: Any = _Named.id if of_patient else Study.id
    sources = select(named, source).select_from(Instance).join(Study, Study.id == Instance.study_id)
    made = (
        select(named, result)
        .select_from(ResultRecord)
        .join(Job, Job.id == ResultRecord.job_id)
        .join(Study, Study.id == Job.study_id)
    )
    if of_patient:
        # The study that was found stands for its patient.
        sources = sources.join(_Named, _Named.patient_id == Study.patient_id)
        made = made.join(_Named, _Named.patient_id == Study.patient_id)
    pairs = [
        sources.where(named.in_(keys), HELD_SOURCE),
        made.where(named.in_(keys), HELD_RESULT),
    ]
    if things == "Studies":
        return _count_distinct(session, pairs)
    counts: dict[int, int] = {}
    for statement in pairs:
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


def _in_series(session: Session, series_ids: Sequence[int]) -> dict[int, int]:
    rows = session.execute(
        select(Instance.series_id, func.count())
        .where(Instance.series_id.in_(series_ids), HELD_SOURCE)
        .group_by(Instance.series_id)
    )
    return {key: count for key, count in rows}


def _in_series_of_results(session: Session, result_ids: Sequence[int]) -> dict[int, int]:
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


def _of_results(key: Any, text: Any, study_ids: Sequence[int]) -> Select[Any]:
    return (
        select(key, text)
        .select_from(ResultRecord)
        .join(Job, Job.id == ResultRecord.job_id)
        .where(Job.study_id.in_(study_ids), HELD_RESULT)
        .distinct()
    )


def _joined(session: Session, *statements: Executable) -> dict[int, str]:
    found: dict[int, set[str]] = {}
    for statement in statements:
        for key, text in session.execute(statement):
            if text:
                found.setdefault(key, set()).add(text)
    return {key: "\\".join(sorted(texts)) for key, texts in found.items()}
