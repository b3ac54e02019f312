"""Storage and Verification SCP, with Study Root C-FIND on demand (PS3.4 annexes A, B, C)."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Final

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from dicom_node.archive import Archive
from dicom_node.errors import DicomNodeError, FinalError
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
from dicom_node.services.listening import DirectServer
from dicom_node.services.messages import StoreSink
from dicom_node.services.reactor import DirectAssociation
from dicom_node.services.reception import (
    OUT_OF_RESOURCES,
    AssociationRecord,
    NoStorage,
    Reception,
    StoreRequest,
)

LOGGER = logging.getLogger(__name__)

# What a cut-off association gets to come to its end.
_CUT_OFF: Final = 5.0
# PS3.4 Table C.4-1: the identifier does not match the SOP class.
_NO_SUCH_QUERY: Final = 0xA900

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
        self._server: DirectServer | None = None
        self._thread: threading.Thread | None = None

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
        server = DirectServer(
            entity,
            settings,
            open_sink=self._open_sink,
            on_end=self._ended,
            evt_handlers=[(evt.EVT_REQUESTED, self._admit), (evt.EVT_C_FIND, self._find)],
        )
        # pynetdicom's server takes itself off this list when it shuts down.
        entity._servers.append(server)
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, name="listener", kwargs={"poll_interval": 0.1}
        )
        self._thread.start()
        LOGGER.info("%s listens on %s:%d", settings.ae_title, settings.host, self.port)

    def stop(self, timeout: float) -> None:
        """Take no more associations and end the running ones, each after its current message.

        What is still running after ``timeout`` seconds is cut off; nothing unanswered is filed.
        """
        server, self._server = self._server, None
        if server is None:
            return
        until = time.monotonic() + timeout
        server.shutdown()
        server.stopping.set()
        for association in server.running():
            association.join(max(0.0, until - time.monotonic()))
        for association in server.running():
            association.connection._shutdown_socket()
            association.join(_CUT_OFF)
        if self._thread is not None:
            self._thread.join(_CUT_OFF)
        server.stopping.close()

    def _admit(self, event: Event) -> None:
        association = event.assoc
        request = association.requestor.primitive
        assert request is not None  # noqa: S101  EVT_REQUESTED
        calling = request.calling_ae_title.strip()
        called = request.called_ae_title.strip()
        host = association.requestor.address
        peer = self._peers().find(calling, host)
        record = AssociationRecord(uuid.uuid4().hex, calling, called, host, peer)
        refusal = self._refusal(calling, called, host) or self._enter(association, record)
        if refusal is not None:
            LOGGER.warning("Association refused: %s", refusal.sentence)
            association.is_rejected = True
            association.acse.send_reject(refusal.result, refusal.source, refusal.reason)
            association.kill()
            self._on_refused(refusal)
            return
        allowed = peer.allow if peer is not None else frozenset()
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
        return None

    def _enter(self, association: Association, record: AssociationRecord) -> Refusal | None:
        """Count the association in, or say that there are too many."""
        most = self._settings.max_associations
        with self._guard:
            if len(self._records) < most:
                self._records[association] = record
                return None
        calling = printable_ae_title(record.calling_ae_title)
        return Refusal(
            calling,
            printable_ae_title(record.called_ae_title),
            record.host,
            REJECTED_TRANSIENT,
            SOURCE_PRESENTATION,
            LOCAL_LIMIT_EXCEEDED,
            f"{calling} at {record.host} called while {most} associations were open, the most "
            "that listener.max_associations in node.yaml allows. It may try again later.",
        )

    def _open_sink(self, association: DirectAssociation, request: StoreRequest) -> StoreSink:
        record = self._records[association]
        if _service_of(request.abstract_syntax_uid) != "store":
            return NoStorage(record)
        return Reception(
            self._archive,
            request,
            record,
            on_stored=self._on_stored,
            on_quarantined=self._on_quarantined,
        )

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
            yield (_NO_SUCH_QUERY if isinstance(error, FinalError) else OUT_OF_RESOURCES), None

    def _ended(self, association: DirectAssociation) -> None:
        with self._guard:
            record = self._records.pop(association, None)
        if record is not None:
            self._on_released(record.ended("released" if association.is_released else "aborted"))


def _service_of(class_uid: str) -> str:
    return {VERIFICATION: "echo", STUDY_ROOT_FIND: "query"}.get(class_uid, "store")
