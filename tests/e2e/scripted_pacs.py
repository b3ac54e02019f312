"""A PACS that misbehaves as it is told: refuses classes, drops associations, sleeps."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from deploy.child_process import Startable
from deploy.demo_pacs import free_port
from tests.listening import listening

RESULT_CLASSES = (SegmentationStorage, Comprehensive3DSRStorage, EnhancedSRStorage)


class ScriptedPacs(Startable):
    """Storage and Study Root C-FIND SCP.

    Parameters
    ----------
    ae_title
        Its name.
    refused_classes
        SOP classes that it takes no presentation context for.
    before_store
        Called with each C-STORE; returns a status to answer instead of storing, or None.

    Attributes
    ----------
    stored
        How often each SOP Instance UID was stored.
    """

    def __init__(
        self,
        ae_title: str,
        *,
        refused_classes: Collection[str] = (),
        before_store: Callable[[Event], int | None] = lambda _: None,
    ) -> None:
        self.ae_title = ae_title
        self.port = free_port()
        self.stored: Counter[str] = Counter()
        self._kept: dict[str, Dataset] = {}
        self._before_store = before_store
        self._guard = threading.Lock()
        self._entity = AE(ae_title=ae_title)
        self._entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        for uid in RESULT_CLASSES:
            if uid not in refused_classes:
                self._entity.add_supported_context(uid)
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Listen."""
        handlers: list[EventHandlerType] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
        ]
        self._server = listening(self._entity, handlers, port=self.port)

    def stop(self) -> None:
        """Close the port."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()

    def _store(self, event: Event) -> int:
        status = self._before_store(event)
        if status is not None:
            return status
        dataset = event.dataset
        with self._guard:
            self.stored[str(dataset.SOPInstanceUID)] += 1
            self._kept[str(dataset.SOPInstanceUID)] = dataset
        return 0

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        with self._guard:
            kept = list(self._kept.values())
        for dataset in kept:
            if dataset.StudyInstanceUID != wanted.StudyInstanceUID:
                continue
            match = Dataset()
            match.QueryRetrieveLevel = "IMAGE"
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                setattr(match, keyword, dataset.get(keyword))
            yield 0xFF00, match
