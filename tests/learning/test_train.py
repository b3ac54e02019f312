"""Training: all stages run, stop and go on; the folder that comes out answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.engine import Engine
from inference.errors import NotCoveredError
from learning.descent import schedule
from learning.losses import mask_losses, soft_dice, weighted_mean
from learning.recipe import Recipe
from learning.release import release
from learning.train import Trainer, train
from tests.learning.small_recipe import recipe_data, write_data, write_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), images=30)


def test_all_stages_run_and_a_model_folder_with_a_card_comes_out(
    data: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path)
    run, out = tmp_path / "run", tmp_path / "model"
    assert train(recipe, data, run) == run / "checkpoint.pt"
    card = release(run, recipe, data, out, tmp_path / "README.md")
    # Nine steps teach nothing, and the card says so: nothing is listed that was not learned.
    assert card.targets == ()
    assert {item.name for item in card.not_listed} == {"polyp", "breast tumour"}
    assert "| polyp, endoscopy | not listed | Dice 0." in (tmp_path / "README.md").read_text()
    engine = Engine.load(out)
    with pytest.raises(NotCoveredError):
        engine.segment(
            np.zeros((1, 8, 8), np.uint8), modality="endoscopy", kind="images", targets=["polyp"]
        )


def test_a_stopped_run_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(recipe_data())
    Trainer(recipe.model_copy(update={"stages": recipe.stages[:1]}), data, tmp_path).run()
    resumed = Trainer(recipe, data, tmp_path)
    assert resumed.progress.stage == 1
    assert resumed.progress.total_steps == 3
    resumed.run()
    assert resumed.progress.stage == 4


def test_two_workers_take_the_same_steps(data: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, workers=2, checkpoint_minutes=1)
    state = torch.load(train(recipe, data, tmp_path / "run"), weights_only=True)
    assert state["progress"]["stage"] == 4
    assert state["progress"]["total_steps"] == 9


def test_the_language_stage_moves_only_the_language_side(data: Path, tmp_path: Path) -> None:
    stages = [{"kind": "language", "minutes": 5, "max_steps": 2, "lr": 1e-3}]
    trainer = Trainer(Recipe.model_validate(recipe_data(stages=stages)), data, tmp_path)
    before = {k: v.clone() for k, v in trainer.net.state_dict().items()}
    trainer.run()
    changed = {k for k, v in trainer.net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(k.startswith(("model.mllm.", "model.text_hidden_fcs.")) for k in changed)


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    values = [schedule(f) for f in np.linspace(0, 1, 200)]
    assert values[0] < 0.05
    assert max(values) == pytest.approx(1.0, abs=0.01)
    assert values[-1] == pytest.approx(0.0, abs=1e-6)


def test_a_good_mask_loses_less_than_a_bad_one() -> None:
    truth = torch.zeros(2, 8, 8)
    truth[:, 2:6, 2:6] = 1
    good = torch.where(truth > 0, 9.0, -9.0)
    assert (soft_dice(good, truth) < 0.05).all()
    assert (soft_dice(-good, truth) > 0.8).all()
    entropy, dice = mask_losses(good, truth, torch.tensor([1.0, 0.0]))
    assert entropy < 0.01
    assert dice < 0.05


def test_prompts_without_weight_do_not_count() -> None:
    values = torch.tensor([1.0, 100.0])
    assert weighted_mean(values, torch.tensor([1.0, 0.0])) == 1.0
    assert weighted_mean(values, torch.zeros(2)) == 0.0


def test_the_log_is_readable_line_by_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learning.train._REPORT_EVERY", 2)
    stages = [{"kind": "vectors", "minutes": 5, "max_steps": 2, "lr": 1e-3}]
    Trainer(Recipe.model_validate(recipe_data(stages=stages)), data, tmp_path).run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["stage"] == "vectors"
    assert lines[0]["step"] == 2
