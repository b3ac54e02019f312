"""Storage and Verification SCP, with Study Root C-FIND on demand (PS3.4 annexes A, B, C)."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.archive import Archive
from dicom_node.errors import DicomNodeError
from dicom_node.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.peers import (
    CALLED_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    REJECTED_PERMANENT,
    REJECTED_TRANSIENT,
    SOURCE_PRESENTATION,
    SOURCE_USER,
    Peers,
    Refusal,
    printable_ae_title,
)
from dicom_node.services.association import (
    STUDY_ROOT_FIND,
    VERIFICATION,
    ListenerSettings,
    in_callers_order,
    listener_contexts,
)
from dicom_node.services.events import AssociationEnded, Quarantined, ReceivedInstance
from dicom_node.services.reception import AssociationRecord, Reception, StoreRequest

LOGGER = logging.getLogger(__name__)

QueryHandler = Callable[[Dataset], Iterator[Dataset]]


class StorageScp:
    """The listener: takes instances into the archive and answers when they are safe.

    Parameters
    ----------
    settings : ListenerSettings
        Where and how to listen.
    archive : Archive
        Where instances go.
    peers : callable
        Returns the table of peers in force; asked at each association, so that it may change.
    on_stored : callable
        Called with each instance that lies durable in the archive; returns when it is registered.
        A RetriableError makes the answer A700. Called from many threads at once.
    on_quarantined, on_released, on_refused : callable
        Called after an object was put aside, an association ended, an association was refused.
    query : callable, optional
        Identifier of a Study Root C-FIND to the matches. A FinalError means that the identifier
        does not fit the model (A900), a RetriableError that the answer cannot be given now (A700).
    """

    def __init__(
        self,
        settings: ListenerSettings,
        archive: Archive,
        peers: Callable[[], Peers],
        *,
        on_stored: Callable[[ReceivedInstance], None],
        on_quarantined: Callable[[Quarantined], None],
        on_released: Callable[[AssociationEnded], None],
        on_refused: Callable[[Refusal], None],
        query: QueryHandler | None = None,
    ) -> None:
        self._settings = settings
        self._archive = archive
        self._peers = peers
        self._on_stored = on_stored
        self._on_quarantined = on_quarantined
        self._on_released = on_released
        self._on_refused = on_refused
        self._query = query
        self._contexts = {
            str(context.abstract_syntax): context
            for context in listener_contexts(settings, query=query is not None)
        }
        self._guard = threading.Lock()
        self._records: dict[Association, AssociationRecord] = {}
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """The port that is listened on: the system's choice where the settings say 0."""
        if self._server is None:
            return self._settings.port
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, in threads of this process.

        Raises
        ------
        OSError
            If the port cannot be had.
        """
        settings = self._settings
        entity = AE(ae_title=settings.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = settings.max_pdu
        entity.acse_timeout = settings.acse_timeout
        entity.network_timeout = settings.idle_timeout
        entity.dimse_timeout = settings.network_timeout
        # Admission is decided in _admit, which can say why; pynetdicom's own limit comes later.
        entity.maximum_associations = 1_000_000
        self._archive.sweep_incoming()
        server = entity.start_server(
            (settings.host, settings.port),
            block=False,
            contexts=list(self._contexts.values()),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._admit),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_FIND, self._find),
                (evt.EVT_RELEASED, self._released),
                (evt.EVT_ABORTED, self._aborted),
                (evt.EVT_CONN_CLOSE, self._aborted),
            ],
        )
        assert isinstance(server, ThreadedAssociationServer)  # noqa: S101  block=False
        self._server = server
        LOGGER.info("%s listens on %s:%d", settings.ae_title, settings.host, self.port)

    def stop(self, timeout: float) -> None:
        """Take no more associations, give the running ones ``timeout`` seconds, then abort them."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        for association in server.active_associations:
            association.join(timeout)
            if association.is_alive():
                association.abort()

    def _admit(self, event: Event) -> None:
        association = event.assoc
        request = association.requestor.primitive
        assert request is not None  # noqa: S101  EVT_REQUESTED
        calling = request.calling_ae_title.strip()
        called = request.called_ae_title.strip()
        host = association.requestor.address
        refusal = self._refusal(calling, called, host)
        if refusal is not None:
            LOGGER.warning("Association refused: %s", refusal.sentence)
            association.is_rejected = True
            association.acse.send_reject(refusal.result, refusal.source, refusal.reason)
            association.kill()
            self._on_refused(refusal)
            return
        peer = self._peers().find(calling, host)
        allowed = peer.allow if peer is not None else frozenset()
        record = AssociationRecord(uuid.uuid4().hex, calling, called, host, peer)
        with self._guard:
            self._records[association] = record
        association.acceptor.supported_contexts = in_callers_order(
            {
                uid: context
                for uid, context in self._contexts.items()
                if _service_of(uid) in allowed
            },
            list(request.presentation_context_definition_list),
        )

    def _refusal(self, calling: str, called: str, host: str) -> Refusal | None:
        settings = self._settings
        refusal = self._peers().refusal(calling, called, host)
        if refusal is not None:
            return refusal
        names = (printable_ae_title(calling), printable_ae_title(called), host)
        if settings.check_called_ae_title and called != settings.ae_title:
            return Refusal(
                *names,
                REJECTED_PERMANENT,
                SOURCE_USER,
                CALLED_NOT_RECOGNIZED,
                f"{names[0]} at {host} called {names[1]}, but this node is {settings.ae_title}. "
                "Correct the called AE title at the sender, or node.ae_title in node.yaml.",
            )
        with self._guard:
            busy = len(self._records)
        if busy >= settings.max_associations:
            return Refusal(
                *names,
                REJECTED_TRANSIENT,
                SOURCE_PRESENTATION,
                LOCAL_LIMIT_EXCEEDED,
                f"{names[0]} at {host} called while {busy} associations were open, the most that "
                "listener.max_associations in node.yaml allows. The sender may try again later.",
            )
        return None

    def _store(self, event: Event) -> Dataset:
        request = event.request
        assert isinstance(request, C_STORE) and request.DataSet is not None  # noqa: S101
        reception = Reception(
            self._archive,
            StoreRequest(
                str(request.AffectedSOPClassUID),
                str(request.AffectedSOPInstanceUID),
                str(event.context.transfer_syntax),
                str(event.context.abstract_syntax),
            ),
            self._records[event.assoc],
            on_stored=self._on_stored,
            on_quarantined=self._on_quarantined,
        )
        reception.write(request.DataSet.getvalue())
        answer = reception.finish()
        status = Dataset()
        status.Status = answer.status
        if answer.comment:
            status.ErrorComment = answer.comment
        return status

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        """Answer a Study Root C-FIND (PS3.4 C.4.1): pending for each match, then success."""
        if self._query is None:
            yield 0x0122, None
            return
        try:
            for match in self._query(event.identifier):
                if event.is_cancelled:
                    yield 0xFE00, None
                    return
                yield 0xFF00, match
        except DicomNodeError as error:
            LOGGER.warning("C-FIND failed: %s", error.sentence)
            yield 0xA700, None

    def _released(self, event: Event) -> None:
        with self._guard:
            record = self._records.pop(event.assoc, None)
        if record is not None:
            self._on_released(record.ended("released"))

    def _aborted(self, event: Event) -> None:
        with self._guard:
            record = self._records.pop(event.assoc, None)
        if record is not None:
            self._on_released(record.ended("aborted"))


def _service_of(class_uid: str) -> str:
    return {VERIFICATION: "echo", STUDY_ROOT_FIND: "query"}.get(class_uid, "store")
