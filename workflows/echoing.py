"""Ask each destination by C-ECHO whether it is there, so that the dashboard can say so."""

from __future__ import annotations

from db.models_operation import EchoRecord
from db.operation import forget_echoes, note_echo
from dicom_node.services.storage_scu import verify
from workflows.network import destination_of
from workflows.node import Node
from workflows.settings import DestinationSettings


def echo_destinations(node: Node) -> None:
    """Ask all of them, one after the other; each has the deadlines of its settings."""
    for destination in node.settings.destinations:
        echo_destination(node, destination)
    with node.database.session() as session:
        forget_echoes(session, [one.name for one in node.settings.destinations])


def echo_destination(node: Node, destination: DestinationSettings) -> EchoRecord:
    """Ask one destination, and keep what it said."""
    answer = verify(destination_of(destination, node.settings.tls), node.settings.node.ae_title)
    with node.database.session() as session:
        return note_echo(
            session, destination.name, answer.ok, answer.seconds, answer.sentence, node.now()
        )
