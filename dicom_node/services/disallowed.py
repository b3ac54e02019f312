"""Callers that ask for a service which their entry in the table of peers does not allow.

To such a caller the presentation contexts of the service are refused one by one, and its program
says no more than "no acceptable presentation contexts". Why, an administrator reads here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from dicom_node.counters import SERVICES_REFUSED
from dicom_node.peers import Peers, Refusal, printable_ae_title
from dicom_node.services.association import SERVICES, STORAGE_CLASSES, service_of
from dicom_node.services.reactor import Server

LOGGER = logging.getLogger(__name__)

_KNOWN: Final = frozenset({*SERVICES, *STORAGE_CLASSES})
# Of a presentation context: abstract syntax not supported (PS3.8 Table 9-18).
_ABSTRACT_SYNTAX_REFUSED: Final = 3


class DisallowedServices:
    """Counts them; a line in the log tells of each peer and service once.

    Parameters
    ----------
    peers : callable
        Returns the table of peers in force.
    on_refused : callable
        Called each time with who asked for what.
    """

    def __init__(self, peers: Callable[[], Peers], on_refused: Callable[[Refusal], None]) -> None:
        self._peers = peers
        self._on_refused = on_refused
        self._told: set[tuple[str, str]] = set()

    def contexts(self) -> list[PresentationContext]:
        """Return none: it serves nothing."""
        return []

    def handlers(self) -> list[tuple[Any, Callable[[Event], Any]]]:
        """Return what pynetdicom is to call."""
        return [(evt.EVT_ACCEPTED, self._look)]

    def servers(self) -> Mapping[type, Server]:
        """Return none."""
        return {}

    def _look(self, event: Event) -> None:
        requestor = event.assoc.requestor
        calling, host = str(requestor.ae_title).strip(), str(requestor.address)
        peer = self._peers().find(calling, host)
        if peer is None:
            return
        refused = {str(one.abstract_syntax) for one in event.assoc.rejected_contexts}
        for service in sorted({service_of(uid) for uid in refused & _KNOWN} - peer.allow):
            SERVICES_REFUSED.labels(service).inc()
            shown = printable_ae_title(calling)
            sentence = (
                f"{shown} at {host} asked for what its entry does not allow. If that is "
                f"legitimate, add {service} to allow of the peer {peer.name} in node.yaml."
            )
            if (peer.name, service) not in self._told:
                self._told.add((peer.name, service))
                LOGGER.warning("%s", sentence)
            called = printable_ae_title(str(event.assoc.acceptor.ae_title).strip())
            self._on_refused(Refusal(shown, called, host, 0, 0, _ABSTRACT_SYNTAX_REFUSED, sentence))
