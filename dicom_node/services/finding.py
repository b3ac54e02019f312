"""A C-FIND, answered while its matches are found (PS3.4 C.4.1).

Not by pynetdicom's service class: it builds and encodes two data set objects for each match, which
takes ten times as long as finding it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.presentation import PresentationContext

from dicom_node.counters import QUERIES_FAILED
from dicom_node.errors import DicomNodeError, FinalError
from dicom_node.services.answers import AnswerWriter
from dicom_node.services.command_set import FindCommand, error_comment, find_response
from dicom_node.services.identifiers import Asked, asked_for, read_identifier
from dicom_node.services.query import Catalog, Level
from dicom_node.services.reactor import DirectAssociation
from dicom_node.services.reception import OUT_OF_RESOURCES
from dicom_node.services.retrieval import (
    CANCELLED,
    CANNOT_PROCESS,
    DOES_NOT_MATCH,
    PENDING,
    SUCCESS,
    UNREADABLE,
)

LOGGER = logging.getLogger(__name__)

# PS3.4 Table C.4-1.
_PENDING_WITHOUT_SOME_KEYS: Final = 0xFF01
STATUSES: Final[Mapping[int, str]] = {
    PENDING: "a match; all keys are supported",
    _PENDING_WITHOUT_SOME_KEYS: "a match; some keys are not supported for matching or for return",
    SUCCESS: "there are no more matches",
    CANCELLED: "cancelled",
    OUT_OF_RESOURCES: "the database is away",
    DOES_NOT_MATCH: "no such level in this information model, more keys than can be matched, or a "
    "date, time, UID or number to be matched that is none (Error Comment says which)",
    CANNOT_PROCESS: "the identifier cannot be read",
}
"""What a C-FIND is answered."""
# Answers go out together, up to so many bytes: each system call costs as much as an answer.
_AT_ONCE: Final = 1 << 13


class Finding:
    """One C-FIND request, served in the thread of its association.

    Parameters
    ----------
    association : DirectAssociation
        Who asks.
    request : C_FIND
        What it asks.
    context : PresentationContext
        On which.
    levels : tuple of Level
        Of the information model.
    """

    def __init__(
        self,
        association: DirectAssociation,
        request: C_FIND,
        context: PresentationContext,
        levels: tuple[Level, ...],
    ) -> None:
        self._association = association
        self._request = request
        self._syntax = context.transfer_syntax[0]
        self._levels = levels
        self._context_id = context.context_id or 0
        class_uid = str(request.AffectedSOPClassUID)
        self._command = FindCommand(request.MessageID or 0, class_uid.encode("ascii"))
        self._max_pdu = association.requestor.maximum_length or 0
        self._unsent = bytearray()

    def answer(self, catalog: Catalog, ae_title: str, *, combined: bool) -> None:
        """Answer it: pending for each match, then how it ended.

        Parameters
        ----------
        catalog : Catalog
            Knows what the node holds.
        ae_title : str
            Ours.
        combined : bool
            Whether combined date-time matching was negotiated.
        """
        comment = ""
        try:
            identifier = read_identifier(self._request.Identifier, self._syntax)
            asked = asked_for(identifier, self._levels, catalog, combined=combined)
            status = self._tell_matches(catalog, asked, ae_title)
        except DicomNodeError as error:
            LOGGER.warning("C-FIND failed: %s", error.sentence)
            status = DOES_NOT_MATCH if isinstance(error, FinalError) else OUT_OF_RESOURCES
            comment = error.sentence
        except UNREADABLE as error:
            # The values of an identifier are decoded when they are looked at.
            LOGGER.warning(
                "C-FIND failed: its identifier cannot be read (%s)", type(error).__name__
            )
            status, comment = CANNOT_PROCESS, "the identifier cannot be read"
        if status not in (SUCCESS, CANCELLED):
            QUERIES_FAILED.labels("c_find", f"{status:04X}").inc()
        self._tell(status, comment=error_comment(comment))
        self._send()

    def _tell_matches(self, catalog: Catalog, asked: Asked, ae_title: str) -> int:
        writer = AnswerWriter(asked, ae_title, is_implicit=self._syntax.is_implicit_VR)
        pending = PENDING if asked.is_complete else _PENDING_WITHOUT_SOME_KEYS
        message_id = self._command.message_id
        enough = 0  # The first goes out at once: somebody waits for it.
        for match in catalog.find(asked.query, asked.wanted):
            self._tell(pending, writer.write(match))
            if len(self._unsent) >= enough:
                self._send()
                enough = _AT_ONCE
                if self._association.has_cancelled(message_id) or self._association.is_over:
                    break
        return CANCELLED if self._association.has_cancelled(message_id) else SUCCESS

    def _tell(self, status: int, identifier: bytes = b"", comment: str = "") -> None:
        self._unsent += find_response(
            self._command,
            self._context_id,
            status,
            self._max_pdu,
            identifier=identifier,
            comment=comment,
        )

    def _send(self) -> None:
        if not self._association.is_over:
            self._association.connection.send(bytes(self._unsent))
        self._unsent.clear()
