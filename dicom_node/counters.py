"""What goes wrong at the node's doors, counted in this process.

Each is a Prometheus counter. Processes write what they counted to the database, where that of all
is added up (`workflows.counting`). Label values are those listed here and no others: nothing that
a caller chooses becomes a label, so there is a bound to how many time series there can be.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter

COUNTERS: Final = CollectorRegistry()

AssociationCause = Literal[
    "unknown_ae_title", "address_not_allowed", "tls_required", "certificate_not_pinned",
    "called_ae_title", "too_many_associations",
]  # fmt: skip
"""Why an association is refused."""
HandshakeCause = Literal[
    "certificate_expired", "certificate_not_trusted", "no_certificate", "node_certificate_refused",
    "version_or_cipher", "no_tls", "timeout", "other",
]  # fmt: skip
"""Why a TLS handshake failed, as seen by the server."""
WebCause = Literal[
    "no_credentials", "not_allowed", "bad_request", "no_boundary", "no_part", "malformed_body",
    "cut_off", "too_long", "silent", "media_type", "not_found", "not_acceptable", "conflict",
    "unavailable",
]  # fmt: skip
"""Why a DICOMweb request is refused."""


def _counter(name: str, text: str, **labels: Iterable[str]) -> Counter:
    """Make a counter with all its time series: one that is not there yet raises no alarm."""
    counter = Counter(name, text, list(labels), registry=COUNTERS)
    if labels:
        for values in product(*labels.values()):
            counter.labels(*values)
    return counter


ASSOCIATIONS_REFUSED: Final = _counter(
    "unibiomed_associations_refused",
    "Associations that were rejected",
    cause=get_args(AssociationCause),
)
TLS_HANDSHAKES_FAILED: Final = _counter(
    "unibiomed_tls_handshakes_failed",
    "TLS handshakes that failed, by the port that was called",
    port=("dicom", "dicomweb"),
    cause=get_args(HandshakeCause),
)
SERVICES_REFUSED: Final = _counter(
    "unibiomed_services_refused",
    "Associations that asked for a service which is not allowed to the peer",
    service=("echo", "store", "query", "retrieve", "commit", "notify"),
)
MALFORMED_PDUS: Final = _counter(
    "unibiomed_malformed_pdus", "Connections aborted because of a PDU that is none (PS3.8 9.2)"
)
OBJECTS_REFUSED: Final = _counter(
    "unibiomed_objects_refused",
    "Objects that were answered with a failure, by status (PS3.4 Table B.2-1, PS3.18 10.5.3)",
    way=("c_store", "stow"),
    status=("A700", "A900", "C000", "0122", "C122"),
)
QUERIES_FAILED: Final = _counter(
    "unibiomed_queries_failed",
    "Queries and retrievals that were answered with a failure, by status (PS3.4 C.4)",
    operation=("c_find", "c_move", "c_get"),
    status=("A700", "A701", "A702", "A801", "A900", "B000", "C000"),
)
COMMITMENTS_REFUSED: Final = _counter(
    "unibiomed_commitment_requests_refused",
    "Requests for storage commitment that were answered with a failure, by status",
    status=("0110", "0115", "0123", "0131"),
)
UNKNOWN_REPORTS: Final = _counter(
    "unibiomed_commitment_reports_unknown",
    "Reports of storage commitment (N-EVENT-REPORT) that answer nothing the node asked for",
)
WEB_REQUESTS_REFUSED: Final = _counter(
    "unibiomed_dicomweb_requests_refused",
    "DICOMweb requests that were answered with a failure",
    service=("QIDO-RS", "WADO-RS", "STOW-RS", "UPS-RS"),
    cause=get_args(WebCause),
)
NOT_HTTP: Final = _counter(
    "unibiomed_dicomweb_not_http", "Connections to the DICOMweb port that do not speak HTTP"
)
OBJECTS_SENT: Final = _counter(
    "unibiomed_objects_sent",
    "Objects that the node sent by C-STORE, by what the peer's status means",
    verdict=("stored", "warning", "retry", "final"),
)
