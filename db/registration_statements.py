"""The statements of registering, built once: building costs more than running them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Column, Insert, Table, Update, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from db.columns import UtcDateTime
from db.direct import DirectStatement, PlainLookup, PlainStatement, Statement
from db.models import OPEN_STUDY_JOB, Base, Instance, Job, Series, Study, StudyAssociation
from db.models_received import HeldSyntax


class Statements(NamedTuple):
    """The statements of registering, for one dialect.

    Nearly every batch finds its studies and series there. To look for them is cheaper than an
    INSERT that comes to nothing, for which each row has to be made, and indexes be written again.
    """

    known_studies: Statement
    known_series: Statement
    studies: Statement
    series: Statement
    instances: Statement
    associations: Statement
    study_clocks: Statement
    series_counts: Statement
    open_jobs: Statement
    syntaxes: Statement


@cache
def statements(dialect: str) -> Statements:
    """Build the statements of registering once: building costs more than running them."""
    is_postgresql = dialect == "postgresql"
    insert = postgresql.insert if is_postgresql else sqlite.insert
    later = func.greatest if is_postgresql else func.max

    def ready(statement: Insert | Update) -> Statement:
        if is_postgresql:
            return PlainStatement(statement)
        return DirectStatement(statement)

    def lookup(returned: Sequence[Column[Any]], key: Sequence[Column[Any]]) -> Statement:
        if is_postgresql:
            return PlainLookup(returned, key)
        # The transaction holds SQLite's one lock already.
        wanted = select(*returned).where(*(one == bindparam(one.name) for one in key))
        return DirectStatement(wanted)

    study, series, instance = _table(Study), _table(Series), _table(Instance)
    association, job = _table(StudyAssociation), _table(Job)
    studies = insert(study)
    rows = insert(series)
    links = insert(association)
    of_study = (study.c.study_instance_uid,)
    of_series = (series.c.study_id, series.c.series_instance_uid)
    return Statements(
        known_studies=lookup((study.c.id, *of_study), of_study),
        known_series=lookup((series.c.id, *of_series), of_series),
        # "DO UPDATE" that changes nothing, because "DO NOTHING" would not return the row that
        # another listener made meanwhile.
        studies=ready(
            studies.on_conflict_do_update(
                index_elements=["study_instance_uid"],
                set_={"study_instance_uid": studies.excluded.study_instance_uid},
            ).returning(study.c.id, *of_study)
        ),
        series=ready(
            rows.on_conflict_do_update(
                index_elements=["study_id", "series_instance_uid"],
                set_={"series_instance_uid": rows.excluded.series_instance_uid},
            ).returning(series.c.id, *of_series)
        ),
        instances=ready(
            insert(instance)
            .on_conflict_do_nothing(index_elements=["series_id", "sop_instance_uid", "sha256"])
            .returning(instance.c.series_id, instance.c.sop_instance_uid, instance.c.sha256)
        ),
        associations=ready(
            links.on_conflict_do_update(
                index_elements=["study_id", "association"],
                set_={
                    "last_received_at": links.excluded.last_received_at,
                    "instances": association.c.instances + links.excluded.instances,
                    "ended_at": None,
                    "outcome": "",
                },
            )
        ),
        study_clocks=ready(
            update(study)
            .where(study.c.id == bindparam("of_id"))
            .values(
                last_received_at=later(
                    study.c.last_received_at, bindparam("last", type_=UtcDateTime())
                ),
                arrivals=study.c.arrivals + bindparam("arrived"),
                released_at=None,
                number_of_instances=study.c.number_of_instances + bindparam("new"),
                conflicts=study.c.conflicts + bindparam("beside"),
            )
        ),
        series_counts=ready(
            update(series)
            .where(series.c.id == bindparam("of_id"))
            .values(number_of_instances=series.c.number_of_instances + bindparam("new"))
        ),
        open_jobs=ready(
            insert(job)
            .on_conflict_do_nothing(index_elements=["study_id"], index_where=OPEN_STUDY_JOB)
            .returning(job.c.id, job.c.study_id)
        ),
        syntaxes=ready(insert(_table(HeldSyntax)).on_conflict_do_nothing()),
    )


def _table(model: type[Base]) -> Table:
    """Give the Core table of a model."""
    return cast("Table", model.__table__)
