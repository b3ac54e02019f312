"""The identifiers of a job's results."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.objects.identifiers import (
    ResultIdentifiers,
    derived_uid,
    tracking_identifier,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)


def all_uids(identifiers: ResultIdentifiers) -> list[str]:
    pairs = (
        identifiers.segmentation,
        identifiers.measurement_report,
        identifiers.grounded_report,
    )
    return [uid for pair in pairs for uid in (pair.series_uid, pair.instance_uid)]


def test_every_drawn_uid_is_new_and_valid() -> None:
    uids = all_uids(ResultIdentifiers.draw(NOW)) + all_uids(ResultIdentifiers.draw(NOW))
    assert len(set(uids)) == len(uids)
    for uid in uids:
        assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid) and len(uid) <= 64


def test_json_gives_the_same_identifiers_back() -> None:
    drawn = ResultIdentifiers.draw(NOW)
    assert ResultIdentifiers.from_json(json.loads(json.dumps(drawn.as_json()))) == drawn


def test_a_naive_time_stays_naive() -> None:
    drawn = ResultIdentifiers.draw(NOW.replace(tzinfo=None))
    assert ResultIdentifiers.from_json(drawn.as_json()).created.tzinfo is None


@settings(deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=20, unique=True))
def test_tracking_uids_differ_by_finding_and_never_change(indices: list[int]) -> None:
    root = derived_uid("2.25.1", "test")
    pair = ResultIdentifiers.draw(NOW)
    identifiers = ResultIdentifiers(
        pair.segmentation, pair.measurement_report, pair.grounded_report, root, NOW
    )
    uids = [identifiers.tracking_uid(index) for index in indices]
    assert len(set(uids)) == len(indices)
    assert uids == [identifiers.tracking_uid(index) for index in indices]
    assert all(len(uid) <= 64 for uid in uids)


def test_findings_are_named_from_one() -> None:
    assert [tracking_identifier(index) for index in range(3)] == ["F1", "F2", "F3"]
