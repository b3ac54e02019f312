"""The U-Net beside the model: told its target, it learns to look for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from learning import baseline
from learning.baseline import FIGURES, FilmUNet, load_baseline, train_baseline
from learning.recipe import Recipe
from tests.learning.small_recipe import recipe_data, write_data, write_recipe

SETTINGS = {"width": 8, "minutes": 5, "max_steps": 3, "lr": 1e-3}


def test_each_target_gets_a_mask_of_its_own() -> None:
    torch.manual_seed(0)
    net = FilmUNet(8, 3).eval()
    logits, score = net(torch.randn(2, 3, 64, 64), torch.tensor([[0, 1], [2, 2]]))
    assert logits.shape == (4, 32, 32)
    assert score.shape == (4,)
    assert not torch.allclose(logits[0], logits[1])
    assert torch.allclose(logits[2], logits[3])


def test_it_is_trained_and_measured_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "data", images=30)
    config = write_recipe(tmp_path, baseline=SETTINGS)
    run = tmp_path / "run"
    monkeypatch.setattr(
        "sys.argv", ["baseline", str(config), "--data", str(data), "--out", str(run)]
    )
    baseline.main()
    figures = json.loads((run / FIGURES).read_text())
    assert set(figures) == {"polyp, endoscopy", "breast tumour, ultrasound"}
    assert all(0 <= item["dice"] <= 1 and item["images"] > 0 for item in figures.values())


def test_a_recipe_without_one_says_so(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(recipe_data(baseline=None))
    with pytest.raises(ValueError, match="no baseline"):
        train_baseline(recipe, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="no baseline"):
        load_baseline(recipe, tmp_path / "baseline.pt")
