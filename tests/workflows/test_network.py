"""How the node calls those that its settings name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.peer_test import try_peer
from dicom_node.archive import Archive
from dicom_node.peers import Peer, Peers
from dicom_node.services.association import ListenerSettings
from dicom_node.services.storage_scp import StorageScp
from dicom_node.services.storage_scu import verify
from dicom_node.services.tls import Tls, server_context
from tests.factories.certificates import Certificate, make_certificate
from workflows.home import Home
from workflows.network import known_entity
from workflows.settings import NodeSettings


@pytest.fixture
def secure(tmp_path: Path) -> Any:
    """A peer that listens with TLS alone, and the certificates of both."""
    ours = make_certificate(tmp_path / "tls", "node")
    theirs = make_certificate(tmp_path / "tls", "peer")
    context = server_context(Tls(theirs.path, theirs.key_path, pinned=(ours.path,)))
    nothing: Callable[[Any], None] = lambda _: None  # noqa: E731
    scp = StorageScp(
        ListenerSettings("PEER", "127.0.0.1", port=None, tls_port=0),
        Archive(tmp_path / "archive", reserve_bytes=0),
        lambda: Peers([Peer("node", "UNIBIOMED")]),
        on_stored=nothing,
        on_quarantined=nothing,
        on_released=nothing,
        on_refused=nothing,
        tls=lambda: context,
    )
    scp.start()
    yield scp, ours, theirs
    scp.stop(5)


def settings(port: int, ours: Certificate, **peer: Any) -> NodeSettings:
    entry = {"name": "peer", "ae_title": "PEER", "host": "127.0.0.1", "port": port, **peer}
    tls = {"port": 2762, "certificate": str(ours.path), "key": str(ours.key_path)}
    return NodeSettings.model_validate({"tls": tls, "peers": [entry]})


def test_a_peer_that_must_call_by_tls_is_called_by_tls(secure: Any) -> None:
    scp, ours, theirs = secure
    pinned = {"certificate": str(theirs.path)}
    for given, works in (
        (pinned, True),
        ({**pinned, "tls": True}, True),
        ({**pinned, "tls": False}, False),
        ({}, False),
        ({"requires_tls": True}, False),  # nobody signed its certificate, and it is not pinned
    ):
        there = known_entity(settings(scp.tls_port, ours, **given), "PEER")
        assert there is not None
        assert verify(there, "UNIBIOMED").ok is works, given


def test_peers_test_calls_it_by_tls_too(secure: Any, tmp_path: Path) -> None:
    scp, _, _ = secure
    home = Home(tmp_path)
    home.node_yaml.write_text(
        "tls: {port: 2762, certificate: tls/node.pem, key: tls/node.key}\n"
        "peers:\n  - {name: peer, ae_title: PEER, host: 127.0.0.1, "
        f"port: {scp.tls_port}, certificate: tls/peer.pem}}\n"
    )
    first = next(iter(try_peer(tmp_path, "peer", store=False, wait_seconds=0, say=print)))
    assert first.ok, first
