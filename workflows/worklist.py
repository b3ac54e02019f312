"""The node's workitems as the DICOMweb server asks for them."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.models_operation import WorkItem
from db.session import Database
from db.worklist import (
    Performance,
    Step,
    WorkStatus,
    add_workitem,
    cancel_workitem,
    performance_of,
    record_performance,
    status_of,
    workitem,
    workitems,
)
from dicom_node.errors import RetriableError
from dicom_node.services.dicomweb.worklist import (
    ConflictError,
    Output,
    Workitem,
    is_for,
    lacking_at_end,
)

_MOST: Final = 1000


class NodeWorklist:
    """See `dicom_node.services.dicomweb.worklist.Worklist`.

    Parameters
    ----------
    database
        Where workitems and jobs are.
    now
        The clock.
    station
        This node's name among stations: what is addressed to another one, that one performs.
    """

    def __init__(
        self, database: Database, now: Callable[[], datetime], station: str = "UNIBIOMED"
    ) -> None:
        self._database = database
        self._now = now
        self._station = station

    def create(self, uid: str, study: str, dataset: dict[str, Any], who: str) -> bool:
        """Keep a workitem; False when its UID is known."""
        with self._session(writes=True) as session:
            return add_workitem(session, uid, study, dataset, who, self._now())

    def get(self, uid: str) -> Workitem | None:
        """Return a workitem."""
        with self._session(writes=False) as session:
            found = workitem(session, uid)
            return None if found is None else self._described(session, found)

    def search(self, study: str) -> list[Workitem]:
        """Return workitems, the newest first."""
        with self._session(writes=False) as session:
            return [self._described(session, one) for one in workitems(session, study, _MOST)]

    def cancel(self, uid: str, reason: str) -> bool:
        """End the work for a workitem; False when there is none."""
        with self._session(writes=True) as session:
            found = workitem(session, uid)
            if found is None:
                return False
            performance = performance_of(found)
            if performance is None:
                cancel_workitem(session, found, reason, self._now())
            else:
                # Its performer decides, and is told (PS3.4 CC.2.2.2).
                record_performance(found, replace(performance, cancel_wish=reason))
            return True

    def change_state(self, uid: str, state: str, transaction_uid: str, who: str) -> bool:
        """Claim, complete or cancel a workitem for another performer; False when there is none."""
        with self._session(writes=True) as session:
            found = workitem(session, uid)
            if found is None:
                return False
            self._require_open(found)
            performance = performance_of(found)
            if state == "IN PROGRESS":
                if performance is not None:
                    raise ConflictError("the workitem is IN PROGRESS already")
                record_performance(found, Performance(who, transaction_uid))
                return True
            performance = _performed_by(performance, transaction_uid)
            lacking = lacking_at_end(performance.dataset) if state == "COMPLETED" else []
            if lacking:
                raise ConflictError(f"before it is COMPLETED it must say: {', '.join(lacking)}")
            step: Step = "COMPLETED" if state == "COMPLETED" else "CANCELED"
            record_performance(found, replace(performance, step=step))
            return True

    def update(self, uid: str, transaction_uid: str, dataset: dict[str, Any]) -> bool:
        """Keep what its performer says; False when there is none."""
        with self._session(writes=True) as session:
            found = workitem(session, uid)
            if found is None:
                return False
            self._require_open(found)
            performance = _performed_by(performance_of(found), transaction_uid)
            told = {**performance.dataset, **dataset}
            record_performance(found, replace(performance, dataset=told))
            return True

    def _require_open(self, item: WorkItem) -> None:
        if is_for(item.dataset, self._station):
            raise ConflictError(
                "this node performs the workitem itself; ask for its end by cancelrequest"
            )
        performance = performance_of(item)
        state = "CANCELED" if item.cancelled_at else performance and performance.step
        if state in ("COMPLETED", "CANCELED"):
            raise ConflictError(f"the workitem is {state} already")

    @contextmanager
    def _session(self, *, writes: bool) -> Iterator[Session]:
        database = self._database
        try:
            with database.session() if writes else database.reading() as session:
                yield session
        except SQLAlchemyError as error:
            raise RetriableError(
                f"the node's database cannot be asked now ({type(error).__name__}); try again"
            ) from error

    def _described(self, session: Session, item: WorkItem) -> Workitem:
        is_own = is_for(item.dataset, self._station)
        performance = performance_of(item)
        if is_own:
            status = status_of(session, item)
        elif item.cancelled_at is not None:
            status = WorkStatus("CANCELED", 0.0, item.cancel_reason)
        elif performance is None:
            status = WorkStatus("SCHEDULED", 0.0, "no performer has claimed it")
        else:
            status = WorkStatus(performance.step, 0.0, f"performed by {performance.by}")
        return Workitem(
            uid=item.sop_instance_uid,
            study_instance_uid=item.study_instance_uid,
            dataset=item.dataset,
            state=status.step,
            progress=status.progress,
            sentence=status.sentence,
            outputs=outputs_in(status),
            updates={} if performance is None else performance.dataset,
            is_own=is_own,
            performer="" if performance is None else performance.by,
            cancel_wish="" if performance is None else performance.cancel_wish,
        )


def outputs_in(status: WorkStatus) -> list[Output]:
    """Return the results of a status as UPS-RS tells them."""
    return [
        Output(one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid)
        for one in status.outputs
    ]


def _performed_by(performance: Performance | None, transaction_uid: str) -> Performance:
    if performance is None:
        raise ConflictError("the workitem is SCHEDULED: claim it first")
    if not hmac.compare_digest(performance.transaction_uid, transaction_uid):
        raise ConflictError("the Transaction UID is not that of the performer")
    return performance
