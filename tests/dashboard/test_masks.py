from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from dashboard.byte_cache import ByteCache
from dashboard.masks import MAGIC, mask_of_runs, pack_masks, runs_of, without_masks
from dicom_node.objects.segmentation_reading import FrameMask, SegmentRead

MASKS = arrays.arrays(
    np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans()
)


def unpacked(
    body: bytes, kind: str = "masks"
) -> tuple[dict[str, Any], dict[tuple[int, int], NDArray[np.bool_]]]:
    """Read the document as `masks.js` does: masks, or edits, by segment and frame."""
    data = zlib.decompress(body)
    assert data[:4] == MAGIC
    (length,) = struct.unpack("<I", data[4:8])
    described = json.loads(data[8 : 8 + length])
    assert (8 + length) % 4 == 0
    runs = np.frombuffer(data[8 + length :], "<u4")
    size = described["rows"], described["columns"]
    return described, {
        (segment, frame): mask_of_runs(runs[begin : begin + count].tolist(), *size)
        for segment, frame, begin, count in described[kind]
    }


@given(MASKS)
def test_runs_give_the_mask_back(mask: NDArray[np.bool_]) -> None:
    runs = runs_of(mask)
    assert runs.sum() == mask.size
    assert np.array_equal(mask_of_runs(runs.tolist(), *mask.shape), mask)


@pytest.mark.parametrize("runs", [[3], [5, 5], [-1, 5], []])
def test_runs_that_do_not_fit_are_refused(runs: list[int]) -> None:
    with pytest.raises(ValueError, match="2 x 2"):
        mask_of_runs(runs, 2, 2)


def test_masks_keep_their_frames_and_those_of_other_images_stay_out() -> None:
    first, second = np.eye(5, 7, dtype=np.bool_), np.ones((5, 7), np.bool_)
    segments = [SegmentRead(2, "liver", (1, 2, 3), "2.25.1")]
    masks = [FrameMask(2, "1.2", 1, first), FrameMask(2, "1.9", 1, second),
             FrameMask(2, "1.1", 3, second)]  # fmt: skip
    frames = [("1.1", 3), ("1.2", 1)]
    described, found = unpacked(pack_masks(5, 7, segments, masks, frames).body)
    assert described["segments"][0]["colour"] == [1, 2, 3]
    assert found.keys() == {(2, 1), (2, 0)}
    assert np.array_equal(found[2, 1], first)
    assert np.array_equal(found[2, 0], second)


def test_edits_lie_beside_the_masks_that_they_mend() -> None:
    mask, mended = np.eye(5, 7, dtype=np.bool_), np.ones((5, 7), np.bool_)
    segments = [SegmentRead(2, "liver", (1, 2, 3), "2.25.1")]
    edits = {(2, 0): runs_of(mended).tolist(), (2, 1): [35]}
    packed = pack_masks(5, 7, segments, [FrameMask(2, "1.1", 1, mask)], [("1.1", 1)], edits)
    assert np.array_equal(unpacked(packed.body)[1][2, 0], mask)
    found = unpacked(packed.body, "edits")[1]
    assert np.array_equal(found[2, 0], mended)
    assert not found[2, 1].any()


def test_a_job_without_findings_has_a_document_without_masks() -> None:
    described, found = unpacked(without_masks().body)
    assert described["segments"] == [] and found == {}


class Held:
    def __init__(self, size: int) -> None:
        self.size = size


def test_a_cache_keeps_what_was_asked_for_last_within_its_bound() -> None:
    cache = ByteCache[Held](10)
    made: list[str] = []

    def make(name: str, size: int) -> Held:
        made.append(name)
        return Held(size)

    for name, size in [("a", 4), ("b", 4), ("a", 4), ("c", 4), ("a", 4), ("b", 4), ("d", 99)]:
        cache.get(name, lambda name=name, size=size: make(name, size))  # type: ignore[misc]
        assert cache.bytes <= 10
    # b was the oldest when c came; d is too large to be kept.
    assert made == ["a", "b", "c", "b", "d"]


def test_an_error_is_not_kept() -> None:
    cache = ByteCache[Held](10)

    def fail() -> Held:
        raise OSError

    with pytest.raises(OSError):
        cache.get("a", fail)
    assert cache.get("a", lambda: Held(1)).size == 1
