"""The first page: what came in, what waits, what runs, what failed, what was delivered."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from dashboard.access import NodeOf, Viewer
from dashboard.assets import KEPT_FOR_GOOD
from dashboard.rendering import render, zone_of
from db.audit_positions import collector_states
from db.figures import (
    Hour,
    echoes,
    ended_since,
    failed_count,
    hours,
    jobs_in_hand,
    last_images,
    latency_since,
    oldest_waiting,
    received_since,
    state_counts,
    workers,
)
from db.models_operation import WorkerRecord
from db.notices import silent_channels
from db.session import DATABASE_ERRORS
from workflows.callers import calls_in
from workflows.disk_forecast import Intake, base_of, forecast_disk, intake_of
from workflows.node import Node

router = APIRouter(include_in_schema=False)
SILENT_AFTER: Final = timedelta(seconds=35)
"""A worker tells of itself each ten seconds; this is three of them, and a little more."""
QUEUES: Final = ("io", "gpu", "deliver")
_WAITING: Final = ("received", "waiting", "queued")
_RUNNING: Final = ("preparing", "inferring", "encoding", "validating", "delivering", "confirming")
_GROWTH_SECONDS: Final = 600.0
_FIRST_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class WorkerTile:
    """A worker as the page shows it."""

    record: WorkerRecord
    silent: bool
    jobs: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Forecast:
    """When the queue is empty at the rate of the last hour; a sentence where that is not known."""

    waiting: int
    ended_last_hour: int
    empty_at: datetime | None
    sentence: str


class Growth:
    """How much comes in: summed seldom, because it reads a row for each instance."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._intake: Intake | None = None
        self._asked_at: datetime | None = None

    def intake(self, node: Node, now: datetime) -> Intake | None:
        """Return what came in lately; ``None`` until that is known."""
        with self._guard:
            asked = self._asked_at
            # Of a node that has just begun to receive, the first sum is soon wrong.
            young = self._intake is None or self._intake.days < 1
            good_for = _FIRST_SECONDS if young else _GROWTH_SECONDS
            if asked is not None and (now - asked).total_seconds() < good_for:
                return self._intake
            self._asked_at = now
        threading.Thread(target=self._sum, args=(node, now), daemon=True).start()
        return self._intake

    def _sum(self, node: Node, now: datetime) -> None:
        try:
            intake = intake_of(node, now)
        except DATABASE_ERRORS:
            with self._guard:
                self._asked_at = None
            return
        with self._guard:
            self._intake = intake


@router.get("/")
def overview(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """Show the node at a glance."""
    return render(
        request, "overview.html", **glance(node, zone_of(request), request.app.state.growth)
    )


def glance(node: Node, zone: Any, growth: Growth) -> dict[str, Any]:
    """Collect what the first page shows."""
    now = node.now()
    midnight = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    titles = [peer.ae_title for peer in node.settings.peers]
    with node.database.reading() as session:
        counts = state_counts(session)
        ended = ended_since(session, midnight)
        per_hour = hours(session, now)
        found = {
            "received": received_since(session, midnight),
            "failed_open": failed_count(session),
            "latency": latency_since(session, now - timedelta(hours=24)),
            "oldest": oldest_waiting(session),
            "echoes": echoes(session),
            "images": last_images(session, titles),
            "silences": silent_channels(session, [one.name for one in node.settings.notices]),
            "collectors": collector_states(session, [one.name for one in node.settings.audit]),
        }
        tiles = worker_tiles(workers(session), jobs_in_hand(session), now)
    waiting = sum(counts[state] for state in _WAITING)
    return {
        **found,
        "counts": counts,
        "waiting": waiting,
        "running": sum(counts[state] for state in _RUNNING),
        "ended": ended,
        "hours": per_hour,
        "highest": max((hour.delivered + hour.failed for hour in per_hour), default=0),
        "forecast": forecast(waiting + sum(counts[state] for state in _RUNNING), per_hour, now),
        "workers": tiles,
        "missing": [
            queue
            for queue in QUEUES
            if not any(tile.record.queue == queue and not tile.silent for tile in tiles)
        ],
        "disk": forecast_disk(node, growth.intake(node, now)),
        "base_of": base_of,
        "peers": node.settings.peers,
        "destinations": node.settings.destinations,
        "calls": {call.calling_ae_title: call.at for call in calls_in(node.home.callers_json)},
    }


def worker_tiles(
    records: list[WorkerRecord], held: dict[str, list[tuple[int, str]]], now: datetime
) -> list[WorkerTile]:
    """Join workers with the jobs that stand under their processes' names."""
    tiles = []
    for record in records:
        owners = [f"worker@{record.host}:{process}" for process in record.processes]
        jobs = [job for owner in owners for job in held.get(owner, [])]
        tiles.append(WorkerTile(record, now - record.seen_at > SILENT_AFTER, jobs))
    return tiles


def forecast(depth: int, per_hour: list[Hour], now: datetime) -> Forecast:
    """Say when what waits and runs is done, at the rate of the last hour."""
    rate = per_hour[-1].delivered + per_hour[-1].failed if per_hour else 0
    if depth == 0:
        return Forecast(0, rate, None, "The queue is empty.")
    if rate == 0:
        return Forecast(depth, 0, None, "No job ended in the last hour, so there is no forecast.")
    at = now + timedelta(hours=depth / rate)
    return Forecast(depth, rate, at, "")


@router.get("/site.css")
def site_colour(
    node: NodeOf, named: Annotated[str, Query(alias="colour", max_length=16)] = ""
) -> Response:
    """Give the site's colour, and black or white on it, whichever is read better (WCAG 2.2).

    Pages name the colour in the address, so that browsers keep the answer until it is another one.
    """
    colour = node.settings.dashboard.colour
    on_site = "#ffffff" if _luminance(colour) < 0.183 else "#10181d"
    return Response(
        f":root {{ --site: {colour}; --on-site: {on_site}; }}\n",
        media_type="text/css",
        headers={"Cache-Control": KEPT_FOR_GOOD} if named == colour else None,
    )


def _luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.2, definition of relative luminance)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


__all__ = ["Growth", "glance", "router"]
