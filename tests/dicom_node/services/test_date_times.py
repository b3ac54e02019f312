"""Keys of VR DT: any precision and offset, ranges, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dicom_node.services.date_times import Moment, moment_of, moments_of, zone_of

OFFSETS = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# Whose bounds, a day off by an offset, are years of the calendar still.
MOMENTS = st.datetimes(
    datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS, allow_imaginary=False
)
PRECISIONS = st.sampled_from([4, 6, 8, 10, 12, 14, 16, 21])


def offset_of(moment: datetime) -> str:
    minutes = int((moment.utcoffset() or timedelta()).total_seconds() // 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


def written(moment: datetime, length: int = 21) -> str:
    """Write a moment as DICOM does, to a precision: 4 is the year, 21 the microsecond."""
    return f"{moment.year:04d}{moment:%m%d%H%M%S.%f}"[:length] + offset_of(moment)


@given(MOMENTS, PRECISIONS)
def test_a_value_means_all_moments_of_its_precision(moment: datetime, length: int) -> None:
    read = moment_of(written(moment, length))
    assert read is not None
    assert read.first <= moment <= read.last
    assert written(read.first, length) == written(read.last, length) == written(moment, length)
    if length == 21:
        assert read.first == read.last == moment
    before, after = read.first - timedelta(microseconds=1), read.last + timedelta(microseconds=1)
    assert written(moment, length) not in (written(before, length), written(after, length))


@given(MOMENTS, MOMENTS, MOMENTS)
@example(*3 * [datetime(2024, 6, 1, tzinfo=timezone(timedelta(hours=-5)))])
def test_ranges_are_compared_as_moments(one: datetime, two: datetime, value: datetime) -> None:
    low, high = sorted((one, two))
    stored = Moment(value, value)
    both = moments_of(f"{written(low)}-{written(high)}")
    assert both is not None and both.has(stored) is (low <= value <= high)
    until, since = moments_of(f"- {written(high)}"), moments_of(f"{written(low)} -")
    assert until is not None and until.has(stored) is (value <= high)
    assert since is not None and since.has(stored) is (low <= value)
    exact = moments_of(written(one))
    assert exact is not None and exact.has(stored) is (one == value)


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("20240601-0500", "2024-06-01T00:00:00-05:00", "2024-06-01T23:59:59.999999-05:00"),
        ("2024-2025", "2024-01-01T00:00:00+01:00", "2025-12-31T23:59:59.999999+01:00"),
        ("2024-0500-2025", "2024-01-01T00:00:00-05:00", "2025-12-31T23:59:59.999999+01:00"),
        ("2024-0500-", "2024-01-01T00:00:00-05:00", None),
        ("-2024-0500", None, "2024-12-31T23:59:59.999999-05:00"),
        ("20240229235960+0000", "2024-02-29T23:59:59+00:00", "2024-02-29T23:59:59.999999+00:00"),
    ],
)
def test_a_hyphen_is_an_offset_or_a_range(key: str, low: str | None, high: str | None) -> None:
    found = moments_of(key, zone_of("+0100"))
    assert found is not None
    assert found.low == (low and datetime.fromisoformat(low))
    assert found.high == (high and datetime.fromisoformat(high))


@pytest.mark.parametrize(
    "text",
    ["", "-", "2024-13", "20230229", "20240601+1401", "20240601-1201", "0000", "٢٠٢٤", "2024 - x"],
)
def test_what_is_no_date_time_is_none(text: str) -> None:
    assert moments_of(text) is None


@given(st.text(alphabet="0123456789+-. \0x", max_size=60))
def test_nothing_that_is_sent_breaks_it(text: str) -> None:
    found = moments_of(text)
    now = Moment(datetime.now(UTC), datetime.now(UTC))
    assert found is None or found.has(now) in (True, False)
