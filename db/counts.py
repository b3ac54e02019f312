"""What the node's processes count, added up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.inserting import insert_by
from db.models_operation import CountRecord


class Series(NamedTuple):
    """One time series: the counter's name, and its labels as `labels_text` writes them."""

    name: str
    labels: str


def labels_text(labels: Mapping[str, str]) -> str:
    """Write labels in the one form in which they are kept."""
    return json.dumps(dict(labels), sort_keys=True)


def add_counts(session: Session, more: Mapping[Series, int]) -> None:
    """Add to what was counted."""
    # In one order, so that two processes do not wait for each other's rows.
    for series in sorted(more):
        statement = insert_by(session, CountRecord).values(
            name=series.name, labels=series.labels, value=more[series]
        )
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["name", "labels"],
                set_={"value": CountRecord.value + statement.excluded.value},
            )
        )


def counted(session: Session) -> dict[Series, int]:
    """Return all that was counted."""
    rows = session.scalars(select(CountRecord))
    return {Series(row.name, row.labels): row.value for row in rows}
