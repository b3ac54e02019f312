"""How full the archive's disk is, and on which day it will be full: for pages, metrics and log."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from db.figures import bytes_since, received_since
from workflows.node import Node

_LOG = logging.getLogger(__name__)
_GROWTH_DAYS: Final = 7
_IN_SIGHT_DAYS: Final = 36_500
_SOON_DAYS: Final = 14.0


@dataclass(frozen=True, slots=True)
class Disk:
    """The archive's disk, in bytes, and when it is full.

    Attributes
    ----------
    free
        Above the reserve below which nothing more is taken in.
    per_day
        What comes in; None where that is not known yet.
    full_in_days
        None where that is not in sight; the sentence says why.
    """

    total: int
    free: int
    per_day: float | None
    full_in_days: float | None
    sentence: str

    def full_at(self, now: datetime) -> datetime | None:
        """Return the day on which it is full, where one is in sight."""
        return None if self.full_in_days is None else now + timedelta(days=self.full_in_days)


def growth_per_day(node: Node, now: datetime) -> float:
    """Return bytes per day over the last week; reads a row for each instance."""
    with node.database.reading() as session:
        return bytes_since(session, now - timedelta(days=_GROWTH_DAYS)) / _GROWTH_DAYS


def forecast_disk(node: Node, per_day: float | None) -> Disk:
    """Say how full the archive's disk is, and when it will be, at this rate."""
    try:
        usage = shutil.disk_usage(node.home.archive)
    except OSError as error:
        return Disk(0, 0, None, None, f"The archive's disk cannot be read: {error.strerror}.")
    free = max(0, usage.free - node.settings.storage.reserve)
    if not free:
        return Disk(usage.total, 0, per_day, 0.0, "Full: senders are refused (A700).")
    if per_day is None:
        return Disk(usage.total, free, None, None, "The forecast is being computed.")
    if per_day <= 0 and _has_begun(node):
        # The rate is computed now and then, and beside it a page shows what just came.
        text = "Too early to tell: images came in that are not counted yet."
        return Disk(usage.total, free, None, None, text)
    if per_day <= 0:
        return Disk(usage.total, free, 0.0, None, "Nothing came in for a week: no forecast.")
    days = free / per_day
    keep = node.settings.retention.studies_days
    if keep is not None and days > keep:
        text = f"Not in sight: images are deleted after {keep} days, before it is full."
        return Disk(usage.total, free, per_day, None, text)
    if days > _IN_SIGHT_DAYS:
        text = "Not in sight: at this rate it takes more than a hundred years."
        return Disk(usage.total, free, per_day, None, text)
    return Disk(usage.total, free, per_day, days, "")


def _has_begun(node: Node) -> bool:
    with node.database.reading() as session:
        return received_since(session, node.now() - timedelta(days=_GROWTH_DAYS)) > 0


def log_forecast(node: Node) -> Disk:
    """Write a line when the disk will be full soon, or is; returns the forecast."""
    now = node.now()
    disk = forecast_disk(node, growth_per_day(node, now))
    day = disk.full_at(now)
    if day is not None and (disk.full_in_days or 0.0) < _SOON_DAYS:
        _LOG.warning(
            "the archive's disk is full about %s: %.1f GiB are free, %.1f GiB a day come in; free "
            "some, or shorten retention.studies_days",
            f"{day:%Y-%m-%d}",
            disk.free / 2**30,
            (disk.per_day or 0.0) / 2**30,
        )
    return disk
