"""Own words beside composed answers: one truth, one scale, and the better way on the card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference import location
from inference.card import CardModality, ModelCard
from inference.engine import Engine
from inference.intensity import IntensityPolicy
from inference.series import Series
from inference.tasks import Sort, TaskKind
from learning.cases import Case
from learning.datasets import Split
from learning.dialogues import Seen, place_words
from learning.evaluate_speech import WAYS, Heard, hear, measured, summarise_speech
from learning.meteor import LEFT_OUT, wordnet_folder
from learning.phantom import generate_phantom
from learning.recipe import load_recipe
from learning.report import write_report
from learning.spoken_choice import choices, spoken_tasks

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


def heard(**tasks: tuple[float, float, float]) -> Heard:
    """Twenty items of ten groups each: parts that own, composed and most frequent get right."""
    result = Heard()
    for name, (own, composed, most) in tasks.items():
        answered = result.tasks[name.replace("_", " ")]
        for number in range(20):
            often = number < 20 * most
            truth = "often" if often else f"truth {number}"
            answered.expected.append(truth)
            answered.classes.append(truth)
            answered.choices.append({truth: truth})
            answered.groups.append(f"g{number // 2}")
            for way, part in zip(WAYS, (own, composed), strict=True):
                answered.said[way].append(truth if number < 20 * part else "something else")
    return result


def test_only_what_is_said_better_than_composed_is_said() -> None:
    aside = heard(
        organ=(0.9, 0.0, 0.3),
        presence=(0.8, 0.9, 0.3),
        size=(0.5, 0.4, 0.6),
        report=(0.7, 0.6, 0.3),
        region=(0.9, 0.8, 0.3),
        empty_region=(0.4, 0.9, 1.0),
    )
    chosen = {one.task: one for one in choices(aside)}
    assert {name for name, one in chosen.items() if one.spoken} == {"report", "organ"}
    assert [chosen[name].metric for name in ("report", "organ")] == ["ROUGE-L", "accuracy"]
    presence = chosen["presence"]
    assert (presence.own, presence.composed, presence.majority) == (0.8, 0.9, 0.3)
    assert presence.gain.difference == pytest.approx(-0.1)
    assert presence.gain.low < -0.1 < presence.gain.high
    assert (presence.gain.count, presence.groups) == (20, 10)


def test_what_is_chosen_is_listed_with_figures_of_other_groups() -> None:
    aside = heard(organ=(0.9, 0.0, 0.3), modality=(0.5, 1.0, 0.3))
    tested = summarise_speech(heard(organ=(0.6, 0.7, 0.5), modality=(1.0, 0.0, 0.5)))
    (organ,) = spoken_tasks(choices(aside), tested)
    assert (organ.kind, organ.sort) == (TaskKind.QUESTION, Sort.ORGAN)
    assert (organ.value, organ.baseline) == (0.6, 0.5), "worse there, and stated so"
    assert (organ.items, organ.groups) == (20, 10)


def test_a_report_says_which_way_was_chosen_and_how_both_did(tmp_path: Path) -> None:
    groups = heard(organ=(0.9, 0.0, 0.3), modality=(0.5, 1.0, 0.3))
    chosen, words = choices(groups), summarise_speech(groups)
    card = ModelCard(
        name="m", version="1", licence="x", intended_use="y", limitations=(), training_data=(),
        modalities=(), targets=(), not_listed=(),
    )  # fmt: skip
    path = tmp_path / "README.md"
    write_report(path, card, "0" * 64, Split((), (), ()), [], [], chosen, words)
    lines = path.read_text().splitlines()
    (organ,) = [line for line in lines if line.startswith("| organ | accuracy | 0.90 | 0.00 ")]
    assert organ.endswith("| own words |")
    (modality,) = [line for line in lines if line.startswith("| modality | composed | 20 / 10 ")]
    assert "| 1.00 | 1.00 to 1.00 | 0.30 |" in modality
    assert modality.endswith("| yes |")
    assert (LEFT_OUT in lines) == (wordnet_folder() is None)
