"""What others tell of a study: procedure steps (MPPS, PS3.4 F.7) and available instances (annex R).

Both say which instances there should be, so the node need not wait for silence. What was told is
kept by an `Announcements`, which is handed in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from dicom_node.errors import DicomNodeError, FinalError
from dicom_node.incoming import valid_uid
from dicom_node.services.association import AVAILABILITY, PROCEDURE_STEP, UNCOMPRESSED
from dicom_node.services.reactor import Server

LOGGER = logging.getLogger(__name__)

StepState = Literal["in progress", "completed", "discontinued"]

Update = Literal["noted", "unknown", "ended"]

_STATES: Final[Mapping[str, StepState]] = {
    "IN PROGRESS": "in progress",
    "COMPLETED": "completed",
    "DISCONTINUED": "discontinued",
}
# PS3.7 annex C.
_SUCCESS: Final = 0x0000
_PROCESSING_FAILURE: Final = 0x0110
_DUPLICATE: Final = 0x0111
_NO_SUCH_INSTANCE: Final = 0x0112
_MISSING_ATTRIBUTE: Final = 0x0120
STATUSES: Final[Mapping[int, str]] = {
    _SUCCESS: "noted",
    _PROCESSING_FAILURE: "the database is away, or the attributes cannot be read; with Error ID "
    "A710, N-SET: the procedure step has ended",
    _DUPLICATE: "N-CREATE: a procedure step of this UID is known",
    _NO_SUCH_INSTANCE: "N-SET: no procedure step of this UID is known",
    _MISSING_ATTRIBUTE: "no Study Instance UID, no UID of the step, or no such status of a step",
}
"""What a procedure step or an availability notification is answered."""
_MOST_INSTANCES: Final = 100_000
_READ_ERRORS: Final = (ValueError, TypeError, AttributeError, KeyError, EOFError)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one message says of one study.

    Attributes
    ----------
    kind : {"mpps", "ian"}
        Procedure step or availability notification.
    identifier : str
        UID of the procedure step, or of the notification.
    study_instance_uid : str
        Empty in the final message of a step: it was told in the first.
    state : {"in progress", "completed", "discontinued"}
        A notification is always completed: what it lists is there.
    sop_instance_uids : frozenset of str
        Instances that there should be.
    """

    kind: Literal["mpps", "ian"]
    identifier: str
    study_instance_uid: str
    state: StepState
    sop_instance_uids: frozenset[str]


class Announcements(Protocol):
    """Keeps what was told; each call returns once it is durable."""

    def announced(self, calling_ae_title: str, announcement: Announcement) -> bool:
        """Note it; False if a step of this UID is known.

        Raises
        ------
        RetriableError
            It cannot be noted now.
        """

    def updated(self, calling_ae_title: str, announcement: Announcement) -> Update:
        """Note how a step goes on, unless it is not known or has ended.

        Raises
        ------
        RetriableError
            It cannot be noted now.
        """


class AnnouncementScp:
    """Takes procedure steps and availability notifications.

    Parameters
    ----------
    announcements : Announcements
        Keeps them.
    """

    def __init__(self, announcements: Announcements) -> None:
        self._announcements = announcements

    def contexts(self) -> list[PresentationContext]:
        """Return what can be told."""
        return [build_context(uid, list(UNCOMPRESSED)) for uid in (PROCEDURE_STEP, AVAILABILITY)]

    def handlers(self) -> list[tuple[Any, Callable[[Event], Any]]]:
        """Return what pynetdicom is to call."""
        return [(evt.EVT_N_CREATE, self._created), (evt.EVT_N_SET, self._changed)]

    def servers(self) -> Mapping[type, Server]:
        """Return none: pynetdicom serves them."""
        return {}

    def _created(self, event: Any) -> tuple[int | Dataset, Dataset | None]:
        is_step = str(event.request.AffectedSOPClassUID) == PROCEDURE_STEP
        identifier = str(event.request.AffectedSOPInstanceUID or "")

        def take(told: Dataset) -> int:
            if not is_step:
                found = _availability(identifier, told)
                self._announcements.announced(_calling(event), found)
                return _SUCCESS
            studies = _studies_of_step(told)
            if not studies or not valid_uid(identifier):
                return _MISSING_ATTRIBUTE
            fresh = [
                self._announcements.announced(
                    _calling(event),
                    Announcement("mpps", identifier, study, _state(told), _performed(told)),
                )
                for study in studies
            ]
            return _SUCCESS if all(fresh) else _DUPLICATE

        return _answer(event, lambda: take(event.attribute_list)), Dataset()

    def _changed(self, event: Any) -> tuple[int | Dataset, Dataset | None]:
        identifier = str(event.request.RequestedSOPInstanceUID or "")

        def take(told: Dataset) -> int | Dataset:
            step = Announcement("mpps", identifier, "", _state(told), _performed(told))
            update = self._announcements.updated(_calling(event), step)
            if update == "ended":
                return _no_longer_updated()
            return _SUCCESS if update == "noted" else _NO_SUCH_INSTANCE

        return _answer(event, lambda: take(event.modification_list)), Dataset()


def _answer(event: Event, take: Callable[[], int | Dataset]) -> int | Dataset:
    calling = _calling(event)
    try:
        answer = take()
    except FinalError as error:
        LOGGER.warning("an announcement by %s is refused: %s", calling, error.sentence)
        return _MISSING_ATTRIBUTE
    except DicomNodeError as error:
        LOGGER.warning("an announcement by %s failed: %s", calling, error.sentence)
        return _PROCESSING_FAILURE
    except _READ_ERRORS as error:
        LOGGER.warning("an announcement by %s cannot be read: %s", calling, type(error).__name__)
        return _PROCESSING_FAILURE
    status = answer.Status if isinstance(answer, Dataset) else answer
    if status != _SUCCESS:
        LOGGER.warning("an announcement by %s is answered %04X", calling, status)
    return answer


def _no_longer_updated() -> Dataset:
    """Return what an update of an ended step is answered (PS3.4 F.7.2.2)."""
    answer = Dataset()
    answer.Status = _PROCESSING_FAILURE
    answer.ErrorID = 0xA710
    answer.ErrorComment = "the procedure step has ended"
    return answer


def _calling(event: Event) -> str:
    return str(event.assoc.requestor.ae_title).strip()


def _state(told: Dataset) -> StepState:
    said = str(told.get("PerformedProcedureStepStatus", "") or "IN PROGRESS")
    if said not in _STATES:
        raise FinalError(f"Performed Procedure Step Status is none: {said[:20]!r}")
    return _STATES[said]


def _studies_of_step(told: Dataset) -> frozenset[str]:
    """Return the studies of a step's scheduled steps."""
    items = told.get("ScheduledStepAttributesSequence") or ()
    uids = frozenset(str(item.get("StudyInstanceUID", "") or "") for item in items)
    return frozenset(uid for uid in uids if valid_uid(uid))


def _performed(told: Dataset) -> frozenset[str]:
    """Return the instances that a step made (PS3.4 Table F.7.2-1)."""
    found: set[str] = set()
    for series in told.get("PerformedSeriesSequence") or ():
        for keyword in ("ReferencedImageSequence",
                        "ReferencedNonImageCompositeSOPInstanceSequence"):  # fmt: skip
            found.update(_referenced(series.get(keyword) or ()))
    return frozenset(found)


def _availability(identifier: str, told: Dataset) -> Announcement:
    """Read an availability notification (PS3.4 Table R.3.2-1): what is there now or soon."""
    study = str(told.get("StudyInstanceUID", "") or "")
    if not valid_uid(study):
        raise FinalError("it has no Study Instance UID")
    found: set[str] = set()
    for series in told.get("ReferencedSeriesSequence") or ():
        here = [
            item
            for item in series.get("ReferencedSOPSequence") or ()
            if str(item.get("InstanceAvailability", "ONLINE")) != "UNAVAILABLE"
        ]
        found.update(_referenced(here))
    return Announcement("ian", identifier, study, "completed", frozenset(found))


def _referenced(items: Any) -> Iterator[str]:
    for count, item in enumerate(items):
        if count >= _MOST_INSTANCES:
            raise FinalError(f"it names more than {_MOST_INSTANCES} instances")
        uid = str(item.get("ReferencedSOPInstanceUID", "") or "")
        if valid_uid(uid):
            yield uid
