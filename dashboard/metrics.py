"""Figures for Prometheus: ``/metrics``, for a token with the role viewer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.responses import Response

from dashboard.access import NodeOf, Viewer
from dashboard.overview import glance
from dashboard.rendering import zone_of
from db.figures import ended_since
from db.operation import quarantine_count
from workflows.counting import totals
from workflows.node import Node

router = APIRouter(include_in_schema=False)


class NodeFigures(Collector):
    """Reads the node's figures when it is scraped; what processes count is in the database."""

    def __init__(self, node: Node, request: Request) -> None:
        self._node = node
        self._request = request

    def collect(self) -> Iterator[Metric]:
        """Give the figures."""
        found = glance(self._node, zone_of(self._request), self._request.app.state.growth)
        now = self._node.now()
        with self._node.database.reading() as session:
            ended = ended_since(session, now - timedelta(hours=1))
            quarantined = quarantine_count(session)
            counters = list(totals(session))
        yield _by("unibiomed_jobs", "Jobs under way, by state", "state", found["counts"])
        yield _by("unibiomed_jobs_ended_last_hour", "Jobs that ended", "state", ended)
        text = "Failed jobs that wait for a person"
        yield _one("unibiomed_jobs_failed", text, found["failed_open"])
        yield _one("unibiomed_studies_received_today", "Studies since midnight", found["received"])
        yield _one("unibiomed_quarantined_objects", "Objects in quarantine", quarantined)
        oldest = found["oldest"]
        age = (now - oldest[1]).total_seconds() if oldest else 0.0
        yield _one("unibiomed_oldest_waiting_seconds", "Age of the oldest waiting job", age)
        latency = found["latency"]
        if latency.jobs:
            parts = {"0.5": latency.median, "0.95": latency.p95}
            text = "Last image to proven in the PACS, last 24 hours"
            yield _by("unibiomed_last_image_to_proven_seconds", text, "quantile", parts)
        disk = found["disk"]
        yield _one("unibiomed_disk_free_bytes", "Free for images, above the reserve", disk.free)
        yield _one("unibiomed_disk_total_bytes", "Size of the archive's disk", disk.total)
        if disk.full_in_days is not None:
            text = "Days until the archive's disk is full; absent where that is not in sight"
            yield _one("unibiomed_disk_full_in_days", text, disk.full_in_days)
        tiles = found["workers"]
        alive = {tile.record.name: 0 if tile.silent else 1 for tile in tiles}
        yield _by("unibiomed_worker_up", "Whether a worker tells of itself", "worker", alive)
        used = {tile.record.name: tile.record.memory for tile in tiles}
        yield _by("unibiomed_worker_memory_bytes", "Resident memory", "worker", used)
        busy = {
            tile.record.name: tile.record.device["utilisation"]
            for tile in tiles
            if "utilisation" in tile.record.device
        }
        yield _by("unibiomed_gpu_utilisation_percent", "As the driver tells it", "worker", busy)
        answers = {name: float(echo.answers) for name, echo in found["echoes"].items()}
        silent = {one.name: 0.0 for one in self._node.settings.notices}
        silent |= {one.channel: float(one.waiting) for one in found["silences"]}
        text = "Notices that were tried and not taken, by channel"
        yield _by("unibiomed_notices_waiting", text, "channel", silent)
        collectors = found["collectors"]
        unsent = {one.name: float(one.unsent) for one in collectors}
        text = "Audit records that a collector does not have yet"
        yield _by("unibiomed_audit_unsent_records", text, "collector", unsent)
        reached = {one.name: 0.0 if one.failures else 1.0 for one in collectors}
        text = "Whether a collector took the audit trail the last time"
        yield _by("unibiomed_audit_collector_up", text, "collector", reached)
        text = "Whether a destination answered its last C-ECHO"
        yield _by("unibiomed_destination_up", text, "destination", answers)
        yield from counters


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


@router.get("/metrics")
def metrics(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """Write the figures in the format that the scraper asks for."""
    registry = CollectorRegistry()
    registry.register(NodeFigures(node, request))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": content_type})
