"""What each process counts, written to the database, where that of all is added up.

Not by prometheus_client's files for several processes: listeners and workers may be on several
hosts, and what was counted should outlive a restart.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.counts import Series, add_counts, counted, labels_text
from db.session import Database
from dicom_node.counters import COUNTERS

_LOG = logging.getLogger(__name__)
_TOTAL: Final = "_total"


class Counting:
    """Writes what this process counted since the last time.

    Parameters
    ----------
    database
        Where to.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._written: dict[Series, int] = {}

    def write(self) -> None:
        """Write what is new; without the database it is written the next time."""
        with self._guard:
            now = _here()
            more = {
                series: value - self._written.get(series, 0)
                for series, value in now.items()
                if value > self._written.get(series, 0)
            }
            if not more:
                return
            try:
                with self._database.session() as session:
                    add_counts(session, more)
            except SQLAlchemyError as error:
                _LOG.warning("what was counted is not written yet: %s", type(error).__name__)
                return
            self._written = now


def _here() -> dict[Series, int]:
    return {
        Series(family.name, labels_text(sample.labels)): int(sample.value)
        for family in COUNTERS.collect()
        for sample in family.samples
        if sample.name.endswith(_TOTAL)
    }


def totals(session: Session) -> Iterator[Metric]:
    """Yield each counter with what all processes counted; 0 where nothing was."""
    values = counted(session)
    for family in COUNTERS.collect():
        samples = [one for one in family.samples if one.name.endswith(_TOTAL)]
        names = list(samples[0].labels)
        told = CounterMetricFamily(family.name, family.documentation, labels=names)
        for sample in samples:
            series = Series(family.name, labels_text(sample.labels))
            told.add_metric(list(sample.labels.values()), values.get(series, 0))
        yield told
