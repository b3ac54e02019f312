"""The node's workitems as the DICOMweb server asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.models_operation import WorkItem
from db.session import Database
from db.worklist import add_workitem, cancel_workitem, status_of, workitem, workitems
from dicom_node.errors import RetriableError
from dicom_node.services.dicomweb.worklist import Output, Workitem

_MOST: Final = 1000


class NodeWorklist:
    """See `dicom_node.services.dicomweb.worklist.Worklist`.

    Parameters
    ----------
    database
        Where workitems and jobs are.
    now
        The clock.
    """

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def create(self, uid: str, study: str, dataset: dict[str, Any], who: str) -> bool:
        """Keep a workitem; False when its UID is known."""
        with self._session(writes=True) as session:
            return add_workitem(session, uid, study, dataset, who, self._now())

    def get(self, uid: str) -> Workitem | None:
        """Return a workitem."""
        with self._session(writes=False) as session:
            found = workitem(session, uid)
            return None if found is None else _described(session, found)

    def search(self, study: str) -> list[Workitem]:
        """Return workitems, the newest first."""
        with self._session(writes=False) as session:
            return [_described(session, one) for one in workitems(session, study, _MOST)]

    def cancel(self, uid: str, reason: str) -> bool:
        """End the work for a workitem; False when there is none."""
        with self._session(writes=True) as session:
            found = workitem(session, uid)
            if found is None:
                return False
            cancel_workitem(session, found, reason, self._now())
            return True

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


def _described(session: Session, item: WorkItem) -> Workitem:
    status = status_of(session, item)
    return Workitem(
        uid=item.sop_instance_uid,
        study_instance_uid=item.study_instance_uid,
        dataset=item.dataset,
        state=status.step,
        progress=status.progress,
        sentence=status.sentence,
        outputs=[
            Output(one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid)
            for one in status.outputs
        ],
    )
