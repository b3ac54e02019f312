"""Which of the objects that this node writes a destination takes, and how encoded."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from db.probes import record_probe
from dicom_node.services.probing import ProbeResult, probe, probe_web
from workflows.destination_settings import (
    AeDestinationSettings,
    DestinationSettings,
    WebDestinationSettings,
)
from workflows.forms import consequences
from workflows.network import destination_of, web_destination_of
from workflows.node import Node

SOP_CLASSES: Final = {
    "1.2.840.10008.1.1": "Verification",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation",
    "1.2.840.10008.5.1.4.1.1.88.34": "Comprehensive 3D SR",
    "1.2.840.10008.5.1.4.1.1.88.22": "Enhanced SR",
    "1.2.840.10008.5.1.4.1.1.88.59": "Key Object Selection",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.104.1": "Encapsulated PDF",
    "1.2.840.10008.5.1.4.1.1.481.3": "RT Structure Set",
    "1.2.840.10008.5.1.4.1.2.2.1": "Study Root FIND",
    "1.2.840.10008.5.1.4.1.2.2.2": "Study Root MOVE",
    "1.2.840.10008.1.20.1": "Storage Commitment",
}
TRANSFER_SYNTAXES: Final = {
    "1.2.840.10008.1.2": "Implicit LE",
    "1.2.840.10008.1.2.1": "Explicit LE",
    "1.2.840.10008.1.2.1.99": "Deflated",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}


def probe_destination(node: Node, destination: DestinationSettings) -> ProbeResult:
    """Ask a destination, with the deadlines of its settings, and keep what it answered.

    The next job goes by it. Without an answer the one before stays.
    """
    if isinstance(destination, WebDestinationSettings):
        return probe_web(web_destination_of(destination, node.settings.tls))
    if not isinstance(destination, AeDestinationSettings):
        raise TypeError(f"no probe is known for a {type(destination).__name__}")
    answer = probe(
        destination_of(destination, node.settings.tls),
        list(SOP_CLASSES),
        list(TRANSFER_SYNTAXES),
        node.settings.node.ae_title,
    )
    if answer.accepted is None:
        return answer
    with node.database.session() as session:
        record_probe(session, destination.name, answer.accepted, node.now())
    return replace(answer, told=tuple(consequences(destination, answer.accepted)))
