"""Sub-operations of C-MOVE and C-GET: what is sent, counted and told (PS3.4 C.4.2, C.4.3).

Not by pynetdicom's service class, which decodes and encodes each object anew, and for C-MOVE opens
an association without our deadlines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext

from dicom_node.counters import QUERIES_FAILED
from dicom_node.errors import DicomNodeError, FinalError, RetriableError
from dicom_node.services.association import Destination
from dicom_node.services.command_set import Originator, error_comment
from dicom_node.services.identifiers import read_identifier, retrieve_query
from dicom_node.services.query import Catalog, Level, Match
from dicom_node.services.reactor import DirectAssociation
from dicom_node.services.storage_scu import StoreStatus, read_item, send, store

LOGGER = logging.getLogger(__name__)

# PS3.4 Tables C.4-2 and C.4-3.
SUCCESS: Final = 0x0000
PENDING: Final = 0xFF00
CANCELLED: Final = 0xFE00
SOME_FAILED: Final = 0xB000
CANNOT_COUNT: Final = 0xA701
CANNOT_SEND: Final = 0xA702
DESTINATION_UNKNOWN: Final = 0xA801
DOES_NOT_MATCH: Final = 0xA900
CANNOT_PROCESS: Final = 0xC000
STATUSES: Final[Mapping[int, str]] = {
    PENDING: "after each sub-operation, with the counts",
    SUCCESS: "all were sent and stored",
    SOME_FAILED: "some failed or were stored with warnings; with the list of those that failed",
    CANCELLED: "cancelled: what was under way was finished, the rest was not sent",
    CANNOT_COUNT: "the database is away, or more than 65535 instances match",
    CANNOT_SEND: "none could be sent; with the list of those that failed",
    DESTINATION_UNKNOWN: "C-MOVE: the destination is neither under destinations nor a peer with "
    "host and port",
    DOES_NOT_MATCH: "no such level, its unique key is missing or no UID, or more UIDs than can be "
    "matched",
    CANNOT_PROCESS: "the identifier cannot be read",
}
"""What a C-MOVE or C-GET is answered."""
# The counts are unsigned 16-bit numbers.
_MOST: Final = 65535
# What pydicom raises at an identifier that it cannot decode.
UNREADABLE: Final = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    NotImplementedError,
)

Request = C_MOVE | C_GET


@dataclass(slots=True)
class SubOperations:
    """How far a retrieval has come.

    Attributes
    ----------
    uids : dict of Path to str
        SOP Instance UID of each file that is not settled yet.
    """

    uids: dict[Path, str]
    completed: int = 0
    warnings: int = 0
    failed: list[str] = field(default_factory=list)

    def settle(self, status: StoreStatus) -> None:
        """Count one file."""
        uid = self.uids.pop(status.path, "")
        if status.verdict == "stored":
            self.completed += 1
        elif status.verdict == "warning":
            self.warnings += 1
        else:
            self.failed.append(uid)

    def fail_the_rest(self) -> None:
        """Count all that is left as failed."""
        self.failed += self.uids.values()
        self.uids.clear()

    @property
    def final_status(self) -> int:
        """The status of the last response."""
        if not self.failed and not self.warnings:
            return SUCCESS
        return SOME_FAILED if self.completed or self.warnings else CANNOT_SEND


class Retrieval:
    """One C-MOVE or C-GET request, served in the thread of its association.

    Parameters
    ----------
    association : DirectAssociation
        Who asks.
    request : C_MOVE or C_GET
        What it asks.
    context : PresentationContext
        On which.
    levels : tuple of Level
        Of the information model.
    """

    def __init__(
        self,
        association: DirectAssociation,
        request: Request,
        context: PresentationContext,
        levels: tuple[Level, ...],
    ) -> None:
        self._association = association
        self._request = request
        self._context = context
        self._levels = levels
        self._is_cancelled = False
        self._told: set[str] = set()

    def move(
        self, catalog: Catalog, ae_title: str, destination_of: Callable[[str], Destination | None]
    ) -> None:
        """Answer a C-MOVE: send to an AE that the node knows."""
        name = str(getattr(self._request, "MoveDestination", "") or "").strip()
        destination = destination_of(name)
        if destination is None:
            LOGGER.warning(
                "C-MOVE answered A801: the destination %r is no peer with host and port, and no "
                "destination, in node.yaml",
                name[:16],
            )
            self._respond(
                DESTINATION_UNKNOWN, SubOperations({}), "the destination has no host and port here"
            )
            return
        originator = Originator(str(self._association.requestor.ae_title), self._message_id)

        def deliver(files: Sequence[Path], operations: SubOperations) -> None:
            send(
                files,
                destination,
                calling_ae_title=ae_title,
                stop_on_failure=False,
                on_status=lambda status: self._settled(operations, status),
                transcode=True,
                originator=originator,
                is_cancelled=self._cancelled,
            )

        self._serve(catalog, deliver)

    def get(self, catalog: Catalog) -> None:
        """Answer a C-GET: send on the same association."""
        requestor = self._association.requestor
        caller = Destination(str(requestor.ae_title), str(requestor.ae_title), "", 0)

        def deliver(files: Sequence[Path], operations: SubOperations) -> None:
            for path in files:
                if self._cancelled():
                    return
                try:
                    status = store(self._association, read_item(path), caller)
                except FinalError as error:
                    status = StoreStatus(path, "", "", None, "final", error.sentence)
                self._settled(operations, status)

        self._serve(catalog, deliver)

    def _serve(
        self, catalog: Catalog, deliver: Callable[[Sequence[Path], SubOperations], None]
    ) -> None:
        try:
            matches = self._matches(catalog)
        except DicomNodeError as error:
            LOGGER.warning("%s failed: %s", self._name, error.sentence)
            refused = DOES_NOT_MATCH if isinstance(error, FinalError) else CANNOT_COUNT
            self._respond(refused, SubOperations({}), error.sentence)
            return
        except UNREADABLE as error:
            LOGGER.warning("%s failed: its identifier cannot be read (%s)", self._name, error)
            self._respond(CANNOT_PROCESS, SubOperations({}), "the identifier cannot be read")
            return
        operations = SubOperations(
            {
                match.path: match.attributes["SOPInstanceUID"]
                for match in matches
                if match.path is not None
            }
        )
        try:
            deliver(list(operations.uids), operations)
        except DicomNodeError as error:
            LOGGER.warning("%s failed: %s", self._name, error.sentence)
        if not self._association.is_established:
            return
        if self._is_cancelled:
            self._respond(CANCELLED, operations)
            return
        operations.fail_the_rest()
        self._respond(operations.final_status, operations)
        LOGGER.info(
            "%s by %s: %d sent, %d with warnings, %d failed",
            self._name,
            self._association.requestor.ae_title,
            operations.completed,
            operations.warnings,
            len(operations.failed),
        )

    def _matches(self, catalog: Catalog) -> list[Match]:
        identifier = read_identifier(self._request.Identifier, self._context.transfer_syntax[0])
        query = retrieve_query(identifier, self._levels)
        if catalog.count(query) > _MOST:
            raise RetriableError(f"more than {_MOST} instances match; retrieve less at a time")
        return list(catalog.find(query, {"SOPInstanceUID"}))

    @property
    def _name(self) -> str:
        return "C-MOVE" if isinstance(self._request, C_MOVE) else "C-GET"

    @property
    def _message_id(self) -> int:
        return self._request.MessageID or 0

    def _cancelled(self) -> bool:
        """Whether the peer takes the request back, or is gone."""
        self._is_cancelled |= self._association.has_cancelled(self._message_id)
        return self._is_cancelled or self._association.is_over

    def _settled(self, operations: SubOperations, status: StoreStatus) -> None:
        operations.settle(status)
        if not status.is_stored and status.sentence not in self._told:
            # A series of a thousand images fails a thousand times for one reason.
            self._told.add(status.sentence)
            LOGGER.warning("%s: %s", self._name, status.sentence)
        if operations.uids and self._association.is_established:
            self._respond(PENDING, operations)

    def _respond(self, status: int, operations: SubOperations, comment: str = "") -> None:
        request = self._request
        if status not in (SUCCESS, PENDING, CANCELLED):
            operation = "c_move" if isinstance(request, C_MOVE) else "c_get"
            QUERIES_FAILED.labels(operation, f"{status:04X}").inc()
        response = type(request)()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.Status = status
        if comment:
            # pynetdicom declares it as None alone.
            response.ErrorComment = error_comment(comment)  # type: ignore[assignment]
        if status in (PENDING, CANCELLED):
            response.NumberOfRemainingSuboperations = len(operations.uids)
        response.NumberOfFailedSuboperations = len(operations.failed)
        response.NumberOfWarningSuboperations = operations.warnings
        response.NumberOfCompletedSuboperations = operations.completed
        # Only a final response that is no success has an identifier (C.4.2.1.4.2).
        if status in (CANCELLED, SOME_FAILED, CANNOT_SEND):
            failed = Dataset()
            failed.FailedSOPInstanceUIDList = operations.failed
            syntax = self._context.transfer_syntax[0]
            encoded = encode(
                failed, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
            )
            response.Identifier = BytesIO(encoded or b"")
        self._association.dimse.send_msg(response, self._context.context_id or 0)
