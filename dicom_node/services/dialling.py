"""Open an association as requestor: a deadline on every phase, failures in words (PS3.8 7)."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from dicom_node.errors import FinalError, RetriableError
from dicom_node.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.services.association import Destination

# PS3.8 Table 9-21, by (source, reason): why, and what to do about it.
_REJECTIONS: Final = {
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

    Raises
    ------
    RetriableError
        No connection, no answer in time, aborted, or refused for the moment.
    FinalError
        Refused for good: the sentence says what to set, where.
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

    connections: list[Event] = []

    def connected(event: Event) -> None:
        connections.append(event)
        # pynetdicom takes the deadline off the socket once it is connected; without one, a peer
        # that stops reading would hold the sending thread for ever.
        wrapper = event.assoc.dul.socket
        if wrapper is not None and wrapper.socket is not None:
            wrapper.socket.settimeout(timeouts.network)
            wrapper.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    try:
        association = entity.associate(
            destination.host,
            destination.port,
            contexts=list(contexts),
            ae_title=destination.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, connected)],
        )
    except socket.gaierror as error:
        raise RetriableError(
            f"{destination}: the host name {destination.host} has no address ({error.strerror})"
        ) from error
    if not association.is_established:
        raise _not_established(
            association, destination, calling_ae_title, connected=bool(connections)
        )
    try:
        yield association
    except BaseException:
        if association.is_established:
            association.abort()
        raise
    # An abort that its thread has not seen yet would make the release wait for its deadline.
    if association.is_established and not association.acse.is_aborted():
        association.release()


def _not_established(
    association: Association, destination: Destination, calling: str, *, connected: bool
) -> RetriableError | FinalError:
    if not connected:
        return RetriableError(
            f"{destination}: no connection within {destination.timeouts.connection:g} s. Is it "
            "running, are host and port right, does a firewall stand between?"
        )
    answer = association.acceptor.primitive
    if association.is_rejected and isinstance(answer, A_ASSOCIATE):
        reason = _REJECTIONS.get(
            (answer.result_source or 0, answer.diagnostic or 0),
            f"source {answer.result_source}, reason {answer.diagnostic} of PS3.8 Table 9-21",
        ).format(calling=calling, called=destination.ae_title)
        if answer.result == 1:
            return FinalError(f"{destination} refused the association: {reason}")
        return RetriableError(f"{destination} refused the association for now: {reason}")
    if isinstance(answer, A_ASSOCIATE) and answer.result == 0:
        return FinalError(f"{destination} takes none of the offered classes and transfer syntaxes")
    return RetriableError(
        f"{destination} is reached but gives no association: it closed the connection, or did not "
        f"answer within {destination.timeouts.acse:g} s. Is that port a DICOM service?"
    )
