"""A job's stages as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dashboard.rendering import as_time


@dataclass(frozen=True, slots=True)
class Bar:
    """One stage on the way.

    Attributes
    ----------
    stage, attempt, note, owner
        As the record has them.
    begins, waits, works
        Where the bar begins, and how long it waited for a worker and was worked on; parts of the
        whole way, 0 to 1.
    seconds, waited_seconds
        How long in all, and how much of it passed before a worker took it up; None where a stage
        goes on without being taken up.
    open
        Whether it goes on.
    """

    stage: str
    attempt: int
    note: str
    owner: str
    started_at: datetime
    begins: float
    waits: float
    works: float
    seconds: float
    waited_seconds: float | None
    open: bool


def timeline_of(stages: Sequence[Mapping[str, Any]], now: datetime) -> list[Bar]:
    """Lay the stages of `db.listing.job_as_json` on one scale, from the first start to the end."""
    spans = []
    for stage in stages:
        begun = as_time(stage["started_at"]) or now
        claimed = as_time(stage["claimed_at"])
        ended = as_time(stage["ended_at"]) or max(now, begun)
        spans.append((stage, begun, claimed, ended))
    # An end state has a row of its own that never ends.
    ended_states = ("delivered", "failed", "cancelled", "not_applicable", "superseded")
    spans = [span for span in spans if span[0]["stage"] not in ended_states]
    if not spans:
        return []
    first = min(begun for _, begun, _, _ in spans)
    whole = max((max(ended for *_, ended in spans) - first).total_seconds(), 1e-6)
    bars = []
    for stage, begun, claimed, ended in spans:
        seconds = (ended - begun).total_seconds()
        waited = None if claimed is None else max(0.0, (claimed - begun).total_seconds())
        waits = min(seconds, waited if waited is not None else 0.0)
        bars.append(
            Bar(
                stage["stage"],
                stage["attempt"],
                stage["note"],
                stage["owner"],
                begun,
                (begun - first).total_seconds() / whole,
                waits / whole,
                (seconds - waits) / whole,
                seconds,
                waited,
                stage["ended_at"] is None,
            )
        )
    return bars
