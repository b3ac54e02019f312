"""What nobody should send, and some will: a clear error, or an answer that does no harm.

Damaged checkpoint folders are in ``test_checkpoints.py`` and ``test_published.py``, hostile
questions also in ``test_tasks.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.checkpoints import load_checkpoint
from inference.engine import Engine
from inference.errors import CheckpointError, FinalInferenceError, NotCoveredError
from inference.findings import Presence
from inference.regions import Region
from inference.tasks import Task, TaskKind
from tests.inference.tiny_model import save_tiny
from tests.inference.tiny_published import make_tokenizer

EVERY_TASK = (
    Task.segment("hippocampus"),
    Task(TaskKind.RECOGNITION),
    Task(TaskKind.GROUNDED_REPORT),
    Task(TaskKind.GROUNDED_QUESTION, question="Where is the hippocampus?"),
    Task(TaskKind.REGION_REPORT, region=Region.of_box(0, 0, 1, 1)),
)


def answer(engine: Engine, images: Any, *tasks: Task, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"modality": "MRI", "kind": "volume", **changes}
    return engine.answer(images, tasks=tasks or EVERY_TASK, **arguments).findings


@pytest.mark.parametrize("value", [0.0, -1000.0, 7e9])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 300), (4, 30, 20)])
def test_images_of_one_value_show_nothing(
    tiny_engine: Engine, value: float, shape: tuple[int, int, int]
) -> None:
    for finding in answer(tiny_engine, np.full(shape, value, np.float32)):
        assert finding.presence is Presence.ABSENT
        assert finding.mask is None


@pytest.mark.parametrize("shape", [(1, 20_000, 3), (1, 2, 20_000), (1, 1, 1)])
def test_very_long_and_very_small_images_are_answered_on_their_grid(
    tiny_engine: Engine, shape: tuple[int, int, int]
) -> None:
    images = np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)
    for finding in answer(tiny_engine, images):
        assert finding.mask is None or finding.mask.shape == shape


def test_an_image_of_20000_by_20000_is_refused_before_memory_is_taken(
    tiny_engine: Engine,
) -> None:
    whole_slide = np.broadcast_to(np.uint8(7), (1, 20_000, 20_000))
    with pytest.raises(FinalInferenceError, match="20000 x 20000 pixels: more than 100 million"):
        answer(tiny_engine, whole_slide)


def test_values_that_are_no_numbers_after_rescaling_do_no_harm(tiny_engine: Engine) -> None:
    images = np.random.default_rng(0).normal(100, 30, (3, 20, 30)).astype(np.float32)
    images[0, :5] = np.nan
    images[1, :, 3] = np.inf
    images[2] = -np.inf
    assert len(answer(tiny_engine, images)) == 7
    with pytest.raises(FinalInferenceError, match="no finite number"):
        answer(tiny_engine, np.full((2, 4, 4), np.nan, np.float32))


@pytest.mark.parametrize("target", ["x" * 10_000, "[SEG]", "<img>", "hippo[SEG]campus", "</p>"])
def test_long_names_and_special_tokens_are_not_asked(tiny_engine: Engine, target: str) -> None:
    images = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(NotCoveredError, match=r"characters|plain words"):
        tiny_engine.segment(images, modality="MRI", kind="volume", targets=[target])
    for kind in (TaskKind.QUESTION, TaskKind.GROUNDED_QUESTION):
        with pytest.raises(ValueError, match=r"characters|has a meaning of its own"):
            Task(kind, question=target)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_checkpoint(folder)


@pytest.mark.parametrize("axes", [np.eye(2), np.full((3, 3), np.nan)])
def test_axes_that_cannot_be_are_refused(tiny_engine: Engine, axes: Any) -> None:
    with pytest.raises(FinalInferenceError, match=r"axes are not \(3, 3\) finite"):
        answer(tiny_engine, np.zeros((1, 8, 8), np.float32), axes=axes)


def test_nothing_asked_is_said(tiny_engine: Engine) -> None:
    with pytest.raises(FinalInferenceError, match="nothing was asked for"):
        tiny_engine.answer(np.zeros((1, 8, 8), np.float32), modality="MRI", kind="volume", tasks=[])
