"""Storage and Verification SCP, and the door for other services (PS3.4 annexes A and B)."""

from __future__ import annotations

import logging
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from dicom_node.archive import Archive
from dicom_node.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.peers import (
    CALLED_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    MALFORMED,
    REJECTED_PERMANENT,
    REJECTED_TRANSIENT,
    SOURCE_PRESENTATION,
    SOURCE_TRANSPORT,
    SOURCE_USER,
    TLS_FAILED,
    Channel,
    Peers,
    Refusal,
    printable_ae_title,
)
from dicom_node.services.association import (
    ListenerSettings,
    in_callers_order,
    listener_contexts,
    service_of,
)
from dicom_node.services.events import (
    AssociationEnded,
    MovedInstance,
    Quarantined,
    ReceivedInstance,
)
from dicom_node.services.listening import DirectServer, StopSignal
from dicom_node.services.messages import StoreSink
from dicom_node.services.reactor import DirectAssociation, Server
from dicom_node.services.reception import (
    AssociationRecord,
    NoStorage,
    Reception,
    StoreRequest,
)
from dicom_node.services.tls import handshake_failure

LOGGER = logging.getLogger(__name__)

# What a cut-off association gets to come to its end.
_CUT_OFF: Final = 5.0


class Service(Protocol):
    """A service beside storage that callers find at the same port."""

    def contexts(self) -> list[PresentationContext]:
        """Return what it takes."""

    def handlers(self) -> list[tuple[Any, Callable[[Event], Any]]]:
        """Return pynetdicom's events that it handles."""

    def servers(self) -> Mapping[type, Server]:
        """Return the requests that it serves itself; see ``reactor.DirectAssociation``."""


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
    moved_to : callable
        Returns the folder for an instance that comes by a C-MOVE of the node's own, where it is
        kept and not told by ``on_stored``; None for all others. A FinalError makes the answer 0124,
        a RetriableError A700.
    on_quarantined, on_released, on_refused : callable
        Called after an object was put aside, an association ended, an association was refused.
    tls : callable, optional
        Returns the TLS context in force, for ``settings.tls_port``; asked at each connection.
    services : sequence of Service
        What else callers may ask for, as far as the table of peers allows it.
    held_syntaxes : callable
        SOP Class UIDs to the transfer syntaxes in which instances of each are held, as far as
        known: decides in which one a C-GET is served.
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
        tls: Callable[[], ssl.SSLContext] | None = None,
        services: Sequence[Service] = (),
        held_syntaxes: Callable[[Collection[str]], Mapping[str, Collection[str]]] = lambda _: {},
        moved_to: Callable[[MovedInstance], Path | None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._archive = archive
        self._peers = peers
        self._on_stored = on_stored
        self._on_quarantined = on_quarantined
        self._on_released = on_released
        self._on_refused = on_refused
        self._tls = tls
        self._services = services
        self._held_syntaxes = held_syntaxes
        self._moved_to = moved_to
        contexts = listener_contexts(settings)
        for service in services:
            contexts += service.contexts()
        self._contexts = {str(context.abstract_syntax): context for context in contexts}
        self._own_servers = {
            kind: server for service in services for kind, server in service.servers().items()
        }
        self._guard = threading.Lock()
        self._records: dict[Association, AssociationRecord] = {}
        self._stopping: StopSignal | None = None
        self._servers: list[DirectServer] = []
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The port, also where the settings let the system choose; with TLS if there is no other.

        Raises
        ------
        RuntimeError
            When the settings name no port at all.
        """
        port = self._bound(is_tls=False, setting=self._settings.port) or self.tls_port
        if port is None:
            raise RuntimeError("the listener has no port")
        return port

    @property
    def tls_port(self) -> int | None:
        """The port with TLS; None without one."""
        return self._bound(is_tls=True, setting=self._settings.tls_port)

    def _bound(self, *, is_tls: bool, setting: int | None) -> int | None:
        for server in self._servers:
            if (server.tls is not None) is is_tls:
                return int(server.server_address[1])
        return setting

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
        self._stopping = StopSignal()
        try:
            if settings.port is not None:
                self._listen(entity, settings.port, None)
            if settings.tls_port is not None and self._tls is not None:
                self._listen(entity, settings.tls_port, self._tls)
        except OSError:
            self.stop(0)
            raise

    def _listen(self, entity: AE, port: int, tls: Callable[[], ssl.SSLContext] | None) -> None:
        settings, stopping = self._settings, self._stopping
        if stopping is None:
            raise RuntimeError("the listener is stopped")
        server = DirectServer(
            entity,
            settings,
            port,
            stopping=stopping,
            tls=tls,
            on_handshake_failed=self._handshake_failed,
            open_sink=self._open_sink,
            on_end=self._ended,
            evt_handlers=[
                (evt.EVT_REQUESTED, self._admit),
                *(handler for service in self._services for handler in service.handlers()),
            ],
        )
        # pynetdicom's server takes itself off this list when it shuts down.
        entity._servers.append(server)
        thread = threading.Thread(
            target=server.serve_forever, name="listener", kwargs={"poll_interval": 0.1}
        )
        self._servers.append(server)
        self._threads.append(thread)
        thread.start()
        how = "with TLS" if tls is not None else "without TLS"
        LOGGER.info(
            "%s listens on %s:%d %s",
            settings.ae_title,
            settings.host,
            server.server_address[1],
            how,
        )

    def stop(self, timeout: float) -> None:
        """Take no more associations and end the running ones, each after its current message.

        What is still running after ``timeout`` seconds is cut off; nothing unanswered is filed.
        """
        stopping, self._stopping = self._stopping, None
        servers, self._servers = self._servers, []
        if stopping is None:
            return
        until = time.monotonic() + timeout
        for server in servers:
            server.shutdown()
            server.cut_off_handshakes()
        stopping.set()
        for association in _running(servers):
            association.join(max(0.0, until - time.monotonic()))
        for association in _running(servers):
            association.connection._shutdown_socket()
            association.join(_CUT_OFF)
        for thread in self._threads:
            thread.join(_CUT_OFF)
        self._threads.clear()
        stopping.close()

    def _handshake_failed(self, host: str, error: OSError) -> None:
        sentence = f"A connection from {host} was closed: {handshake_failure(error)}."
        LOGGER.warning("%s", sentence)
        self._on_refused(
            Refusal("", "", host, REJECTED_PERMANENT, SOURCE_TRANSPORT, TLS_FAILED, sentence)
        )

    def _malformed(self, association: DirectAssociation) -> None:
        """Tell of a peer that sent what is no PDU, or not in its place (PS3.8 9.2, event 19)."""
        requestor = association.requestor
        calling = printable_ae_title(str(requestor.ae_title or "").strip())
        who = f"{calling} at {requestor.address}" if calling else str(requestor.address)
        what = association.upper_layer.malformed or "an invalid command set"
        sentence = (
            f"A connection from {who} was aborted: it sent what is no DICOM message, {what}. Is it "
            "a DICOM program, does it speak TLS to the port without, or is its network broken?"
        )
        LOGGER.warning("%s", sentence)
        self._on_refused(
            Refusal(
                calling,
                "",
                str(requestor.address),
                REJECTED_PERMANENT,
                SOURCE_TRANSPORT,
                MALFORMED,
                sentence,
            )
        )

    def _admit(self, event: Event) -> None:
        association = cast(DirectAssociation, event.assoc)
        request = association.requestor.primitive
        assert request is not None  # noqa: S101  EVT_REQUESTED
        calling = request.calling_ae_title.strip()
        called = request.called_ae_title.strip()
        host = association.requestor.address
        peer = self._peers().find(calling, host)
        record = AssociationRecord(uuid.uuid4().hex, calling, called, host, peer)
        channel = association.connection.channel
        refusal = self._refusal(calling, called, host, channel) or self._enter(association, record)
        if refusal is not None:
            LOGGER.warning("Association refused: %s", refusal.sentence)
            association.is_rejected = True
            association.acse.send_reject(refusal.result, refusal.source, refusal.reason)
            association.kill()
            self._on_refused(refusal)
            return
        allowed = peer.allow if peer is not None else frozenset()
        reversed_roles = [
            str(uid)
            for uid, roles in association.requestor.role_selection.items()
            if roles.scp_role and allowed & {"retrieve", "commit"}
        ]
        association.acceptor.supported_contexts = in_callers_order(
            {uid: context for uid, context in self._contexts.items() if service_of(uid) in allowed},
            list(request.presentation_context_definition_list),
            reversed_roles=reversed_roles,
            held_syntaxes=self._held_syntaxes(reversed_roles) if reversed_roles else {},
        )
        association.servers = self._own_servers

    def _refusal(self, calling: str, called: str, host: str, channel: Channel) -> Refusal | None:
        settings, peers = self._settings, self._peers()
        refusal = peers.refusal(calling, called, host, channel)
        if refusal is not None:
            return refusal
        names = (printable_ae_title(calling), printable_ae_title(called), host)
        known = called == settings.ae_title or called in peers.called
        if settings.check_called_ae_title and not known:
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
        peer = record.peer
        limit = most if peer is None or peer.max_associations is None else peer.max_associations
        with self._guard:
            open_now = len(self._records)
            of_peer = sum(one.peer == peer for one in self._records.values())
            if open_now < most and of_peer < limit:
                self._records[association] = record
                return None
        calling = printable_ae_title(record.calling_ae_title)
        where = "listener.max_associations"
        if open_now < most:
            most, where = limit, "max_associations of that peer"
        return Refusal(
            calling,
            printable_ae_title(record.called_ae_title),
            record.host,
            REJECTED_TRANSIENT,
            SOURCE_PRESENTATION,
            LOCAL_LIMIT_EXCEEDED,
            f"{calling} at {record.host} called while {most} associations were open, the most "
            f"that {where} in node.yaml allows. It may try again later.",
        )

    def _open_sink(self, association: DirectAssociation, request: StoreRequest) -> StoreSink:
        record = self._records[association]
        if service_of(request.abstract_syntax_uid) != "store":
            return NoStorage(record)
        return Reception(
            self._archive,
            request,
            record,
            on_stored=self._on_stored,
            on_quarantined=self._on_quarantined,
            moved_to=self._moved_to,
        )

    def _ended(self, association: DirectAssociation) -> None:
        with self._guard:
            record = self._records.pop(association, None)
        if association.upper_layer.is_malformed:
            self._malformed(association)
        if record is not None:
            self._on_released(record.ended("released" if association.is_released else "aborted"))


def _running(servers: Iterable[DirectServer]) -> list[DirectAssociation]:
    return [association for server in servers for association in server.running()]
