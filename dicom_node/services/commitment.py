"""Storage commitment, push model, as SCU and as SCP (PS3.4 annex J).

A transaction is a request (N-ACTION) and, some time later, its report (N-EVENT-REPORT), on the same
association or on a new one that the SCP opens. Who asked what, and what was answered, is kept by
a `Ledger`, which is handed in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from dicom_node.counters import COMMITMENTS_REFUSED, UNKNOWN_REPORTS
from dicom_node.errors import DicomNodeError, FinalError, RetriableError
from dicom_node.incoming import valid_uid
from dicom_node.services.association import COMMITMENT, UNCOMPRESSED, Destination
from dicom_node.services.dialling import dial
from dicom_node.services.reactor import DirectAssociation, Server

LOGGER = logging.getLogger(__name__)

COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
_REQUEST: Final = 1
_ALL_COMMITTED: Final = 1
_SOME_FAILED: Final = 2

# PS3.4 J.3.3.1.2: Failure Reason (0008,1197).
NO_SUCH_INSTANCE: Final = 0x0112
CLASS_CONFLICT: Final = 0x0119
PROCESSING_FAILURE: Final = 0x0110
FAILURE_REASONS: Final[Mapping[int, str]] = {
    PROCESSING_FAILURE: "it failed while processing",
    NO_SUCH_INSTANCE: "it does not have the instance",
    0x0213: "it has no resources for it",
    0x0122: "it does not take this SOP class",
    CLASS_CONFLICT: "it has the instance under another SOP class",
    0x0131: "it knows the transaction already",
}

# PS3.7 annex C.
_SUCCESS: Final = 0x0000
_PROCESSING_FAILURE: Final = 0x0110
_NO_SUCH_EVENT: Final = 0x0113
_INVALID_ARGUMENT: Final = 0x0115
UNKNOWN_TRANSACTION: Final = _INVALID_ARGUMENT
"""What a report is answered that answers nothing we asked."""
_NO_SUCH_ACTION: Final = 0x0123
_DUPLICATE_TRANSACTION: Final = 0x0131
STATUSES: Final[Mapping[int, str]] = {
    _SUCCESS: "noted",
    _PROCESSING_FAILURE: "the database is away",
    _NO_SUCH_EVENT: "N-EVENT-REPORT: no such event type",
    _INVALID_ARGUMENT: "no Transaction UID, no instance, or not to be read; or a report about a "
    "transaction that was never asked for: counted with the refused callers",
    _NO_SUCH_ACTION: "N-ACTION: no such action type",
    _DUPLICATE_TRANSACTION: "N-ACTION: the peer used this Transaction UID before",
}
"""What a request for commitment, or a report on one, is answered."""
_MOST_REFERENCES: Final = 10_000
_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance in a transaction; ``reason`` is None unless it was not committed."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a transaction: one reference for each instance."""

    transaction_uid: str
    references: tuple[Reference, ...]

    @property
    def committed(self) -> tuple[Reference, ...]:
        """Those that are safe."""
        return tuple(one for one in self.references if one.reason is None)

    @property
    def failed(self) -> tuple[Reference, ...]:
        """Those that are not."""
        return tuple(one for one in self.references if one.reason is not None)


class Ledger(Protocol):
    """Keeps transactions; each call returns once it is durable."""

    def requested(
        self, calling_ae_title: str, transaction_uid: str, references: Sequence[Reference]
    ) -> bool:
        """Note what a peer wants to have committed; False if it has asked under this UID before.

        Raises
        ------
        RetriableError
            It cannot be noted now.
        """

    def reported(self, calling_ae_title: str, report: Report) -> bool:
        """Note a peer's report; False if it answers nothing that we asked that peer.

        Raises
        ------
        RetriableError
            It cannot be noted now.
        """


def request(
    destination: Destination,
    calling_ae_title: str,
    transaction_uid: str,
    references: Sequence[Reference],
    on_report: Callable[[Report], bool],
    *,
    wait_seconds: float,
    is_answered: Callable[[], bool],
) -> None:
    """Ask a peer to commit, and wait a moment for its report on the same association.

    Parameters
    ----------
    destination : Destination
        The peer.
    calling_ae_title : str
        Ours.
    transaction_uid : str
        Must be known to the ledger before: the report may come at once, on a new association.
    references : sequence of Reference
        What it was sent.
    on_report : callable
        Takes a report that comes on this association; returns whether it knows the transaction.
    wait_seconds : float
        How long to wait; a later report comes on a new association.
    is_answered : callable
        Asked meanwhile whether the report has come on another association.

    Raises
    ------
    RetriableError
        No association now, or the peer cannot take the request now.
    FinalError
        The peer does no storage commitment, or not for us.
    """
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(one) for one in references]
    contexts = [build_context(COMMITMENT, list(UNCOMPRESSED))]
    came: list[str] = []

    def take(event: Event) -> tuple[int, None]:
        status, report = _take_report(event, on_report)
        if report is not None:
            came.append(report.transaction_uid)
        return status, None

    with dial(destination, contexts, calling_ae_title=calling_ae_title) as association:
        association.bind(evt.EVT_N_EVENT_REPORT, take)
        status, _ = association.send_n_action(
            information, _REQUEST, UID(COMMITMENT), UID(COMMITMENT_INSTANCE)
        )
        _require_success(status, destination, "N-ACTION of a storage commitment")
        until = time.monotonic() + wait_seconds
        while time.monotonic() < until and association.is_established:
            _serve_one(association, min(until, time.monotonic() + _LOOK_SECONDS))
            if transaction_uid in came or is_answered():
                break


def report(destination: Destination, calling_ae_title: str, answer: Report) -> None:
    """Report to a peer, as SCP, what is committed and what is not; on a new association.

    Raises
    ------
    RetriableError, FinalError
        The peer does not take the report.
    """
    information = Dataset()
    information.TransactionUID = answer.transaction_uid
    information.ReferencedSOPSequence = [_item(one) for one in answer.committed]
    event = _ALL_COMMITTED
    if answer.failed:
        event = _SOME_FAILED
        information.FailedSOPSequence = [_item(one) for one in answer.failed]
        if not answer.committed:
            del information.ReferencedSOPSequence
    contexts = [build_context(COMMITMENT, list(UNCOMPRESSED))]
    # The caller is the SCP here (J.3.3.1, PS3.7 D.3.3.4).
    roles = [build_role(UID(COMMITMENT), scp_role=True)]
    with dial(
        destination, contexts, calling_ae_title=calling_ae_title, negotiation=roles
    ) as association:
        try:
            status, _ = association.send_n_event_report(
                information, event, UID(COMMITMENT), UID(COMMITMENT_INSTANCE)
            )
        except ValueError as error:
            raise FinalError(
                f"{destination} takes no reports of storage commitment on an association that we "
                "open (it refuses the SCP role)"
            ) from error
        _require_success(status, destination, "N-EVENT-REPORT of a storage commitment")


class CommitmentScp:
    """Takes requests for commitment, and reports on what we asked for.

    Parameters
    ----------
    ledger : Ledger
        Keeps both.
    on_unknown : callable
        Called with the calling AE title, its address, and a sentence about a report that answers
        nothing.
    """

    def __init__(self, ledger: Ledger, on_unknown: Callable[[str, str, str], None]) -> None:
        self._ledger = ledger
        self._on_unknown = on_unknown

    def contexts(self) -> list[PresentationContext]:
        """Return what can be asked."""
        return [build_context(COMMITMENT, list(UNCOMPRESSED))]

    def handlers(self) -> list[tuple[Any, Callable[[Event], Any]]]:
        """Return what pynetdicom is to call."""
        return [(evt.EVT_N_ACTION, self._requested), (evt.EVT_N_EVENT_REPORT, self._reported)]

    def servers(self) -> Mapping[type, Server]:
        """Return none: pynetdicom serves them."""
        return {}

    def _requested(self, event: Event) -> tuple[int, None]:
        status = self._take_request(event)
        if status != _SUCCESS:
            COMMITMENTS_REFUSED.labels(f"{status:04X}").inc()
        return status, None

    def _take_request(self, event: Event) -> int:
        calling = str(event.assoc.requestor.ae_title).strip()
        if event.action_type != _REQUEST:
            return _NO_SUCH_ACTION
        try:
            transaction, references = _read(event.action_information)
            fresh = self._ledger.requested(calling, transaction, references)
        except FinalError as error:
            LOGGER.warning("storage commitment for %s refused: %s", calling, error.sentence)
            return _INVALID_ARGUMENT
        except DicomNodeError as error:
            LOGGER.warning("storage commitment for %s failed: %s", calling, error.sentence)
            return _PROCESSING_FAILURE
        LOGGER.info("%s asks for the commitment of %d instances", calling, len(references))
        return _SUCCESS if fresh else _DUPLICATE_TRANSACTION

    def _reported(self, event: Event) -> tuple[int, None]:
        calling = str(event.assoc.requestor.ae_title).strip()
        status, answer = _take_report(event, lambda one: self._ledger.reported(calling, one))
        if status == _INVALID_ARGUMENT and answer is not None:
            sentence = (
                f"{calling} reports on the storage commitment {answer.transaction_uid}, which we "
                "never asked it for"
            )
            LOGGER.warning("%s", sentence)
            self._on_unknown(calling, str(event.assoc.requestor.address), sentence)
        return status, None


def _take_report(event: Event, on_report: Callable[[Report], bool]) -> tuple[int, Report | None]:
    """Read a report and hand it on; returns the status to answer, and the report if it is one."""
    if event.event_type not in (_ALL_COMMITTED, _SOME_FAILED):
        return _NO_SUCH_EVENT, None
    try:
        information = event.event_information
        transaction, committed = _read(information, may_be_empty=True)
        failed = _references(information, "FailedSOPSequence", failed=True)
        answer = Report(transaction, (*committed, *failed))
        if on_report(answer):
            return _SUCCESS, answer
        UNKNOWN_REPORTS.inc()
        return _INVALID_ARGUMENT, answer
    except FinalError as error:
        LOGGER.warning("a report of a storage commitment is refused: %s", error.sentence)
        return _INVALID_ARGUMENT, None
    except DicomNodeError as error:
        LOGGER.warning("a report of a storage commitment failed: %s", error.sentence)
        return _PROCESSING_FAILURE, None


def _read(information: Dataset, *, may_be_empty: bool = False) -> tuple[str, tuple[Reference, ...]]:
    """Read transaction and references. Hostile.

    Raises
    ------
    FinalError
        They are missing, or not to be read.
    """
    transaction = str(information.get("TransactionUID", "") or "")
    if not valid_uid(transaction):
        raise FinalError(f"its Transaction UID is none: {transaction[:80]!r}")
    references = _references(information, "ReferencedSOPSequence")
    if not references and not may_be_empty:
        raise FinalError("it names no instance")
    return transaction, references


def _references(
    information: Dataset, keyword: str, *, failed: bool = False
) -> tuple[Reference, ...]:
    try:
        items = list(information.get(keyword) or ())
        if len(items) > _MOST_REFERENCES:
            raise FinalError(f"it names more than {_MOST_REFERENCES} instances")
        references = []
        for item in items:
            reason = int(item.get("FailureReason") or PROCESSING_FAILURE) if failed else None
            references.append(
                Reference(
                    str(item.get("ReferencedSOPClassUID", ""))[:64],
                    str(item.get("ReferencedSOPInstanceUID", ""))[:64],
                    reason,
                )
            )
    except (ValueError, TypeError, AttributeError, KeyError, EOFError) as error:
        raise FinalError(f"its {keyword} cannot be read ({type(error).__name__})") from error
    return tuple(references)


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reference.reason is not None:
        item.FailureReason = reference.reason
    return item


def _require_success(status: Dataset, destination: Destination, what: str) -> None:
    code = status.get("Status")
    if code == _SUCCESS:
        return
    if code is None:
        raise RetriableError(
            f"{destination} ended the association, or did not answer the {what} within "
            f"{destination.timeouts.dimse:g} s"
        )
    sentence = f"{destination} answered the {what} with {code:04X}"
    if code in (0x0112, 0x0117, 0x0118, 0x0119, 0x0122, 0x0124, 0x0211):
        raise FinalError(sentence)
    raise RetriableError(sentence)


def _serve_one(association: Association, until: float) -> None:
    """Wait for a message on an association that we opened, and serve it if it is a report."""
    if not isinstance(association, DirectAssociation):
        raise TypeError("commitment is asked for on associations of our own kind")
    layer, dimse = association.upper_layer, association.dimse
    while dimse.msg_queue.empty():
        left = until - time.monotonic()
        over = not layer.is_alive() or not layer.to_user_queue.empty()
        if left <= 0 or over or not association.is_established:
            return
        layer.turn(left)
    context_id, message = dimse.get_msg(block=False)
    if isinstance(message, N_EVENT_REPORT) and context_id is not None:
        association._serve_request(message, context_id)
