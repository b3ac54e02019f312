"""Hours of a rule, and priorities that grow with waiting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.jobs import Due, JobState
from tests.databases import START
from workflows.dispatch import Dispatch, aged
from workflows.hours import opens_at

ZONE = "Europe/Berlin"


@pytest.mark.parametrize(
    ("hours", "now", "opens"),
    [
        ("20:00-06:00", "2026-01-10 21:00", None),
        ("20:00-06:00", "2026-01-10 04:59", None),  # 05:59 there
        ("20:00-06:00", "2026-01-10 05:00", "2026-01-10 19:00"),
        ("20:00-06:00", "2026-01-10 18:59", "2026-01-10 19:00"),
        ("09:00-17:00", "2026-01-10 17:00", "2026-01-11 08:00"),
        ("09:00-17:00", "2026-01-10 08:00", None),
        # Summer time begins on 29 March: the same clock is another moment.
        ("09:00-17:00", "2026-03-28 17:00", "2026-03-29 07:00"),
    ],
)
def test_when_hours_begin(hours: str, now: str, opens: str | None) -> None:
    def utc(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert opens_at(hours, utc(now), ZONE) == (None if opens is None else utc(opens))


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_they_always_begin_within_a_day_and_then_last(moment: datetime) -> None:
    now = moment.replace(tzinfo=UTC)
    opens = opens_at("22:30-05:15", now, "UTC")
    if opens is not None:
        assert now < opens <= now + timedelta(days=1)
        assert opens_at("22:30-05:15", opens, "UTC") is None


@pytest.mark.parametrize(
    ("priority", "hours", "expected"), [(6, 0.9, 6), (6, 1, 3), (6, 99, 3), (3, 99, 3), (0, 99, 0)]
)
def test_who_waits_long_comes_before(priority: int, hours: float, expected: int) -> None:
    assert aged(priority, timedelta(hours=hours), 3600) == expected


def test_a_job_that_has_come_forward_is_announced_past_the_others() -> None:
    told = START + timedelta(minutes=50)
    one = Due(1, JobState.QUEUED, 1, 6, START, told)
    soon = Dispatch.of(one, START + timedelta(minutes=55), 3600)
    assert (soon.priority, soon.raised) == (6, False)
    later = Dispatch.of(one, START + timedelta(minutes=61), 3600)
    assert (later.priority, later.raised) == (3, True)
    again = Dispatch.of(one._replace(announced_at=START + timedelta(minutes=61)), START
                        + timedelta(minutes=62), 3600)  # fmt: skip
    assert (again.priority, again.raised) == (3, False)
