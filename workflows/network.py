"""The administrator's settings as the DICOM services take them."""

from __future__ import annotations

import ssl
from pathlib import Path

from dicom_node.peers import Peer, Peers
from dicom_node.services.association import Destination, ListenerSettings, Timeouts
from dicom_node.services.tls import (
    ProfileName,
    Tls,
    client_context,
    fingerprints,
    server_context,
)
from dicom_node.services.web_connection import OAuth2, WebDestination
from workflows.audit_settings import CollectorSettings
from workflows.configuration import Configuration
from workflows.destination_settings import (
    AeDestinationSettings,
    DestinationSettings,
    WebDestinationSettings,
)
from workflows.settings import NodeSettings, PeerSettings, TlsSettings
from workflows.worklist_settings import WorklistSettings


def peers_of(settings: NodeSettings) -> Peers:
    """Return the table of those who may call, as far as files need not be read for it.

    It tells who a caller was; whether one is let in, `admitted_by` says.
    """
    return Peers(_peer(peer, frozenset()) for peer in settings.peers)


def admitted_by(configuration: Configuration) -> Peers:
    """Return the table of those who may call, with certificates, and the node's further names.

    Raises
    ------
    dicom_node.errors.FinalError
        A certificate's file cannot be read.
    """
    entries = [
        _peer(peer, fingerprints([Path(peer.certificate)] if peer.certificate else []))
        for peer in configuration.settings.peers
    ]
    return Peers(entries, called=configuration.rules.called_ae_titles)


def _peer(peer: PeerSettings, certificates: frozenset[str]) -> Peer:
    return Peer(
        name=peer.name,
        ae_title=peer.ae_title,
        host=peer.host,
        port=peer.port,
        allow=frozenset(peer.allow),
        quiet_seconds=peer.quiet_seconds,
        release_completes=peer.release_completes,
        max_associations=peer.max_associations,
        requires_tls=peer.requires_tls,
        certificates=certificates,
    )


def server_tls_of(settings: NodeSettings) -> ssl.SSLContext | None:
    """Return the context of the port for TLS, or None without such a port.

    Raises
    ------
    dicom_node.errors.FinalError
        A file cannot be used; the sentence names it.
    """
    tls = settings.tls
    if tls.port is None:
        return None
    pinned = tuple(Path(peer.certificate) for peer in settings.peers if peer.certificate)
    return server_context(_tls(tls, pinned, tls.profile), mutual=tls.mutual)


def web_tls_of(settings: NodeSettings) -> ssl.SSLContext | None:
    """Return the context of the DICOMweb server, or None where it is without TLS.

    A certificate is asked for, not insisted on: users may prove themselves by a token instead.

    Raises
    ------
    dicom_node.errors.FinalError
        A file cannot be used; the sentence names it.
    """
    if not settings.dicomweb.tls:
        return None
    tls = settings.tls
    pinned = tuple(Path(one.certificate) for one in settings.dicomweb.users if one.certificate)
    context = server_context(_tls(tls, pinned, tls.profile), mutual=False)
    if pinned or tls.authorities is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def collector_tls_of(settings: NodeSettings, collector: CollectorSettings) -> ssl.SSLContext | None:
    """Return the context for a collector of the audit trail; None where it is without TLS.

    Raises
    ------
    dicom_node.errors.FinalError
        A file cannot be used; the sentence names it.
    """
    if collector.transport != "tls":
        return None
    tls = settings.tls
    pinned = (Path(collector.certificate),) if collector.certificate else ()
    return client_context(_tls(tls, pinned, collector.tls_profile or tls.profile))


def _tls(tls: TlsSettings, pinned: tuple[Path, ...], profile: ProfileName) -> Tls:
    return Tls(
        certificate=None if tls.certificate is None else Path(tls.certificate),
        key=None if tls.key is None else Path(tls.key),
        key_password=tls.key_password,
        authorities=None if tls.authorities is None else Path(tls.authorities),
        pinned=pinned,
        profile=profile,
    )


def listener_settings_of(settings: NodeSettings) -> ListenerSettings:
    """Return how the node listens."""
    node, listener = settings.node, settings.listener
    return ListenerSettings(
        ae_title=node.ae_title,
        host=node.host,
        port=node.port if settings.tls.plain else None,
        tls_port=settings.tls.port,
        check_called_ae_title=listener.check_called_ae_title,
        max_associations=listener.max_associations,
        max_pdu=listener.max_pdu,
        acse_timeout=listener.acse_timeout_seconds,
        network_timeout=listener.network_timeout_seconds,
        idle_timeout=listener.idle_timeout_seconds,
    )


def known_entity(settings: NodeSettings, ae_title: str) -> Destination | None:
    """Return whom an AE title stands for in calls by the node: a destination, or else a peer.

    Only peers with a host of their own (no network) and a port can be called.
    """
    for destination in settings.destinations:
        if not isinstance(destination, AeDestinationSettings):
            continue
        if destination.ae_title == ae_title:
            return destination_of(destination, settings.tls)
    for peer in settings.peers:
        if peer.ae_title == ae_title and (called := called_peer(peer, settings.tls)) is not None:
            return called
    return None


def called_peer(peer: PeerSettings, tls: TlsSettings) -> Destination | None:
    """Return how a peer is called by the node; None where its address is not known.

    One that must call by TLS is called by TLS, and believed by the certificate that it must show.
    """
    if not peer.host or peer.port is None or "/" in peer.host:
        return None
    is_secure = peer.requires_tls or bool(peer.certificate) if peer.tls is None else peer.tls
    pinned = (Path(peer.certificate),) if peer.certificate else ()
    return Destination(
        peer.name,
        peer.ae_title,
        peer.host,
        peer.port,
        tls=_tls(tls, pinned, tls.profile) if is_secure else None,
    )


def destination_of(settings: AeDestinationSettings, tls: TlsSettings) -> Destination:
    """Return a destination as the senders take it; `tls` says who the node is there."""
    pinned = (Path(settings.certificate),) if settings.certificate else ()
    return Destination(
        name=settings.name,
        ae_title=settings.ae_title,
        host=settings.host,
        port=settings.port,
        seg_encoding=settings.seg_encoding,
        timeouts=_timeouts(settings),
        garbles_unaligned=settings.garbles_unaligned,
        tls=_tls(tls, pinned, settings.tls_profile or tls.profile) if settings.tls else None,
    )


def web_destination_of(settings: WebDestinationSettings, tls: TlsSettings) -> WebDestination:
    """Return a DICOMweb destination as its client takes it; `tls` says who the node is there."""
    return _web_service(settings, tls, _timeouts(settings))


def worklist_of(settings: WorklistSettings, tls: TlsSettings) -> WebDestination:
    """Return a worklist elsewhere as its client takes it; `tls` says who the node is there."""
    answer = settings.answer_timeout_seconds
    timeouts = Timeouts(settings.connection_timeout_seconds, answer, answer, answer)
    return _web_service(settings, tls, timeouts)


def _web_service(
    settings: WebDestinationSettings | WorklistSettings, tls: TlsSettings, timeouts: Timeouts
) -> WebDestination:
    pinned = (Path(settings.certificate),) if settings.certificate else ()
    ours = None
    if pinned or tls.certificate is not None or tls.authorities is not None:
        ours = _tls(tls, pinned, settings.tls_profile or tls.profile)
    oauth2 = settings.oauth2
    return WebDestination(
        name=settings.name,
        url=settings.url,
        tls=ours,
        user=settings.user or "",
        password=settings.password or "",
        token=settings.token or "",
        oauth2=None if oauth2 is None else OAuth2(**oauth2.model_dump()),
        timeouts=timeouts,
    )


def _timeouts(settings: DestinationSettings) -> Timeouts:
    return Timeouts(
        connection=settings.connection_timeout_seconds,
        acse=settings.acse_timeout_seconds,
        dimse=settings.dimse_timeout_seconds,
        network=settings.network_timeout_seconds,
    )
