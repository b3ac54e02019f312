"""Query/Retrieve SCP: C-FIND, C-MOVE and C-GET in Patient Root and Study Root (PS3.4 annex C)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import build_context, evt
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from dicom_node.services.association import (
    FIND_CLASSES,
    GET_CLASSES,
    MOVE_CLASSES,
    PATIENT_ROOT_CLASSES,
    UNCOMPRESSED,
    Destination,
)
from dicom_node.services.finding import Finding
from dicom_node.services.query import Catalog, Level
from dicom_node.services.reactor import DirectAssociation, Server
from dicom_node.services.retrieval import Retrieval

# Extended negotiation (C.5.1.1.1, C.5.2.1.1), byte by byte: relational queries and combined
# date-time matching; neither fuzzy matching of names nor adjustment to time zones.
FIND_ABILITIES: Final = bytes((1, 1, 0, 0))
_RETRIEVE_ABILITIES: Final = bytes((1,))


class QueryRetrieveScp:
    """Answers queries and sends what is asked for.

    Parameters
    ----------
    catalog : Catalog
        Knows what the node holds.
    ae_title : str
        Ours.
    destination_of : callable
        AE title of a C-MOVE's destination to whom that is, or None. Asked each time.
    """

    def __init__(
        self, catalog: Catalog, ae_title: str, destination_of: Callable[[str], Destination | None]
    ) -> None:
        self._catalog = catalog
        self._ae_title = ae_title
        self._destination_of = destination_of

    def contexts(self) -> list[PresentationContext]:
        """Return what can be asked."""
        classes = (*FIND_CLASSES, *MOVE_CLASSES, *GET_CLASSES)
        return [build_context(uid, list(UNCOMPRESSED)) for uid in classes]

    def handlers(self) -> list[tuple[Any, Callable[[Event], Any]]]:
        """Return what pynetdicom is to call."""
        return [(evt.EVT_SOP_EXTENDED, self._negotiate)]

    def servers(self) -> Mapping[type, Server]:
        """Return what serves which requests in place of pynetdicom's service classes."""
        return {C_FIND: self._find, C_MOVE: self._move, C_GET: self._get}

    def _negotiate(self, event: Any) -> dict[Any, bytes]:
        """Say what can be done of what a peer would like."""
        answers = {}
        for uid, wished in event.app_info.items():
            able = FIND_ABILITIES if uid in FIND_CLASSES else _RETRIEVE_ABILITIES
            if uid in (*FIND_CLASSES, *MOVE_CLASSES, *GET_CLASSES):
                answers[uid] = bytes(
                    wish & can for wish, can in zip(wished, able, strict=False)
                ).ljust(len(wished), b"\0")
        return answers

    def _find(
        self, association: DirectAssociation, request: C_FIND, context: PresentationContext
    ) -> None:
        class_uid = str(context.abstract_syntax)
        # Combined date-time matching is the second byte of what was negotiated.
        said = association.requestor.sop_class_extended.get(UID(class_uid), b"")
        finding = Finding(association, request, context, _levels(class_uid))
        finding.answer(self._catalog, self._ae_title, combined=said[1:2] == b"\1")

    def _move(
        self, association: DirectAssociation, request: C_MOVE, context: PresentationContext
    ) -> None:
        retrieval = Retrieval(association, request, context, _levels(str(context.abstract_syntax)))
        retrieval.move(self._catalog, self._ae_title, self._destination_of)

    def _get(
        self, association: DirectAssociation, request: C_GET, context: PresentationContext
    ) -> None:
        retrieval = Retrieval(association, request, context, _levels(str(context.abstract_syntax)))
        retrieval.get(self._catalog)


def _levels(class_uid: str) -> tuple[Level, ...]:
    return tuple(Level) if class_uid in PATIENT_ROOT_CLASSES else tuple(Level)[1:]
