"""What others announce of studies, kept in the database for the completion engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from db.announcements import note_announced, note_progress
from db.session import Database
from dicom_node.errors import RetriableError
from dicom_node.services.announcements import Announcement, Update


class NodeAnnouncements:
    """See `dicom_node.services.announcements.Announcements`.

    Parameters
    ----------
    database
        Where to.
    now
        Clock.
    """

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def announced(self, calling_ae_title: str, announcement: Announcement) -> bool:
        """Note an announcement; False if it is known."""
        try:
            with self._writing() as session:
                return note_announced(
                    session,
                    kind=announcement.kind,
                    identifier=announcement.identifier,
                    study_instance_uid=announcement.study_instance_uid,
                    calling_ae_title=calling_ae_title,
                    state=announcement.state,
                    sop_instance_uids=announcement.sop_instance_uids,
                    now=self._now(),
                )
        except IntegrityError:
            # The same one came on two associations at once.
            return False

    def updated(self, calling_ae_title: str, announcement: Announcement) -> Update:
        """Note how a step goes on, unless it is not known or has ended."""
        with self._writing() as session:
            return note_progress(
                session,
                identifier=announcement.identifier,
                state=announcement.state,
                sop_instance_uids=announcement.sop_instance_uids,
                now=self._now(),
            )

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        try:
            with self._database.session() as session:
                yield session
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise RetriableError(
                f"the node's database cannot take it now ({type(error).__name__})"
            ) from error
