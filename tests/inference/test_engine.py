"""The engine: what it answers, what it refuses, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine import Engine
from inference.errors import (
    CancelledError,
    DeviceLostError,
    FinalInferenceError,
    NotCoveredError,
    RetriableInferenceError,
)
from inference.findings import Presence
from inference.tasks import Task


def series(frames: int = 5, rows: int = 20, columns: int = 30) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).normal(100, 30, (frames, rows, columns)).astype(np.float32)


def ask(engine: Engine, images: Any = None, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "modality": "MRI",
        "kind": "volume",
        "targets": ["hippocampus"],
        "spacing": (2.0, 1.0, 1.0),
    }
    return engine.segment(series() if images is None else images, **{**arguments, **changes})


def test_one_finding_for_each_target_in_the_order_asked(tiny_engine: Engine) -> None:
    result = ask(tiny_engine, targets=["left ventricle", "hippocampus"])
    assert [f.target for f in result.findings] == ["left ventricle", "hippocampus"]
    assert result.findings[0].prompt == "Please segment left ventricle in MRI."
    assert result.frames == 5
    assert result.model_name == "tiny"
    assert result.model_digest == tiny_engine.digest
    assert "percentiles 1..99.5" in result.intensity


def test_masks_lie_on_the_grid_of_the_source(tiny_engine: Engine) -> None:
    for finding in ask(tiny_engine).findings:
        if finding.mask is not None:
            assert finding.mask.shape == (5, 20, 30)
            assert finding.phrase in finding.text


def test_the_same_question_gives_the_same_answer(tiny_engine: Engine) -> None:
    first, second = ask(tiny_engine), ask(tiny_engine)
    assert first == second
    for one, two in zip(first.findings, second.findings, strict=True):
        assert (one.mask is None) == (two.mask is None)
        if one.mask is not None:
            assert np.array_equal(one.mask, two.mask)


def test_targets_together_equal_targets_alone(tiny_engine: Engine) -> None:
    names = ["hippocampus", "left ventricle"]
    together = ask(tiny_engine, targets=names)
    for number, name in enumerate(names):
        alone = ask(tiny_engine, targets=[name]).findings[0]
        assert together.findings[number].confidence == pytest.approx(alone.confidence, abs=1e-4)
        assert together.findings[number].presence is alone.presence


def test_progress_ends_at_all_slices(tiny_engine: Engine) -> None:
    seen: list[tuple[int, int]] = []
    ask(tiny_engine, series(40), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40, 40)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 1


def test_cancelling_stops_between_batches(tiny_engine: Engine) -> None:
    asked: list[bool] = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) == 2

    with pytest.raises(CancelledError, match="stopped before the last slice"):
        ask(tiny_engine, series(40), cancelled=cancelled)


def test_what_the_card_does_not_list_is_refused(tiny_engine: Engine) -> None:
    with pytest.raises(NotCoveredError, match="does not list liver in MRI"):
        ask(tiny_engine, targets=["liver"])
    with pytest.raises(NotCoveredError, match="does not list PET"):
        ask(tiny_engine, modality="PET")
    with pytest.raises(NotCoveredError, match="does not list hippocampus in CT"):
        ask(tiny_engine, modality="CT")


@pytest.mark.parametrize("hostile", ["[SEG]", "<img>", "", "x" * 500, "a\nb\x00"])
def test_hostile_targets_are_refused_in_words(tiny_engine: Engine, hostile: str) -> None:
    with pytest.raises(NotCoveredError):
        ask(tiny_engine, targets=[hostile])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4)), "shape"),
        (np.zeros((0, 4, 4)), "no pixel"),
        (np.zeros((2, 4, 4, 4)), "shape"),
        (np.full((2, 4, 4), np.nan), "no finite number"),
        (np.zeros((2, 4, 4, 3), np.uint8), "screen capture"),
        (np.array([[["a", "b"]]]), "are not numbers"),
    ],
)
def test_images_that_cannot_be_are_refused(
    tiny_engine: Engine, images: np.ndarray[Any, Any], message: str
) -> None:
    with pytest.raises(FinalInferenceError, match=message):
        ask(tiny_engine, images)


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, float("nan"))])
def test_a_spacing_that_cannot_be_is_refused(tiny_engine: Engine, spacing: Any) -> None:
    with pytest.raises(FinalInferenceError, match="three positive numbers"):
        ask(tiny_engine, spacing=spacing)


def test_no_target_and_no_known_kind_are_refused(tiny_engine: Engine) -> None:
    with pytest.raises(FinalInferenceError, match="no target"):
        ask(tiny_engine, targets=[])
    with pytest.raises(FinalInferenceError, match="kind is"):
        ask(tiny_engine, kind="film")


@pytest.mark.parametrize("value", [0.0, 1000.0, -5.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 9)])
def test_a_series_without_contrast_shows_nothing(
    tiny_engine: Engine, value: float, shape: tuple[int, int, int]
) -> None:
    finding = ask(tiny_engine, np.full(shape, value, np.float32)).findings[0]
    assert finding.presence is Presence.ABSENT
    assert finding.mask is None
    assert finding.text == "No hippocampus seen in this series."


def test_single_pixels_that_are_no_number_do_no_harm(tiny_engine: Engine) -> None:
    images = series()
    images[1, 2, 3] = np.nan
    images[2] = np.inf
    assert len(ask(tiny_engine, images).findings) == 1


def test_colour_images_are_answered_one_by_one(tiny_engine: Engine) -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 24, 36, 3), dtype=np.uint8)
    result = ask(tiny_engine, images, modality="endoscopy", kind="images", targets=["polyp"])
    assert result.findings[0].target == "polyp"
    with pytest.raises(FinalInferenceError, match="must be 8 bit"):
        ask(tiny_engine, images.astype(np.float32), modality="endoscopy", targets=["polyp"])


@settings(deadline=None, max_examples=10)
@given(
    frames=st.integers(1, 4),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32", "float64"]),
)
def test_any_size_and_number_type_is_answered(
    tiny_engine: Engine, frames: int, rows: int, columns: int, dtype: str
) -> None:
    images = np.random.default_rng(1).integers(0, 200, (frames, rows, columns)).astype(dtype)
    finding = ask(tiny_engine, images).findings[0]
    assert finding.mask is None or finding.mask.shape == images.shape


def test_a_gpu_that_is_not_there_is_explained(tiny_folder: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(FinalInferenceError, match="torch finds no GPU here"):
        Engine.load(tiny_folder, device="cuda")


def test_running_out_of_memory_may_be_retried(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(tiny_engine._segmenter, "_decode", decode)
    with pytest.raises(RetriableInferenceError, match="memory ran out on cpu with 5 frames"):
        ask(tiny_engine)


def test_a_lost_device_is_told_from_a_question_that_cannot_be_answered(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access\nCompile with ...")

    monkeypatch.setattr(tiny_engine._segmenter, "_decode", decode)
    with pytest.raises(DeviceLostError, match=r"illegal memory access\)"):
        ask(tiny_engine)


def test_steps_answer_a_batch_each_and_end_in_the_same_answer(tiny_engine: Engine) -> None:
    images = series(40)
    steps = tiny_engine.answer_steps(
        images,
        modality="MRI",
        kind="volume",
        tasks=[Task.segment("hippocampus")],
        spacing=(2.0, 1.0, 1.0),
    )
    done: list[float] = []
    while True:
        try:
            done.append(next(steps))
        except StopIteration as finished:
            result = finished.value
            break
    assert done == [16 / 40, 32 / 40, 1.0]
    assert result == ask(tiny_engine, images)
