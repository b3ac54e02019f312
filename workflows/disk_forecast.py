"""How full the archive's disk is, and on which day it will be full: for pages, metrics and log."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from db.figures import bytes_since, first_instance_at, received_since
from db.promises import promised_studies
from workflows.node import Node

_LOG = logging.getLogger(__name__)
_GROWTH_DAYS: Final = 7
_DAY: Final = timedelta(days=1)
_SHORTEST_DAYS: Final = 1 / 24
_IN_SIGHT_DAYS: Final = 36_500
_SOON_DAYS: Final = 14.0


@dataclass(frozen=True, slots=True)
class Intake:
    """What came in, in bytes, as far as it tells what will come.

    Attributes
    ----------
    received
        In the last `days`.
    days
        Whole days, at most seven: over a part of a day, a rate has more of its mornings or more of
        its nights. Less than one before the first day is over; 0 where nothing ever came.
    kept
        What is kept of the days after which retention deletes images; 0 where it deletes none.
    kept_days
        The days in which that came.
    """

    received: int
    days: float
    kept: int = 0
    kept_days: float = 0.0

    @property
    def per_day(self) -> float:
        """Bytes a day; before an hour is over as if it were one."""
        return self.received / max(self.days, _SHORTEST_DAYS)


@dataclass(frozen=True, slots=True)
class Disk:
    """The archive's disk, in bytes, and when it is full.

    Attributes
    ----------
    free
        Above the reserve below which nothing more is taken in.
    per_day
        What comes in; None where that is not known yet.
    per_day_of
        The days of which that is the mean; less than one on a node's first day.
    full_in_days
        None where that is not in sight; the sentence says why.
    """

    total: int
    free: int
    per_day: float | None
    full_in_days: float | None
    sentence: str
    per_day_of: float | None = None

    def full_at(self, now: datetime) -> datetime | None:
        """Return the day on which it is full, where one is in sight."""
        return None if self.full_in_days is None else now + timedelta(days=self.full_in_days)


def intake_of(node: Node, now: datetime) -> Intake:
    """Sum what came in lately; reads a row for each instance of those days.

    Days of which retention has deleted images already do not count: they would look quiet.
    """
    keep = node.settings.retention.studies_days
    with node.database.reading() as session:
        first = first_instance_at(session)
        if first is None:
            return Intake(0, 0.0)
        age = max(0.0, (now - first) / _DAY)
        days = age if age < 1 else float(min(_GROWTH_DAYS, keep or _GROWTH_DAYS, int(age)))
        received = bytes_since(session, now - max(days, _SHORTEST_DAYS) * _DAY)
        if keep is None:
            return Intake(received, days)
        kept_days = min(age, keep)
        return Intake(received, days, bytes_since(session, now - kept_days * _DAY), kept_days)


def forecast_disk(node: Node, intake: Intake | None) -> Disk:
    """Say how full the archive's disk is, and when it will be, at the rate of lately.

    Results and what jobs have in work are not in the rate; they are small beside the images.
    """
    try:
        usage = shutil.disk_usage(node.home.archive)
    except OSError as error:
        return Disk(0, 0, None, None, f"The archive's disk cannot be read: {error.strerror}.")
    free = max(0, usage.free - node.settings.storage.reserve)
    if not free:
        per_day = None if intake is None else intake.per_day
        return Disk(usage.total, 0, per_day, 0.0, "Full: senders are refused (A700).")
    if intake is None:
        return Disk(usage.total, free, None, None, "The forecast is being computed.")
    if not intake.received and _has_begun(node):
        # The rate is computed now and then, and beside it a page shows what just came.
        text = "Too early to tell: images came in that are not counted yet."
        return Disk(usage.total, free, None, None, text)
    if not intake.received:
        text = f"Nothing came in for {_days(intake.days)}: no forecast."
        text = text if intake.days else "Nothing came in yet: no forecast."
        return Disk(usage.total, free, 0.0, None, text, intake.days)
    days, sentence = _full_in(intake, free, _deleted_after(node))
    return Disk(usage.total, free, intake.per_day, days, sentence, intake.days)


def _deleted_after(node: Node) -> int | None:
    """Return after how many days images go; None where some never do, which counts as for all."""
    retention = node.settings.retention
    if retention.archive is None:
        with node.database.reading() as session:
            if promised_studies(session):
                # The node committed to them, and no archive is named that could take them over.
                return None
    return retention.studies_days


def _full_in(intake: Intake, free: int, keep: int | None) -> tuple[float | None, str]:
    """Return in how many days `free` is used up; None, and why, where that is not in sight."""
    per_day = intake.per_day
    days = free / per_day
    if intake.days < 1 and days >= _SOON_DAYS:
        return None, f"Too early to tell: all that is known is the first {_hours(intake.days)}."
    # So long nothing of what is kept now is old enough to be deleted.
    untouched = days if keep is None else keep - intake.kept_days
    if keep is not None and days > untouched:
        if per_day * keep <= intake.kept + free:
            # There is room for as much as is kept once each day takes as much away as it brings.
            text = f"Not in sight: images are deleted after {keep} days, before it is full."
            return None, text
        leaving = intake.kept / intake.kept_days if intake.kept_days else 0.0
        days = (free - leaving * untouched) / (per_day - leaving)
    if days > _IN_SIGHT_DAYS:
        return None, "Not in sight: at this rate it takes more than a hundred years."
    return days, ""


def base_of(days: float) -> str:
    """Say of what a rate is the mean: ``mean of 3 days``, ``at the rate of the first 5 hours``."""
    return f"mean of {_days(days)}" if days >= 1 else f"at the rate of the first {_hours(days)}"


def _hours(days: float) -> str:
    hours = max(1, round(days * 24))
    return "hour" if hours == 1 else f"{hours} hours"


def _days(days: float) -> str:
    """Name a span: ``a week``, ``3 days``, ``a day``."""
    return {7: "a week", 1: "a day"}.get(int(days), f"{int(days)} days")


def _has_begun(node: Node) -> bool:
    with node.database.reading() as session:
        return received_since(session, node.now() - timedelta(days=_GROWTH_DAYS)) > 0


def log_forecast(node: Node) -> Disk:
    """Write a line when the disk will be full soon, or is; returns the forecast."""
    now = node.now()
    disk = forecast_disk(node, intake_of(node, now))
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
