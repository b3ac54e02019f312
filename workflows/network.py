"""The administrator's settings as the DICOM services take them."""

from __future__ import annotations

from dicom_node.peers import Peer, Peers
from dicom_node.services.association import Destination, ListenerSettings, Timeouts
from workflows.settings import DestinationSettings, NodeSettings


def peers_of(settings: NodeSettings) -> Peers:
    """Return the table of those who may call."""
    return Peers(
        Peer(
            name=peer.name,
            ae_title=peer.ae_title,
            host=peer.host,
            port=peer.port,
            allow=frozenset(peer.allow),
            quiet_seconds=peer.quiet_seconds,
            release_completes=peer.release_completes,
        )
        for peer in settings.peers
    )


def listener_settings_of(settings: NodeSettings) -> ListenerSettings:
    """Return how the node listens."""
    node, listener = settings.node, settings.listener
    return ListenerSettings(
        ae_title=node.ae_title,
        host=node.host,
        port=node.port,
        check_called_ae_title=listener.check_called_ae_title,
        max_associations=listener.max_associations,
        max_pdu=listener.max_pdu,
        acse_timeout=listener.acse_timeout_seconds,
        network_timeout=listener.network_timeout_seconds,
        idle_timeout=listener.idle_timeout_seconds,
    )


def destination_of(settings: DestinationSettings) -> Destination:
    """Return a destination as the senders take it."""
    return Destination(
        name=settings.name,
        ae_title=settings.ae_title,
        host=settings.host,
        port=settings.port,
        seg_encoding=settings.seg_encoding,
        timeouts=Timeouts(
            connection=settings.connection_timeout_seconds,
            acse=settings.acse_timeout_seconds,
            dimse=settings.dimse_timeout_seconds,
            network=settings.network_timeout_seconds,
        ),
        garbles_unaligned=settings.garbles_unaligned,
    )
