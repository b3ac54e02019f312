"""The statements of registering, built once: building costs more than running them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, cast

from sqlalchemy import Insert, Table, Update, bindparam, func, update
from sqlalchemy.dialects import postgresql, sqlite

from db.direct import DirectStatement, PlainStatement, Statement
from db.models import OPEN_STUDY_JOB, Base, Instance, Job, Series, Study, StudyAssociation
from db.models_received import HeldSyntax


class Statements(NamedTuple):
    """The statements of registering, for one dialect."""

    studies: Statement
    series: Statement
    instances: Statement
    associations: Statement
    study_counts: Statement
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
        return DirectStatement(statement, sqlite.dialect())

    study, series, instance = _table(Study), _table(Series), _table(Instance)
    association, job = _table(StudyAssociation), _table(Job)
    studies = insert(study)
    rows = insert(series)
    links = insert(association)
    return Statements(
        studies=ready(
            studies.on_conflict_do_update(
                index_elements=["study_instance_uid"],
                set_={
                    "last_received_at": later(
                        study.c.last_received_at, studies.excluded.last_received_at
                    ),
                    "arrivals": study.c.arrivals + studies.excluded.arrivals,
                    "released_at": None,
                },
            ).returning(study.c.id, study.c.study_instance_uid)
        ),
        # "DO UPDATE" that changes nothing, because "DO NOTHING" would not return the row.
        series=ready(
            rows.on_conflict_do_update(
                index_elements=["study_id", "series_instance_uid"],
                set_={"series_instance_uid": rows.excluded.series_instance_uid},
            ).returning(series.c.id, series.c.study_id, series.c.series_instance_uid)
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
        study_counts=ready(
            update(study)
            .where(study.c.id == bindparam("of_id"))
            .values(
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
