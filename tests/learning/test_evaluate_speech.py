"""Own words beside composed answers: one truth, one scale, and the better way on the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import location
from inference.card import CardModality
from inference.engine import Engine
from inference.intensity import IntensityPolicy
from inference.series import Series
from inference.tasks import Sort, TaskKind
from learning.cases import Case
from learning.dialogues import Seen, place_words
from learning.evaluate_speech import WAYS, hear, measured, summarise_speech
from learning.phantom import generate_phantom
from learning.recipe import load_recipe
from learning.spoken_choice import spoken_tasks

ROOT = Path(__file__).resolve().parents[2]
EIGHT_BIT = CardModality(
    name="endoscopy", dicom=("ES",), kind="images", intensity=IntensityPolicy(kind="eight_bit")
)


@pytest.mark.parametrize("seed", range(12))
def test_places_are_those_of_the_composed_answers(seed: int) -> None:
    draw = np.random.default_rng(seed)
    mask = np.zeros((40, 60), np.bool_)
    top, left = int(draw.integers(0, 30)), int(draw.integers(0, 45))
    mask[top : top + 10, left : left + 15] = True
    series = Series(np.zeros((1, 40, 60), np.uint8), EIGHT_BIT, "images")
    seen = measured(mask, Seen("polyp", "endoscopy", lesion=True, part=0.0))
    assert seen.part == pytest.approx(150 / 2400)
    assert place_words(seen) == (" ".join(location.sides(mask[None], series)) or "middle")


def test_both_ways_answer_the_same_questions(nano: Engine) -> None:
    phantom = generate_phantom(7, (3, 128, 128), (20.0, 2.8, 2.8), inserts=1)
    absent = np.zeros(phantom.labels.shape, np.bool_)
    case = Case(
        name="p7",
        images=phantom.volume,
        modality="CT",
        kind="volume",
        truths={"phantom insert": phantom.labels > 0, "soft-tissue sarcoma": absent},
        source="phantom",
        group="g7",
        spacing=phantom.spacing,
    )
    recipe = load_recipe(ROOT / "configs" / "nano.yaml")
    lines = summarise_speech(hear(nano, [case], recipe))
    by_way = {(line["task"], line["way"]): line for line in lines}
    names = {"modality", "organ", "presence", "where", "size", "side", "region", "empty region",
             "disease", "report", "masks of reports"}  # fmt: skip
    assert set(by_way) == {(name, way) for name in names for way in WAYS}
    assert by_way["modality", "composed"]["accuracy"] == 1.0
    assert by_way["presence", "composed"]["accuracy"] == 1.0
    assert by_way["region", "composed"]["accuracy"] == 1.0
    assert by_way["masks of reports", "composed"]["dice"] > 0.8
    # One of two is there: whoever always says yes, or no, is right as often.
    assert by_way["presence", "own words"]["items"] == 2
    assert by_way["presence", "own words"]["accuracy_of_majority"] == 0.5
    assert by_way["modality", "own words"]["accuracy_of_majority"] == 1.0


def line(task: str, way: str, accuracy: float, majority: float = 0.3) -> dict[str, Any]:
    return {
        "task": task, "way": way, "items": 20, "groups": 5, "accuracy": accuracy,
        "accuracy_of_majority": majority, "ROUGE-L": accuracy, "ROUGE-L_of_majority": majority,
    }  # fmt: skip


def test_only_what_is_said_better_than_composed_is_said() -> None:
    chosen = spoken_tasks(
        [
            line("organ", "own words", 0.9), line("organ", "composed", 0.0),
            line("presence", "own words", 0.8), line("presence", "composed", 0.9),
            line("size", "own words", 0.5, 0.6), line("size", "composed", 0.4, 0.6),
            line("report", "own words", 0.7), line("report", "composed", 0.6),
            line("region", "own words", 0.9), line("region", "composed", 0.8),
            line("empty region", "own words", 0.4), line("empty region", "composed", 0.9),
            {"task": "masks of reports", "way": "own words", "items": 3, "dice": 0.9},
        ]
    )  # fmt: skip
    assert [(item.kind, item.sort) for item in chosen] == [
        (TaskKind.GROUNDED_REPORT, None),
        (TaskKind.QUESTION, Sort.ORGAN),
    ]
    assert [item.metric for item in chosen] == ["ROUGE-L", "accuracy"]
    assert chosen[1].baseline == 0.3
