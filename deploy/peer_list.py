"""Peers and destinations with what was heard of them, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.node_database import NoNodeError, open_database
from dicom_node.errors import FinalError
from dicom_node.peers import Peers
from dicom_node.services.tls import certificates_in, days_left
from workflows.callers import calls_in
from workflows.home import Home
from workflows.network import peers_of
from workflows.settings import load
from workflows.yaml_positions import ConfigurationError

__all__ = ["PeerListError", "peer_list"]


class PeerListError(Exception):
    """``node.yaml`` cannot be read; the text says why."""


def peer_list(folder: Path) -> dict[str, Any]:
    """Return ``peers``, ``destinations`` and ``refused`` of the node at `folder`.

    Raises
    ------
    PeerListError
        There is no configuration, or it has a mistake.
    """
    home = Home(folder.expanduser().resolve())
    try:
        settings = load(home.node_yaml)
    except (ConfigurationError, OSError) as error:
        raise PeerListError(str(error)) from error
    calls = calls_in(home.callers_json)
    table = peers_of(settings)
    peers = []
    for entry in settings.peers:
        heard = [
            one for one in calls if _name_of(table, one.calling_ae_title, one.host) == entry.name
        ]
        last = max(heard, key=lambda one: one.at, default=None)
        peers.append(
            {
                **entry.model_dump(exclude_none=True),
                "last_call": None if last is None else {"at": last.at, "host": last.host},
                "certificate_days": _days(entry.certificate),
            }
        )
    destinations = [
        {
            **entry.model_dump(
                include={"name", "ae_title", "host", "port", "url", "confirm", "certificate"},
                exclude_none=True,
            ),
            "address": f"{entry.title} at {entry.place}",
            "tls": entry.tls,
            "certificate_days": _days(entry.certificate),
        }
        for entry in settings.destinations
    ]
    return {
        "peers": peers,
        "destinations": destinations,
        "refused": _refused(folder),
        "certificate_days": _days(settings.tls.certificate),
    }


def _name_of(table: Peers, calling: str, host: str) -> str | None:
    peer = table.find(calling, host)
    return None if peer is None else peer.name


def _days(certificate: str | None) -> float | None:
    """Return for how many days a certificate file still holds; None without a readable one."""
    if certificate is None:
        return None
    try:
        return round(max(days_left(one) for one in certificates_in(Path(certificate))), 1)
    except FinalError:
        return None


def _refused(folder: Path) -> list[dict[str, Any]]:
    from db.reports import refusals

    try:
        with open_database(folder) as session:
            return refusals(session)
    except NoNodeError:
        return []
