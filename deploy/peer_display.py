"""Peers and destinations as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["peers_table"]

_SOON_DAYS = 30.0


def peers_table(listed: dict[str, Any]) -> Sequence[RenderableType]:
    """Return what `deploy.peer_list.peer_list` found, part by part."""
    parts: list[RenderableType] = [_peers(listed["peers"]), Text("")]
    parts += [_destinations(listed["destinations"])]
    if listed["certificate_days"] is not None:
        parts += [Text(""), Text("This node's certificate: ") + _days(listed["certificate_days"])]
    if listed["refused"]:
        parts += [Text(""), _refused(listed["refused"])]
    return parts


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _peers(peers: list[dict[str, Any]]) -> Table:
    table = _table("peer", "AE title", "calls from", "may", "TLS", "last call")
    for peer in peers:
        last = peer["last_call"]
        table.add_row(
            Text(peer["name"]),
            Text(peer["ae_title"]),
            Text(peer.get("host", "anywhere")),
            Text(", ".join(peer["allow"])),
            _tls(peer, peer.get("requires_tls", False)),
            Text("never" if last is None else f"{_when(last['at'])} from {last['host']}"),
        )
    return table


def _destinations(destinations: list[dict[str, Any]]) -> Table:
    table = _table("destination", "address", "proof by", "TLS")
    for one in destinations:
        table.add_row(
            Text(one["name"]),
            Text(one["address"]),
            Text(one["confirm"]),
            _tls(one, one["tls"]),
        )
    return table


def _refused(refused: list[dict[str, Any]]) -> Table:
    table = _table("refused", "last", "why, and how to allow it")
    for one in refused:
        table.add_row(f"{one['count']} times", _when(one["last_at"]), Text(one["sentence"]))
    return table


def _tls(entry: dict[str, Any], is_on: bool) -> Text:
    if entry["certificate_days"] is not None:
        return Text("pinned certificate: ") + _days(entry["certificate_days"])
    if entry.get("certificate"):
        return Text("its certificate file cannot be read", style="bold red")
    return Text("yes" if is_on else "")


def _days(days: float) -> Text:
    if days < 0:
        return Text(f"expired {-days:.0f} days ago", style="bold red")
    return Text(f"valid for {days:.0f} days", style="yellow" if days < _SOON_DAYS else "")


def _when(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M}"
