"""Open an association as requestor: a deadline on every phase, failures in words (PS3.8 7)."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_node.errors import FinalError, NothingTakenError, RejectedError, RetriableError
from dicom_node.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.services.association import Destination
from dicom_node.services.reactor import DirectAssociation, OpenSink
from dicom_node.services.tls import Tls, client_context, fingerprints

# PS3.8 Table 9-21, by (source, reason): why, and what to do about it.
REJECTIONS: Final = {
    (1, 1): "it gives no reason; see its log",
    (1, 2): "it does not know the application context name",
    (1, 3): "it does not know our AE title {calling}; add it to the list of known AEs there",
    (1, 7): "it does not go by the AE title {called}; correct ae_title of this destination",
    (2, 1): "it gives no reason (often a failed user identity); see its log",
    (2, 2): "it does not speak our protocol version",
    (3, 1): "it is congested for the moment",
    (3, 2): "it has reached its limit of associations",
}


@contextmanager
def dial(
    destination: Destination,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae_title: str,
    negotiation: Sequence[Any] = (),
    open_sink: OpenSink | None = None,
) -> Iterator[Association]:
    """Open an association, hand it over, and release it at the end (abort it after an error).

    Parameters
    ----------
    destination : Destination
        Whom to call, and the deadlines.
    contexts : sequence of PresentationContext
        At most 128.
    calling_ae_title : str
        Ours.
    negotiation : sequence
        pynetdicom's items of extended negotiation: roles, for what we are SCP of.
    open_sink : callable, optional
        Opens a sink for instances that come on this association (C-GET).

    Raises
    ------
    RetriableError
        No connection, no answer in time, aborted, or refused for the moment.
    RejectedError
        Refused by its configuration: the sentence says what to set, where.
    FinalError
        It takes nothing of what is offered.
    """
    timeouts = destination.timeouts
    entity = AE(ae_title=calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = 131072
    entity.connection_timeout = timeouts.connection
    entity.acse_timeout = timeouts.acse
    entity.dimse_timeout = timeouts.dimse
    entity.network_timeout = timeouts.network

    connection, address = _connect(destination)
    association = _association(entity, destination, contexts, address, open_sink)
    for item in negotiation:
        association.requestor.add_negotiation_item(item)
    association.attach(connection)
    association.request()
    if not association.is_established:
        association.finish(orderly=True)
        raise _not_established(association, destination, calling_ae_title)
    orderly = False
    try:
        yield association
        # An abort that was read last is acted on by nobody else.
        if association.is_established and not association.acse.is_aborted():
            association.release()
        orderly = True
    finally:
        association.finish(orderly=orderly or association.is_aborted)


def _association(
    entity: AE,
    destination: Destination,
    contexts: Sequence[PresentationContext],
    address: tuple[str, int],
    open_sink: OpenSink | None,
) -> DirectAssociation:
    """Return an association in the caller's thread (``reactor``), not yet requested.

    In pynetdicom's own, the caller and a thread look into one queue, and the answer to a request is
    now and then taken by the wrong one: seen on a busy machine, it costs the whole DIMSE time-out.
    """
    timeouts = destination.timeouts
    association = DirectAssociation(
        entity,
        "requestor",
        max_pdu=entity.maximum_pdu_size,
        patience=timeouts.network,
        idle_patience=max(timeouts.dimse, timeouts.network),
        open_sink=open_sink,
    )
    association.acceptor.ae_title = destination.ae_title
    association.acceptor.address_info = AddressInformation(*address)
    requestor = association.requestor
    requestor.ae_title = entity.ae_title
    requestor.address_info = AddressInformation("127.0.0.1", 0)
    requestor.maximum_length = entity.maximum_pdu_size
    requestor.implementation_class_uid = entity.implementation_class_uid
    requestor.implementation_version_name = entity.implementation_version_name
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    requestor.requested_contexts = list(contexts)
    return association


def _connect(destination: Destination) -> tuple[socket.socket, tuple[str, int]]:
    """Return a connection and the address at its other end."""
    timeouts = destination.timeouts
    try:
        connection = socket.create_connection(
            (destination.host, destination.port), timeouts.connection
        )
        # Now: nobody can be asked for it who has hung up meanwhile.
        host, port, *_ = connection.getpeername()
    except socket.gaierror as error:
        raise RetriableError(
            f"{destination}: the host name {destination.host} has no address ({error.strerror})"
        ) from error
    except OSError as error:
        raise RetriableError(
            f"{destination}: no connection within {timeouts.connection:g} s ({error}). Is it "
            "running, are host and port right, does a firewall stand between?"
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    secure = connection if destination.tls is None else _secured(connection, destination)
    return secure, (host, port)


def _secured(connection: socket.socket, destination: Destination) -> ssl.SSLSocket:
    """Do the TLS handshake, and look whether the other side is who it should be.

    Whatever is wrong with certificates may be mended there without a change here, so the same call
    may succeed later.
    """
    try:
        if destination.tls is None:
            raise RuntimeError(f"{destination} is called without TLS")
        context = client_context(destination.tls)
        connection.settimeout(destination.timeouts.acse)
        secure = context.wrap_socket(connection, server_hostname=destination.host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise RetriableError(
            f"{destination}: its certificate is not accepted ({error.verify_message}). If it is "
            "the right one, name its file under certificate of this destination in node.yaml, or "
            "its authority under tls.authorities"
        ) from error
    except OSError as error:
        connection.close()
        reason = getattr(error, "reason", None) or error
        raise RetriableError(
            f"{destination}: no TLS connection ({reason}). Does that port speak TLS, and does it "
            f"do the profile {destination.tls.profile if destination.tls else ''}?"
        ) from error
    except FinalError:
        connection.close()
        raise
    _require_pinned(secure, destination, destination.tls)
    return secure


def _require_pinned(secure: ssl.SSLSocket, destination: Destination, tls: Tls) -> None:
    """Raise unless the other side shows a pinned certificate, where there are some."""
    shown = hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()
    if tls.pinned and shown not in fingerprints(tls.pinned):
        secure.close()
        raise RetriableError(
            f"{destination}: it shows a certificate (SHA-256 {shown}) that is not the one under "
            "certificate of this destination in node.yaml. If it was renewed, replace that file"
        )


def _not_established(
    association: Association, destination: Destination, calling: str
) -> RetriableError | FinalError:
    answer = association.acceptor.primitive
    if association.is_rejected and isinstance(answer, A_ASSOCIATE):
        reason = REJECTIONS.get(
            (answer.result_source or 0, answer.diagnostic or 0),
            f"source {answer.result_source}, reason {answer.diagnostic} of PS3.8 Table 9-21",
        ).format(calling=calling, called=destination.ae_title)
        if answer.result == 1:
            return RejectedError(f"{destination} refused the association: {reason}")
        return RetriableError(f"{destination} refused the association for now: {reason}")
    if isinstance(answer, A_ASSOCIATE) and answer.result == 0:
        return NothingTakenError(
            f"{destination} takes none of the offered classes and transfer syntaxes"
        )
    mend = "Is that port a DICOM service?"
    if destination.tls is not None:
        # In TLS 1.3 the other side looks at our certificate after the handshake is over for us.
        mend = "Is that port a DICOM service, and does it accept this node's certificate?"
    return RetriableError(
        f"{destination} is reached but gives no association: it closed the connection, or did not "
        f"answer within {destination.timeouts.acse:g} s. {mend}"
    )
