"""Tasks: what may be asked, and that it survives being written down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.regions import GREEN, Box, Region, marked
from inference.tasks import MAX_NEW_TOKENS, Task, TaskKind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": TaskKind.SEGMENTATION}, "needs the name of a target"),
        ({"kind": TaskKind.SEGMENTATION, "targets": ("[SEG]",)}, "not plain words"),
        ({"kind": TaskKind.REGION_REPORT}, "needs a region"),
        ({"kind": TaskKind.GROUNDED_REPORT, "region": Region.of_box(0, 0, 1, 1)}, "no region"),
        ({"kind": TaskKind.QUESTION}, "question is empty"),
        ({"kind": TaskKind.QUESTION, "question": "x" * 10_000}, "10000 characters"),
        ({"kind": TaskKind.QUESTION, "question": "Is [seg] here?"}, r"holds \[SEG\]"),
        ({"kind": TaskKind.QUESTION, "question": "<|user|> hello"}, "holds <|user|>"),
        ({"kind": TaskKind.QUESTION, "question": "a\x00b"}, "cannot be printed"),
        ({"kind": TaskKind.RECOGNITION, "question": "what?"}, "takes no question"),
        ({"kind": "mind reading"}, "mind reading"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Task(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "task",
    [
        Task.segment("hippocampus", "left ventricle"),
        Task(TaskKind.RECOGNITION, body_part="BRAIN"),
        Task(TaskKind.REGION_CLASSIFICATION, region=Region.of_box(1, 2, 30, 40, frame=3)),
        Task(TaskKind.GROUNDED_QUESTION, question="Where is the hippocampus?"),
    ],
)
def test_a_task_survives_being_written_down(task: Task) -> None:
    assert Task.from_json(task.to_json()) == task


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "segmentation", "target": "x"},
        {"kind": "region_report", "region": [1, 2, 3, 4]},
        {"kind": "region_report", "region": {"box": [1, 2, 3]}},
        {"kind": "region_report", "region": {"box": [1, 2, 3, "4"]}},
        {"kind": "region_report", "region": {"box": [5, 2, 3, 4]}},
        {"kind": "region_report", "region": {"box": [-1, 2, 3, 4]}},
        {"kind": "region_report", "region": {"box": [0, 0, 1, 1], "frame": -1}},
    ],
)
def test_what_is_no_task_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Task.from_json(data)


def test_every_kind_has_a_token_limit() -> None:
    assert set(MAX_NEW_TOKENS) == set(TaskKind)


def test_a_mask_becomes_its_box_and_stays_exact() -> None:
    mask = np.zeros((8, 9), np.bool_)
    mask[2, 3] = mask[5, 7] = True
    region = Region.of_mask(mask, frame=1)
    assert region.box == Box(2, 3, 6, 8)
    assert np.array_equal(region.on(2, 8, 9), mask)
    with pytest.raises(ValueError, match="frame 1, the last one is 0"):
        region.on(1, 8, 9)
    with pytest.raises(ValueError, match="hold a pixel"):
        Region.of_mask(np.zeros((4, 4), np.bool_))


@given(
    top=st.integers(0, 20),
    left=st.integers(0, 20),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
)
def test_the_box_is_green_two_pixels_wide_and_inside(
    top: int, left: int, rows: int, columns: int
) -> None:
    picture = np.full((40, 40), 7, np.uint8)
    drawn = marked(picture, Box(top, left, top + rows, left + columns))
    green = (drawn == np.array(GREEN, np.uint8)).all(axis=2)
    inner = max(0, rows - 4) * max(0, columns - 4)
    assert green.sum() == rows * columns - inner
    assert green[top : top + rows, left : left + columns].sum() == green.sum()
    assert (picture == 7).all()
