"""Ask each destination whether it is there, so that the dashboard can say so."""

from __future__ import annotations

from db.models_operation import EchoRecord
from db.operation import forget_echoes, note_echo
from workflows.carriers import carrier_of
from workflows.destination_settings import DestinationSettings
from workflows.node import Node


def echo_destinations(node: Node) -> None:
    """Ask all of them, one after the other; each has the deadlines of its settings."""
    for destination in node.settings.destinations:
        echo_destination(node, destination)
    with node.database.session() as session:
        forget_echoes(session, [one.name for one in node.settings.destinations])


def echo_destination(node: Node, destination: DestinationSettings) -> EchoRecord:
    """Ask one destination, and keep what it said."""
    answer = carrier_of(destination, node.settings).verify()
    with node.database.session() as session:
        return note_echo(
            session, destination.name, answer.ok, answer.seconds, answer.sentence, node.now()
        )
