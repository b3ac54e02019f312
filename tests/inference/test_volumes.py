"""From slices to a volume: gates, smoothing, sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from inference.card import CardTarget, VolumeRules
from inference.findings import Presence
from inference.volumes import SliceAnswers, assemble, clean, key_frame, smooth_across
from tests.inference.tiny_model import card_target


def answers(frames: int, score: list[float], inside: slice = slice(4, 8)) -> SliceAnswers:
    """Return a box in every slice, with the given object scores."""
    logits = np.full((frames, 16, 16), -8, np.float16)
    logits[:, inside, inside] = 8
    return SliceAnswers(
        logits=logits,
        score=np.array(score, np.float32),
        predicted_iou=np.linspace(0.1, 0.9, frames, dtype=np.float32),
        blank=np.zeros(frames, np.bool_),
    )


def target(**rules: object) -> CardTarget:
    base = card_target("hippocampus", "MRI", absent_below=0.5)
    return base.model_copy(update={"rules": VolumeRules(**{"min_mm3": 0, **rules})})


def test_slices_where_the_target_is_absent_stay_empty() -> None:
    result = assemble(
        answers(7, [-9, -9, 9, 9, 9, -9, -9]),
        target(), kind="volume", grid=(32, 32), spacing=(3.0, 1.0, 1.0),
    )  # fmt: skip
    assert result.presence is Presence.PRESENT
    assert result.mask is not None
    assert result.mask.any(axis=(1, 2)).tolist() == [
        False,
        True,
        True,
        True,
        True,
        True,
        False,
    ] or (result.mask.any(axis=(1, 2)).tolist() == [False, False, True, True, True, False, False])
    assert result.key_frame == 3
    assert result.predicted_iou == pytest.approx(0.5, abs=0.01)


def test_an_absent_target_has_no_mask() -> None:
    result = assemble(answers(3, [-9, -9, -9]), target(), kind="volume", grid=(8, 8), spacing=None)
    assert result.presence is Presence.ABSENT
    assert result.mask is None
    assert result.key_frame is None
    assert result.confidence < 0.01


@pytest.mark.parametrize("kind", ["volume", "images"])
def test_probabilities_agree_with_the_mask(kind: str) -> None:
    given = answers(5, [9, 9, 9, -9, 9])
    given.logits[4] = np.random.default_rng(1).normal(0, 1, (16, 16)).astype(np.float16)
    arguments = {"kind": kind, "grid": (32, 32), "spacing": (3.0, 1.0, 1.0)}
    rules = target(single_component=True, solid=True)
    result = assemble(given, rules, probabilities=True, **arguments)  # type: ignore[arg-type]
    assert result.mask is not None and result.probabilities is not None
    assert np.array_equal(result.probabilities >= 128, result.mask)
    # The logit within the box is 8: nearly sure; nothing is said of slices that do not show it.
    assert result.probabilities[0, 12, 12] == 255
    assert not kind == "images" or not result.probabilities[3].any()
    assert assemble(given, rules, **arguments).probabilities is None  # type: ignore[arg-type]


def test_a_blank_slice_shows_nothing_whatever_the_score() -> None:
    given = answers(1, [20.0])
    given.blank[0] = True
    result = assemble(given, target(), kind="images", grid=(8, 8), spacing=None)
    assert result.presence is Presence.ABSENT
    assert result.confidence == 0.0


def test_a_target_of_which_nothing_is_left_is_absent() -> None:
    result = assemble(
        answers(3, [9, 9, 9]),
        target(min_mm3=1e9), kind="volume", grid=(32, 32), spacing=(1.0, 1.0, 1.0),
    )  # fmt: skip
    assert result.presence is Presence.ABSENT
    assert result.mask is None
    assert result.confidence < 0.5


def test_images_stand_alone() -> None:
    result = assemble(answers(3, [-9, 9, -9]), target(), kind="images", grid=(32, 32), spacing=None)
    assert result.mask is not None
    assert result.mask.any(axis=(1, 2)).tolist() == [False, True, False]


def test_smoothing_reaches_by_distance_not_by_count() -> None:
    logits = np.zeros((5, 2, 2), np.float16)
    logits[2] = 10
    near = smooth_across(logits, distance=1.0, sigma=1.0)
    far = smooth_across(logits, distance=6.0, sigma=1.0)
    assert 0 < near[1, 0, 0] < near[2, 0, 0] < 10
    assert np.array_equal(far, logits)


def test_small_parts_go_by_physical_size() -> None:
    mask = np.zeros((2, 10, 10), np.bool_)
    mask[:, :4, :4] = True
    mask[0, 9, 9] = True
    cleaned = clean(mask, VolumeRules(min_mm3=5), (1.0, 2.0, 2.0), whole=True)
    assert not cleaned[0, 9, 9]
    assert cleaned[:, :4, :4].all()
    assert clean(mask, VolumeRules(min_mm3=5), (2.0, 2.0, 2.0), whole=True)[0, 9, 9]


def test_a_solid_target_has_no_holes() -> None:
    mask = np.zeros((2, 10, 10), np.bool_)
    mask[0, 2:8, 2:8] = True
    mask[0, 4:6, 4:6] = False
    assert clean(mask, VolumeRules(solid=True), None, whole=True)[0, 2:8, 2:8].all()
    assert not clean(mask, VolumeRules(solid=False), None, whole=True)[0, 4, 4]


def test_a_single_body_keeps_its_largest_part() -> None:
    mask = np.zeros((1, 10, 10), np.bool_)
    mask[0, :5, :5] = True
    mask[0, 7:, 7:] = True
    rules = VolumeRules(single_component=True, min_pixels=1)
    assert clean(mask, rules, None, whole=True).sum() == 25


@given(
    mask=arrays(np.bool_, st.tuples(*[st.integers(1, 7)] * 3)),
    single=st.booleans(),
    smallest=st.integers(1, 6),
)
def test_cleaning_keeps_whole_parts_of_enough_voxels(
    mask: NDArray[np.bool_], single: bool, smallest: int
) -> None:
    rules = VolumeRules(
        single_component=single, min_pixels=smallest, min_mm3=float(smallest), solid=False
    )
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.reshape(-1), minlength=count + 1)
    wanted = [part for part in range(1, count + 1) if sizes[part] >= smallest]
    cleaned = clean(mask, rules, (1.0, 1.0, 1.0), whole=True)
    assert not (cleaned & ~mask).any()
    kept = sorted(sizes[part] for part in wanted if cleaned[parts == part].all())
    if single and wanted:
        assert kept == [max(sizes[1:])] and cleaned.sum() == max(sizes[1:])
    else:
        assert cleaned.sum() == sum(sizes[part] for part in wanted)


def test_parts_in_single_images_are_cleaned_image_by_image() -> None:
    mask = np.zeros((2, 10, 10), np.bool_)
    mask[0, :5, :5] = True
    mask[1, :2, :2] = True
    rules = VolumeRules(single_component=True, min_pixels=4)
    assert clean(mask, rules, None, whole=False).sum(axis=(1, 2)).tolist() == [25, 4]


def test_the_key_frame_has_area_and_certainty() -> None:
    mask = np.zeros((3, 4, 4), np.bool_)
    mask[0, :2] = True
    mask[1, :3] = True
    mask[2] = True
    assert key_frame(mask, np.array([0.9, 0.9, 0.1])) == 1
