"""Queries of the catalog at four levels: what is held, sources and results alike.

What is held are the first versions of received instances whose files are there, and results that
passed their checks and whose files are there. A study or series is found while one of its
instances is held. A result that came back from a PACS counts once, as what was received.

`find` only collects the numbers of the rows, so that a caller may take its time over the answers
(`describe`, a page at a time) without holding a transaction open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, exists, func, or_, select
from sqlalchemy.orm import Session

from db.conditions import Condition, holds
from db.held import HELD_RESULT, HELD_SOURCE
from db.models import Instance, Job, ResultRecord, Series, Study
from db.query_counts import (
    below_studies,
    counts_of_patients,
    instances_of_series,
    results_of_series,
    sop_classes_of,
)
from db.query_keys import (
    COUNTS,
    KEYS,
    LEVELS,
    MATCHED,
    MODALITIES_IN_STUDY,
    SOP_CLASSES_IN_STUDY,
    Level,
    level_of,
)

_OF_STUDY: Final = frozenset(
    {MODALITIES_IN_STUDY, "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"}
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found: numbers of rows, in a fixed order, to be handed to `describe`.

    Attributes
    ----------
    level
        Of the query.
    sources
        Studies (at patient level the first study of each), or received series or instances.
    results
        Results; of a series of results the first one.
    """

    level: Level
    sources: Sequence[int] = ()
    results: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.sources) + len(self.results)

    def page(self, start: int, size: int) -> Found:
        """Give at most ``size`` of them, from ``start`` on."""
        stop = start + size
        count = len(self.sources)
        return Found(
            self.level,
            self.sources[start:stop],
            self.results[max(0, start - count) : max(0, stop - count)],
        )


@dataclass(frozen=True, slots=True)
class Described:
    """One thing that was found.

    Attributes
    ----------
    attributes
        Keyword -> text, of its own level and those above; multiple values between backslashes.
    path, size, transfer_syntax_uid
        Of its file (relative to the archive's root), or of one of its files. The syntax of a
        result stands in its file alone, and is empty here.
    is_result
        Whether the node made it.
    """

    attributes: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    size: int = 0
    transfer_syntax_uid: str = ""
    is_result: bool = False


def find(session: Session, level: Level, conditions: Mapping[str, Condition]) -> Found:
    """Collect what meets all conditions.

    Parameters
    ----------
    session
        A transaction that reads.
    level
        What to look for. Conditions on levels above restrict it, and those on levels below ask
        for things of which a part meets them all.
    conditions
        By keyword, of `db.query_keys.MATCHED`.

    Raises
    ------
    KeyError
        The catalog has no such keyword.
    """
    unknown = sorted(conditions.keys() - MATCHED)
    if unknown:
        raise KeyError(unknown[0])
    finder = _Finder(session.get_bind().dialect.name, conditions)
    if level in ("series", "instance"):
        sources = finder.sources(level, Series.id if level == "series" else Instance.id)
        results = finder.results(level)
        # Sorted here: told to, a database may walk all rows in that order rather than an index.
        return Found(level, sorted(session.scalars(sources)), sorted(session.scalars(results)))
    below = any(LEVELS.index(level_of(one) or level) > 1 for one in conditions)
    return Found(level, sorted(session.scalars(finder.studies(level, below=below))))


class _Finder:
    """Builds the statements of one query."""

    def __init__(self, dialect: str, conditions: Mapping[str, Condition]) -> None:
        self._dialect = dialect
        self._conditions = conditions

    def studies(self, level: Level, *, below: bool) -> Select[Any]:
        """Select studies, or the first study of each patient."""
        column = Study.id if level == "study" else func.min(Study.id)
        if below:
            sources = self.sources("instance", Series.study_id).correlate(None)
            results = self.results("instance", Job.study_id).correlate(None)
            held: ColumnElement[bool] = or_(Study.id.in_(sources), Study.id.in_(results))
        else:
            held = or_(
                exists().where(Instance.study_id == Study.id, HELD_SOURCE),
                exists().where(
                    Job.study_id == Study.id, ResultRecord.job_id == Job.id, HELD_RESULT
                ),
            )
        statement = select(column).where(*self._above("series"), held)
        return statement if level == "study" else statement.group_by(Study.patient_id)

    def sources(self, level: Level, column: Any) -> Select[Any]:
        """Select ``column`` of received series or instances."""
        statement = select(column).select_from(Series).join(Study, Study.id == Series.study_id)
        if level == "instance":
            statement = statement.join(Instance, Instance.series_id == Series.id)
            return statement.where(
                HELD_SOURCE, *self._above("series"), *self._of("series", "instance")
            )
        return statement.where(
            exists().where(Instance.series_id == Series.id, HELD_SOURCE),
            *self._above("series"),
            *self._of("series"),
        )

    def results(self, level: Level, column: Any = None) -> Select[Any]:
        """Select results (or ``column`` beside them), or the first result of each series."""
        of_series = level == "series"
        if column is None:
            column = func.min(ResultRecord.id) if of_series else ResultRecord.id
        statement = (
            select(column)
            .select_from(ResultRecord)
            .join(Job, Job.id == ResultRecord.job_id)
            .join(Study, Study.id == Job.study_id)
        )
        levels: tuple[Level, ...] = ("series",) if of_series else ("series", "instance")
        statement = statement.where(
            HELD_RESULT, *self._above("series"), *self._of(*levels, results=True)
        )
        if of_series:
            return statement.group_by(Job.study_id, ResultRecord.series_instance_uid)
        return statement

    def _above(self, level: Level) -> Iterator[ColumnElement[bool]]:
        """Give the conditions on patient and study."""
        yield from self._of(*LEVELS[: LEVELS.index(level)])
        condition = self._conditions.get(MODALITIES_IN_STUDY)
        if condition is not None:
            yield self._in_study(KEYS["Modality"].source, KEYS["Modality"].result, condition)
        condition = self._conditions.get(SOP_CLASSES_IN_STUDY)
        if condition is not None:
            yield self._in_study(Instance.sop_class_uid, ResultRecord.sop_class_uid, condition)

    def _of(self, *levels: Level, results: bool = False) -> Iterator[ColumnElement[bool]]:
        for keyword, condition in self._conditions.items():
            key = KEYS.get(keyword)
            if key is None or key.level not in levels:
                continue
            column = key.compared
            if column is None:
                column = key.result if results else key.source
            yield holds(column, key.kind, condition, self._dialect)

    def _in_study(
        self,
        source: SQLColumnExpression[Any],
        result: SQLColumnExpression[Any],
        condition: Condition,
    ) -> ColumnElement[bool]:
        """Ask that one held instance of the study meets a condition."""
        of_source = (
            exists()
            .where(Series.study_id == Study.id, holds(source, "text", condition, self._dialect))
            .where(Instance.series_id == Series.id, HELD_SOURCE)
        )
        of_result = (
            exists()
            .where(Job.study_id == Study.id, ResultRecord.job_id == Job.id, HELD_RESULT)
            .where(holds(result, "text", condition, self._dialect))
        )
        return or_(of_source.correlate(Study), of_result.correlate(Study))


def describe(session: Session, found: Found, wanted: Collection[str]) -> list[Described]:
    """Describe what was found; call it with pages of some hundred (`Found.page`).

    Parameters
    ----------
    session
        A transaction that reads. What was deleted since `find` is left out.
    found
        From `find`.
    wanted
        Keywords. Those of the catalog at this level and above are answered, all others left out.
    """
    sources = _describe_sources(session, found.level, found.sources, wanted)
    results = _describe_results(session, found.level, found.results, wanted)
    return [*sources, *results]


def _columns(level: Level, wanted: Collection[str], *, results: bool) -> dict[str, Any]:
    known = LEVELS[: LEVELS.index(level) + 1]
    return {
        keyword: (key.result if results else key.source)
        for keyword, key in KEYS.items()
        if keyword in wanted and key.level in known
    }


def _describe_sources(
    session: Session, level: Level, ids: Sequence[int], wanted: Collection[str]
) -> list[Described]:
    if not ids:
        return []
    columns = _columns(level, wanted, results=False)
    described = list(columns.values())
    if level == "instance":
        identity: Any = Instance.id
        statement = (
            select(identity, Study.id, Instance.path, Instance.size,
                   Instance.transfer_syntax_uid, *described)
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .where(HELD_SOURCE)
        )  # fmt: skip
    else:
        identity = Series.id if level == "series" else Study.id
        within = Instance.series_id if level == "series" else Instance.study_id
        first = select(Instance.id).where(within == identity, HELD_SOURCE).limit(1)
        statement = select(identity, Study.id, Instance.path, Instance.size,
                           Instance.transfer_syntax_uid, *described)  # fmt: skip
        if level == "series":
            statement = statement.join(Study, Study.id == Series.study_id)
        statement = statement.outerjoin(
            Instance, Instance.id == first.correlate(Series if level == "series" else Study)
            .scalar_subquery()
        )  # fmt: skip
    rows = session.execute(statement.where(identity.in_(ids)).order_by(identity)).all()
    more = _more(session, level, [row[0] for row in rows], [row[1] for row in rows], wanted)
    return [
        Described(
            attributes={
                **dict(zip(columns, map(_text, row[5:]), strict=True)),
                **more(row[0], row[1]),
            },
            path=row[2] or "",
            size=row[3] or 0,
            transfer_syntax_uid=row[4] or "",
        )
        for row in rows
    ]


def _describe_results(
    session: Session, level: Level, ids: Sequence[int], wanted: Collection[str]
) -> list[Described]:
    if not ids:
        return []
    columns = _columns(level, wanted, results=True)
    rows = session.execute(
        select(ResultRecord.id, Study.id, ResultRecord.path, ResultRecord.size, *columns.values())
        .join(Job, Job.id == ResultRecord.job_id)
        .join(Study, Study.id == Job.study_id)
        .where(ResultRecord.id.in_(ids), ResultRecord.purged_at.is_(None))
        .order_by(ResultRecord.id)
    ).all()
    more = _more(
        session, level, [row[0] for row in rows], [row[1] for row in rows], wanted, results=True
    )
    return [
        Described(
            attributes={
                **dict(zip(columns, map(_text, row[4:]), strict=True)),
                **more(row[0], row[1]),
            },
            path=row[2],
            size=row[3],
            is_result=True,
        )
        for row in rows
    ]


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _more(
    session: Session,
    level: Level,
    ids: Sequence[int],
    study_ids: Sequence[int],
    wanted: Collection[str],
    *,
    results: bool = False,
) -> Callable[[int, int], dict[str, str]]:
    """Count and collect what is wanted; returns a function of row and study to attributes."""
    by_study: dict[str, Mapping[int, str]] = {}
    by_row: dict[str, Mapping[int, str]] = {}
    if level != "patient":
        if not _OF_STUDY.isdisjoint(wanted):
            below = below_studies(session, study_ids)
            told = {
                MODALITIES_IN_STUDY: {key: _values(one.modalities) for key, one in below.items()},
                "NumberOfStudyRelatedSeries": {
                    key: str(one.series) for key, one in below.items() if one.series
                },
                "NumberOfStudyRelatedInstances": {
                    key: str(one.instances) for key, one in below.items() if one.instances
                },
            }
            by_study.update((keyword, told[keyword]) for keyword in _OF_STUDY & set(wanted))
        if SOP_CLASSES_IN_STUDY in wanted:
            classes = sop_classes_of(session, study_ids)
            by_study[SOP_CLASSES_IN_STUDY] = {key: _values(one) for key, one in classes.items()}
    for keyword in COUNTS:
        if keyword in wanted and COUNTS[keyword] == "patient":
            by_study[keyword] = _texts(counts_of_patients(session, keyword, study_ids))
    if level == "series" and "NumberOfSeriesRelatedInstances" in wanted:
        count = results_of_series if results else instances_of_series
        by_row["NumberOfSeriesRelatedInstances"] = _texts(count(session, ids))

    def of_row(row_id: int, study_id: int) -> dict[str, str]:
        return {
            **{keyword: texts.get(study_id, "") for keyword, texts in by_study.items()},
            **{keyword: texts.get(row_id, "") for keyword, texts in by_row.items()},
        }

    return of_row


def _values(texts: set[str]) -> str:
    return "\\".join(sorted(texts - {""}))


def _texts(counts: Mapping[int, int]) -> dict[int, str]:
    return {key: str(count) for key, count in counts.items()}
