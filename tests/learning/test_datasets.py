"""Data sets: the split is by patient, and what is unknown is never called absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from learning.batches import BatchMaker, prefetch
from learning.datasets import Side, load_split, side_of
from learning.recipe import Recipe, load_recipe
from tests.learning.small_recipe import ROOT, recipe_data, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), images=30)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(recipe_data())


def test_no_group_is_on_both_sides(data: Path, recipe: Recipe) -> None:
    split = load_split(recipe, data)
    train, calibration, test = (
        {sample.group for sample in part} for part in (split.train, split.calibration, split.test)
    )
    assert train
    assert calibration
    assert test
    assert not train & calibration
    assert not train & test
    assert not calibration & test


def test_the_shipped_recipe_holds_out_the_patient_of_the_end_to_end_test() -> None:
    shipped = load_recipe(ROOT / "configs" / "nano.yaml")
    assert side_of("STS_014", shipped) is Side.TEST


def test_about_a_fifth_of_the_groups_is_held_out(recipe: Recipe) -> None:
    sides = [side_of(f"patient {i}", recipe) for i in range(2000)]
    assert np.mean([s is Side.TEST for s in sides]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([s is Side.CALIBRATION for s in sides]) == pytest.approx(0.1, abs=0.03)


def test_empty_masks_of_the_own_source_are_absent(data: Path, recipe: Recipe) -> None:
    split = load_split(recipe, data)
    breasts = [s for s in (*split.train, *split.calibration, *split.test) if s.source == "breasts"]
    assert {s.absent_own for s in breasts if not s.present} == {(1,)}
    assert {s.absent_own for s in breasts if s.present} == {()}
    assert {s.absent_other for s in breasts} == {(0,)}


def test_what_a_source_does_not_know_is_neither_present_nor_absent(data: Path) -> None:
    changed = recipe_data()
    changed["sources"][0]["unknown"] = ["breast tumour, ultrasound"]
    split = load_split(Recipe.model_validate(changed), data)
    polyps = [s for s in split.train if s.source == "polyps"]
    assert all(s.absent_other == () and s.absent_own == () for s in polyps)


def test_a_missing_folder_is_named(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(FileNotFoundError, match="polyps"):
        load_split(recipe, tmp_path)


def test_a_recipe_that_names_no_concept_is_refused() -> None:
    changed = recipe_data()
    changed["sources"][0]["targets"] = {"kidney, CT": [1]}
    with pytest.raises(ValidationError, match="which is no concept"):
        Recipe.model_validate(changed)


def test_batches_follow_from_the_seed(data: Path, recipe: Recipe) -> None:
    samples = load_split(recipe, data).train
    first, second = (BatchMaker(samples, recipe, 4, seed=9).batch() for _ in range(2))
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.mask, second.mask)
    assert first.pixels.shape == (4, 3, 64, 64)
    assert first.mask.shape == (4, 3, 32, 32)


def test_absent_prompts_have_no_mask(data: Path, recipe: Recipe) -> None:
    maker = BatchMaker(load_split(recipe, data).train, recipe, 8, seed=1)
    for _ in range(5):
        batch = maker.batch()
        assert batch.mask[batch.present == 0].sum() == 0
        shown = batch.mask[(batch.present == 1) & (batch.weight == 1)]
        assert (shown.sum(dim=(1, 2)) > 0).all()
        assert {0.0, 1.0} >= set(batch.present.unique().tolist())


def test_prefetching_keeps_the_order(data: Path, recipe: Recipe) -> None:
    samples = load_split(recipe, data).train
    plain = BatchMaker(samples, recipe, 2, seed=3)
    ahead = prefetch(BatchMaker(samples, recipe, 2, seed=3))
    for _ in range(3):
        assert torch.equal(next(ahead).pixels, plain.batch().pixels)
    ahead.close()


def test_an_error_in_the_thread_reaches_the_trainer(data: Path, recipe: Recipe) -> None:
    maker = BatchMaker(load_split(recipe, data).train, recipe, 2, seed=3)

    def broken() -> None:
        raise ValueError("bad image")

    maker.batch = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(ValueError, match="bad image"):
        next(prefetch(maker))
