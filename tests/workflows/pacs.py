"""A PACS that a test can make ill: Storage and Study Root C-FIND over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from deploy.demo_pacs import free_port
from tests.listening import listening

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
COMMITMENT = "1.2.840.10008.1.20.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
VERIFICATION = "1.2.840.10008.1.1"


@dataclass
class Pacs:
    """What it takes, what it answers, and what it was sent.

    Attributes
    ----------
    classes
        Storage classes that it takes.
    statuses
        SOP Instance UID -> statuses for its next C-STOREs; without one, 0000.
    drops
        SOP Instance UIDs at which it aborts the association, once each.
    forgets
        SOP Instance UIDs that its next C-FINDs do not know, and how often.
    finds
        Whether it takes C-FIND at all.
    hides_series
        Whether its C-FIND at SERIES level finds nothing.
    renames
        What it answers as Series Description in place of ours.
    commits
        Takes a request for commitment: the association and its Action Information, and returns
        the status. None: it does no storage commitment.
    knows
        Calling AE titles; it rejects others for good. Empty: all.
    stored
        (association number, SOP Instance UID) of each C-STORE answered with success.
    data
        SOP Instance UID -> bytes of the data set, each time it was stored.
    """

    classes: tuple[str, ...] = (SEG, COMPREHENSIVE_3D_SR, ENHANCED_SR)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    drops: set[str] = field(default_factory=set)
    forgets: dict[str, int] = field(default_factory=dict)
    finds: bool = True
    hides_series: bool = False
    renames: str = ""
    commits: Callable[[Any, Dataset], int] | None = None
    knows: tuple[str, ...] = ()
    stored: list[tuple[int, str]] = field(default_factory=list)
    data: dict[str, list[bytes]] = field(default_factory=dict)
    on_store: Any = None
    port: int = 0
    _associations: int = 0
    _server: Any = None
    _places: dict[str, tuple[str, str]] = field(default_factory=dict)
    _series: dict[str, Dataset] = field(default_factory=dict)

    def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        entity = AE(ae_title="PACS")
        for uid in self.classes:
            entity.add_supported_context(uid)
        entity.add_supported_context(VERIFICATION)
        if self.finds:
            entity.add_supported_context(FIND)
        if self.commits is not None:
            entity.add_supported_context(COMMITMENT)
        entity.require_calling_aet = list(self.knows)
        handlers: list[Any] = [
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._commit),
        ]
        self.port = self.port or free_port()
        self._server = listening(entity, handlers, port=self.port)

    def stop(self) -> None:
        """Go away."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    @property
    def received(self) -> list[str]:
        """SOP Instance UIDs in the order in which they were stored."""
        return [uid for _, uid in self.stored]

    def _accepted(self, event: Event) -> None:
        self._associations += 1

    def _store(self, event: Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)
        uid = str(request.AffectedSOPInstanceUID)
        if uid in self.drops:
            self.drops.discard(uid)
            event.assoc.abort()
            return 0x0000
        if self.statuses.get(uid):
            return self.statuses[uid].pop(0)
        dataset = event.dataset
        self._places[uid] = (str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
        self._series[str(dataset.SeriesInstanceUID)] = dataset
        assert request.DataSet is not None
        self.data.setdefault(uid, []).append(request.DataSet.getvalue())
        self.stored.append((self._associations, uid))
        if self.on_store is not None:
            self.on_store(uid)
        return 0x0000

    def _commit(self, event: Event) -> tuple[int, None]:
        if self.commits is None:
            return 0x0122, None
        return self.commits(event.assoc, event.action_information), None

    def _find_series(self, asked: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        stored = self._series.get(asked.SeriesInstanceUID)
        if stored is not None and not self.hides_series:
            found = Dataset()
            found.QueryRetrieveLevel = "SERIES"
            found.StudyInstanceUID = stored.StudyInstanceUID
            found.SeriesInstanceUID = stored.SeriesInstanceUID
            found.Modality = stored.get("Modality", "")
            found.SeriesDescription = self.renames or stored.get("SeriesDescription", "")
            yield 0xFF00, found

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        if asked.QueryRetrieveLevel == "SERIES":
            yield from self._find_series(asked)
            return
        wanted = asked.SOPInstanceUID
        listed = [wanted] if isinstance(wanted, str) else list(wanted or [])
        for uid, (study, series) in self._places.items():
            if study != asked.StudyInstanceUID or series != asked.SeriesInstanceUID:
                continue
            if listed and listed != [""] and uid not in listed:
                continue
            if self.forgets.get(uid, 0) > 0:
                self.forgets[uid] -= 1
                continue
            found = Dataset()
            found.QueryRetrieveLevel = "IMAGE"
            found.StudyInstanceUID, found.SeriesInstanceUID = study, series
            found.SOPInstanceUID = uid
            yield 0xFF00, found
