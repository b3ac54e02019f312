"""Evaluation: right figures, negatives counted, both rules, and a page that holds it all."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine import Engine
from inference.findings import Finding, Presence
from learning import surfaces, wording
from learning.cases import Case, DataError, published_cases, recipe_cases, split_phrase
from learning.datasets import Side
from learning.evaluate import Row, measure, measure_one, read_rows, write_rows
from learning.evaluate_words import measure_words
from learning.evaluation_page import read_summary, write_evaluation
from learning.evaluation_summary import compare_rows, published_rule, summarise
from learning.meteor import LEFT_OUT, wordnet_folder
from learning.metrics import calibration_error, compare
from learning.phantom import generate_phantom
from learning.recipe import Recipe
from tests.learning.small_recipe import recipe_data, write_data
from tests.learning.test_adapt import write_2d

SPACING = (2.0, 1.0, 1.0)


def box(start: int, stop: int, frames: int = 6) -> np.ndarray[Any, Any]:
    mask = np.zeros((frames, 30, 30), np.bool_)
    mask[2:4, start:stop, 5:15] = True
    return mask


def case(truth: np.ndarray[Any, Any], **changes: Any) -> Case:
    images = np.zeros(truth.shape, np.float32)
    values = {"name": "c", "images": images, "modality": "CT", "kind": "volume", "source": "s"}
    return Case(**{**values, "truths": {"x": truth}, "group": "g", "spacing": SPACING, **changes})


def finding(mask: np.ndarray[Any, Any] | None) -> Finding:
    if mask is None:
        return Finding("x", "t", "x", "p", Presence.ABSENT, 0.1)
    return Finding("x", "t", "x", "p", Presence.PRESENT, 0.9, mask, 2)


def test_a_shifted_box_has_the_distance_of_its_shift() -> None:
    row = measure_one(case(box(5, 15)), finding(box(8, 18)), box(5, 15), 2.0)
    assert row.dice == pytest.approx(0.7)
    assert row.iou == pytest.approx(0.7 / 1.3)
    assert row.hausdorff_95 == pytest.approx(3.0)
    assert row.surface_dice is not None and 0.3 < row.surface_dice < 0.9
    assert row.true_ml == pytest.approx(0.4)
    tolerant = surfaces.surface_dice(box(8, 18), box(5, 15), SPACING, 3.0)
    assert tolerant == pytest.approx(1.0)


def test_distances_follow_the_spacing() -> None:
    found, truth = box(5, 15), np.roll(box(5, 15), 1, axis=0)
    assert surfaces.hausdorff_95(found, truth, (5.0, 1, 1)) == pytest.approx(5.0)
    one = surfaces.hausdorff_95(box(8, 18)[2:3], box(5, 15)[2:3], (9.0, 0.5, 0.5))
    assert one == pytest.approx(1.5)


def test_negatives_are_counted_and_have_no_distance() -> None:
    empty = np.zeros((6, 30, 30), np.bool_)
    right = measure_one(case(empty), finding(None), empty, 2.0)
    wrong = measure_one(case(empty), finding(box(5, 15)), empty, 2.0)
    missed = measure_one(case(box(5, 15)), finding(None), box(5, 15), 2.0)
    assert (right.dice, wrong.dice, missed.dice) == (1.0, 0.0, 0.0)
    assert not right.positive
    assert right.hausdorff_95 is wrong.hausdorff_95 is missed.hausdorff_95 is None
    assert (right.surface_dice, missed.surface_dice) == (None, 0.0)


def test_the_references_rule_sees_no_false_alarm_and_three_hundred_items() -> None:
    truth, found = box(5, 15), box(5, 15)
    found[0] = True
    row = measure_one(case(truth), finding(found), truth, 2.0)
    assert row.published_dice == 1.0
    assert row.dice < 0.5
    assert len(published_rule([row] * 350)) == 300


@given(st.integers(1, 200), st.integers(0, 5))
def test_probabilities_that_come_true_have_no_error(count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = draw.random(count) < 0.5
    error, bins = calibration_error(truth.astype(float), truth)
    assert error == pytest.approx(0.0)
    assert sum(number for _, _, number in bins) == count
    worst, _ = calibration_error(1.0 - truth.astype(float), truth)
    assert worst == pytest.approx(1.0)


def test_a_comparison_knows_a_difference_from_chance() -> None:
    draw = np.random.default_rng(0)
    first = draw.random(80)
    groups = [str(n // 2) for n in range(80)]
    better = compare(first.tolist(), (first + 0.1 + 0.05 * draw.random(80)).tolist(), groups)
    assert better.low > 0.09 and better.p_value is not None and better.p_value < 1e-9
    same = compare(first.tolist(), first.tolist(), groups)
    assert same.difference == 0 and same.p_value is None
    chance = compare(first.tolist(), (first + draw.normal(0, 0.1, 80)).tolist(), groups)
    assert chance.low < 0 < chance.high


def test_words_are_scored_by_their_libraries() -> None:
    scores = wording.text_scores(["A large polyp."], ["a large polyp"])
    assert scores["exact"] == scores["contains"] == 1.0
    assert scores["BLEU-1"] > 0.7
    assert scores["ROUGE-L"] == pytest.approx(1.0)
    other = wording.text_scores(["Nothing was seen here"], ["a large polyp"])
    assert other["ROUGE-L"] == other["exact"] == 0.0


@pytest.fixture(scope="module")
def phantoms() -> list[Case]:
    result = []
    for seed, inserts in ((11, 1), (12, 0), (13, 2)):
        phantom = generate_phantom(seed, (8, 128, 128), (15.0, 2.8, 2.8), inserts=inserts)
        truths = {
            "phantom insert": phantom.labels > 0,
            "soft-tissue sarcoma": np.zeros_like(phantom.labels, np.bool_),
            "no such target": phantom.labels > 0,
        }
        result.append(
            Case(
                name=f"p{seed}",
                images=phantom.volume,
                modality="CT",
                kind="volume",
                truths=truths,
                source="phantom",
                group=f"g{seed}",
                spacing=phantom.spacing,
            )
        )
    return result


def test_an_evaluation_writes_tables_figures_and_a_page(
    nano: Engine, phantoms: list[Case], tmp_path: Path
) -> None:
    measured = measure(nano, phantoms, worst=2, other_modalities=True)
    asked = [row for row in measured.rows if not row.images_of]
    assert len(asked) == 6
    foreign = [row for row in measured.rows if row.images_of]
    assert {row.images_of for row in foreign} == {"CT"}
    assert len({row.modality for row in foreign}) == 3, "each case as of another modality"
    assert not any(row.target == "soft-tissue sarcoma" for row in foreign)
    words = measure_words(nano, phantoms)
    by_task = {line["task"]: line for line in words}
    assert by_task["modality"]["accuracy"] == 1.0
    assert by_task["present or not"]["items"] == 6
    assert by_task["region"]["accuracy"] == 1.0
    assert by_task["report"]["ROUGE-L"] > 0.5
    write_rows(measured.rows, tmp_path / "earlier.csv")
    earlier = read_rows(tmp_path / "earlier.csv")
    assert earlier == list(measured.rows)
    page = write_evaluation(
        measured,
        nano,
        tmp_path / "out",
        data="three phantoms <& more>",
        tolerance=2.0,
        words=words,
        against=("before", earlier),
    )
    text = page.read_text()
    assert "three phantoms &lt;&amp; more&gt;" in text
    assert "http" not in text, "the page needs no network"
    assert text.count("data:image/png") == 4 + len(measured.worst), "two figures, light and dark"
    assert (LEFT_OUT in text) == (wordnet_folder() is None)
    assert (">METEOR<" in text) == (wordnet_folder() is not None)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "index.html", "cases.csv", "summary.csv", "summary.json", "summary.md", "dice.png",
        "reliability.png",
    }  # fmt: skip
    summary = read_summary(tmp_path / "out")
    assert summary["digest"] == nano.digest
    insert = summary["targets"][0]
    assert insert["target"] == "phantom insert, CT"
    assert (insert["positives"], insert["negatives"]) == (2, 1)
    assert insert["dice_positive"] > 0.8
    assert insert["presence_auc_own"] == insert["presence_auc_modality"] == 1.0
    assert insert["presence_negatives_own"] == 1
    assert summary["targets"][1]["dice_negatives_counted"] == 1.0
    assert all(line["difference"] == 0 for line in summary["comparison"])
    with (tmp_path / "out" / "summary.csv").open() as file:
        assert [line["target"] for line in csv.DictReader(file)][-1] == "mean over targets"


def row(positive: bool, probability: float, **changes: Any) -> Row:
    values = {
        "case": "c", "source": "shows it", "group": "g", "modality": "CT", "target": "x",
        "positive": positive, "presence": "present" if probability >= 0.5 else "absent",
        "probability": probability, "dice": 0.5, "iou": 0.4,
        "published_dice": 0.5 if positive else None, "hausdorff_95": None, "surface_dice": None,
        "found_ml": None, "true_ml": None,
    }  # fmt: skip
    return Row(**{**values, **changes})


def test_presence_stands_against_three_circles_of_negatives(nano: Engine) -> None:
    rows = [
        row(True, 0.8),
        row(True, 0.4),
        row(False, 0.6),
        row(False, 0.1, source="another set"),
        row(False, 0.2, source="fundus", images_of="fundus"),
        row(False, 0.5, source="fundus", images_of="fundus"),
    ]
    line = summarise(rows, nano)[0]
    circles = {
        name: (line[f"presence_auc_{name}"], line[f"presence_negatives_{name}"])
        for name in ("own", "modality", "all")
    }
    assert circles == {"own": (0.5, 1), "modality": (0.75, 2), "all": (0.75, 4)}
    # What the node would not ask about counts nowhere else.
    assert (line["negatives"], line["specificity"]) == (2, 0.5)
    assert line["dice_negatives_counted"] == 0.5
    error, _ = calibration_error(
        np.array([0.8, 0.4, 0.6, 0.1]), np.array([True, True, False, False])
    )
    assert line["calibration_error"] == pytest.approx(error)
    assert 0 < line["calibration_chance"] < line["calibration_chance_95"]


def test_two_evaluations_are_compared_by_both_rules_and_as_a_whole() -> None:
    draw = np.random.default_rng(1)
    before, after = [], []
    for number in range(320):
        target, shown = ("x", "y")[number % 2], number % 4 < 2
        one = {"case": str(number), "group": str(number // 2), "target": target}
        dice = float(draw.random() * 0.5)
        published = dice if shown else None
        before.append(row(shown, 0.9, dice=dice, published_dice=published, **one))
        gain = 0.1 + 0.05 * float(draw.random()) if shown else 0.0
        better = None if published is None else published + 2 * gain
        after.append(row(shown, 0.9, dice=dice + gain, published_dice=better, **one))
    lines = {(line["target"], line["rule"]): line for line in compare_rows(before, after)}
    assert list(lines) == [
        ("x, CT", "node"), ("x, CT", "reference"), ("y, CT", "node"), ("y, CT", "reference"),
        ("all targets together", "node"), ("all targets together", "reference"),
    ]  # fmt: skip
    node, reference = lines["x, CT", "node"], lines["x, CT", "reference"]
    assert (node["count"], reference["count"]) == (160, 80), "negatives are counted by one alone"
    assert reference["difference"] == pytest.approx(4 * node["difference"])
    assert 0 < node["low"] < node["difference"] < node["high"]
    assert node["p_value"] < 1e-6
    assert lines["all targets together", "node"]["count"] == 320


def test_an_evaluation_from_before_other_modalities_were_asked_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    write_rows([row(True, 0.8)], path)
    path.write_text("\n".join(line.removesuffix(",images_of").removesuffix(",")
                              for line in path.read_text().splitlines()))  # fmt: skip
    assert "images_of" not in path.read_text()
    assert read_rows(path)[0].images_of == ""


def test_nothing_measured_is_said(nano: Engine, tmp_path: Path) -> None:
    nothing = measure(nano, [case(box(5, 15))])
    with pytest.raises(ValueError, match="nothing was measured"):
        write_evaluation(nothing, nano, tmp_path, data="x", tolerance=1.0)
    assert summarise([], nano) == []


def test_only_cases_that_both_looked_at_are_compared(nano: Engine, phantoms: list[Case]) -> None:
    rows = measure(nano, phantoms, worst=0).rows
    lines = compare_rows(rows[:1], rows)
    assert {line["rule"] for line in lines} == {"node", "reference"}
    assert all(line["count"] == 1 for line in lines)


def test_sets_of_a_recipe_are_read_with_their_negatives(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(recipe_data())
    cases = list(recipe_cases(recipe, write_data(tmp_path), sides=tuple(Side)))
    assert len(cases) == 24
    breasts = [one for one in cases if one.source == "breasts"]
    assert [bool(one.truths["breast tumour"].any()) for one in breasts[:3]] == [False, True, True]
    held_out = list(recipe_cases(recipe, tmp_path))
    assert 0 < len(held_out) < 24


def test_a_published_set_is_read(tmp_path: Path) -> None:
    path = write_2d(tmp_path)
    (first, *_) = published_cases(path, "train")
    assert (list(first.truths), first.modality) == (["polyp"], "endoscopy")
    assert first.truths["polyp"].shape == (1, 40, 60)
    (tmp_path / "train_mask" / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png cannot be read"):
        list(published_cases(path, "train"))
    assert split_phrase("nuclei in stain in pathology") == ("nuclei in stain", "pathology")
    assert split_phrase("nuclei") == ("nuclei", "")


def test_a_file_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="was not written by an evaluation"):
        read_rows(path)


def test_rows_are_plain_data() -> None:
    row = measure_one(case(box(5, 15)), finding(box(5, 15)), box(5, 15), 2.0)
    assert isinstance(row, Row)
    json.dumps({name: getattr(row, name) for name in row.__slots__})
