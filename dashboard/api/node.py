"""The node at a glance, its model, its settings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request

from dashboard.access import Admin, NodeOf, Viewer
from dashboard.overview import glance
from dashboard.rendering import zone_of
from dashboard.site import RELOADED, reload_files, sections_of
from db.listing import as_text
from workflows.configuration import check_configuration

router = APIRouter(prefix="/api")


@router.get("/overview", tags=["node"])
def overview(request: Request, node: NodeOf, actor: Viewer) -> dict[str, Any]:
    """Tell the figures of the first page."""
    found = glance(node, zone_of(request), request.app.state.growth)
    oldest, forecast, disk = found["oldest"], found["forecast"], found["disk"]
    return {
        "received_today": found["received"],
        "states": found["counts"],
        "ended_today": found["ended"],
        "failed": found["failed_open"],
        "last_image_to_proven_seconds": {
            "jobs": found["latency"].jobs,
            "median": found["latency"].median,
            "p95": found["latency"].p95,
        },
        "oldest_waiting": oldest and {"job": oldest[0], "received_at": as_text(oldest[1])},
        "hours": [
            {"begins_at": as_text(hour.begins_at), "delivered": hour.delivered,
             "failed": hour.failed}
            for hour in found["hours"]
        ],
        "queue": {
            "depth": forecast.waiting,
            "ended_last_hour": forecast.ended_last_hour,
            "empty_at": as_text(forecast.empty_at),
        },
        "disk": {
            "free": disk.free,
            "total": disk.total,
            "per_day": disk.per_day,
            "mean_of_days": disk.per_day_of,
            "full_in_days": disk.full_in_days,
            "says": disk.sentence,
        },
        "workers": [
            {"name": tile.record.name, "queue": tile.record.queue, "silent": tile.silent,
             "seen_at": as_text(tile.record.seen_at), "memory": tile.record.memory,
             "model": tile.record.model, "device": tile.record.device,
             "jobs": [number for number, _ in tile.jobs]}
            for tile in found["workers"]
        ],
        "silent_notices": [
            {"channel": one.channel, "waiting": one.waiting, "problem": one.sentence}
            for one in found["silences"]
        ],
        "missing_workers": found["missing"],
    }  # fmt: skip


@router.get("/model", tags=["node"])
def model(node: NodeOf, actor: Viewer) -> dict[str, Any]:
    """Return the model's card and the digest of its weights."""
    return {"digest": node.model.digest, "card": node.model.card.model_dump(mode="json")}


@router.get("/settings", tags=["node"])
def settings(node: NodeOf, actor: Admin) -> dict[str, Any]:
    """Return the settings in force, without secrets, and every mistake in the files."""
    return {
        "settings": {name: dict(values) for name, values in sections_of(node.settings)},
        "problems": [str(one) for one in check_configuration(node.home)],
    }


@router.post("/settings/reload", tags=["node"], status_code=202)
def reload(request: Request, node: NodeOf, actor: Admin) -> dict[str, str]:
    """Have all processes read ``node.yaml`` and ``rules.yaml`` again, if they have no mistake."""
    errors = reload_files(request, node)
    if errors:
        raise HTTPException(409, f"Nothing was changed: {' '.join(str(one) for one in errors)}")
    return {"sentence": RELOADED}
