"""Fine-tuning: what learns, what stays, and that it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from inference.engine import Engine
from inference.errors import NotCoveredError
from learning import adapt as adapting
from learning.adaptation_losses import at_points, mask_loss, sample_points
from learning.adaptation_recipe import Adaptation, LossSettings, is_adaptation
from learning.cases import DataError
from learning.examples import labelled_folder, published_2d, published_3d, radgenome
from tests.inference.tiny_model import save_tiny
from tests.learning.small_recipe import ROOT

SMALL = {
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
    "losses": {"points": 64},
    "batch": 2,
    "accumulate": 2,
    "precision": "no",
    "lr": 1e-3,
    "checkpoint_steps": 2,
}


def write_2d(folder: Path, count: int = 6) -> Path:
    """Draw a set in the published 2D form."""
    draw = np.random.default_rng(0)
    for name in ("train", "train_mask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    annotations = []
    for number in range(count):
        picture = draw.integers(0, 90, (40, 60, 3)).astype(np.uint8)
        mask = np.zeros((40, 60), np.uint8)
        mask[5:30, 10:40] = 255
        picture[mask > 0] += 100
        Image.fromarray(picture).save(folder / "train" / f"{number}.png")
        Image.fromarray(mask).save(folder / "train_mask" / f"{number}.png")
        entry: dict[str, Any] = {
            "id": number,
            "image_id": number,
            "file_name": f"{number}.png",
            "mask_file": f"{number}.png",
            "split": "train",
            "sentences": [{"raw": "Polyp in endoscopy.", "sent": "polyp in endoscopy"}],
        }
        if number == 0:
            entry["abnormality"] = "Polyp in endoscopy"
        annotations.append(entry)
    path = folder / "train.json"
    path.write_text(json.dumps({"images": [], "annotations": annotations}))
    return path


def write_3d(folder: Path) -> Path:
    write_2d(folder)
    files = [f"train/{n}.png" for n in range(6)]
    masks = [f"train_mask/{n}.png" for n in range(6)]
    expression = {"exp": "polyp in endoscopy", "img_file": files, "mask_file": masks}
    path = folder / "volumes.json"
    path.write_text(
        json.dumps({"volumes": {"v": {"slices": [], "expressions": {"0": expression}}}})
    )
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_2d(folder / "two")
    write_3d(folder / "three")
    report = {
        "a": {
            "abnormality": "Effusion",
            "image_file": "train/0.png",
            "mask_file": "train_mask/0.png",
            "report": "A small effusion.",
            "anatomy": "Pleura",
        }
    }
    (folder / "two" / "radgenome.json").write_text(json.dumps(report))
    return folder


def recipe(folder: Path, base: Path, **changes: Any) -> Path:
    sets = [
        {"format": "published_2d", "path": "two/train.json"},
        {"format": "radgenome", "path": "two/radgenome.json"},
    ]
    path = folder / "adapt.yaml"
    path.write_text(yaml.safe_dump({"base": str(base), "sets": sets, **SMALL, **changes}))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_the_recipes_parts_learn_and_the_encoders_stay(
    base: Path, data: Path, tmp_path: Path
) -> None:
    config = recipe(tmp_path, base, max_steps=3)
    out = adapting.adapt(config, data, tmp_path / "run")
    before, after = weights(base), weights(out)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    stay = ("mllm.model.vision_tower.", "grounding_encoder.sam2_model.image_encoder.")
    assert not [name for name in changed if name.startswith(stay)]
    for part in (
        "mllm.model.language_model.layers.0.self_attn.q_proj.weight",
        "mllm.model.language_model.layers.0.mlp.down_proj.weight",
        "mllm.model.multi_modal_projector.linear_1.weight",
        "mllm.lm_head.weight",
        "text_hidden_fcs.0.weight",
    ):
        assert part in changed
    assert any(name.startswith("grounding_encoder.sam2_model.sam_mask") for name in changed)
    # Layers of the language model change by their low-rank part alone.
    assert "mllm.model.language_model.layers.0.input_layernorm.weight" not in changed
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    engine = Engine.load(out)
    with pytest.raises(NotCoveredError, match="fine-tuned after it was measured"):
        engine.segment(
            np.zeros((1, 9, 9), np.uint8), modality="endoscopy", kind="images", targets=["polyp"]
        )


def test_a_stopped_run_goes_on(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    adapting.adapt(recipe(tmp_path, base, max_steps=2), data, out)
    first = weights(out / "model")
    checkpoints = sorted(path.name for path in (out / "checkpoints").iterdir())
    adapting.adapt(recipe(tmp_path, base, max_steps=4), data, out)
    second = weights(out / "model")
    later = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert len(later) == len(checkpoints) + 1
    assert any(not torch.equal(first[name], second[name]) for name in first)
    again = adapting.adapt(recipe(tmp_path, base, max_steps=4), data, out)
    third = weights(again)
    assert all(torch.equal(second[name], third[name]) for name in second)


def test_merging_changes_no_answer(base: Path) -> None:
    from inference.checkpoints import load_checkpoint

    settings = Adaptation.model_validate(
        {"base": base, "sets": [{"format": "radgenome", "path": "x"}], **SMALL}
    )
    model = load_checkpoint(base).model
    adapting.prepare_model(model, settings)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.2)
    tokens, ids = torch.randn(1, 4, 32), torch.full((1, 9), 70)
    ids[0, 2:6] = model.config.language.image_token_id
    with torch.no_grad():
        loose = model.eval().states(tokens, ids)
        adapting.merge(model)
        torch.testing.assert_close(model.states(tokens, ids), loose, atol=1e-5, rtol=1e-4)
    assert not [name for name in model.state_dict() if "lora" in name]


def test_published_forms_become_questions_answers_and_masks(data: Path) -> None:
    examples = list(published_2d(data / "two" / "train.json"))
    assert len(examples) == 8
    assert "Please segment polyp in endoscopy." in examples[0].questions
    assert len(set(examples[0].questions)) == 16
    shown = examples[0].load()
    assert shown.masks is not None and shown.masks.shape == (1, 40, 60)
    disease, region = examples[1], examples[2]
    assert disease.answers == ("It is [SEG]. polyp in endoscopy.", "[SEG]. polyp in endoscopy.")
    boxed = region.load()
    assert boxed.masks is None
    assert (boxed.pictures[0, 5, 10:40] == (0, 255, 0)).all()
    (volume,) = published_3d(data / "three" / "volumes.json")
    assert volume.load().pictures.shape == (6, 40, 60, 3)
    asked, report = radgenome(data / "two" / "radgenome.json")
    assert asked.answers == ("<p> effusion. </p> [SEG]",)
    assert "in pleura?" in asked.questions[0]
    assert report.answers == ("<p> effusion. A small effusion. </p> [SEG]",)


def test_a_labelled_folder_becomes_examples(shared_data: Path) -> None:
    found = list(labelled_folder(shared_data / "train" / "dermoscopy_isic2017"))
    assert "Please segment skin lesion in dermoscopy." in found[0].questions
    shown = found[0].load()
    assert shown.masks is not None and shown.masks.any()


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (published_2d, "[]"),
        (published_2d, '{"annotations": [{"id": 1}]}'),
        (published_2d, "{"),
        (published_3d, '{"volumes": {"v": {}}}'),
        (radgenome, '{"a": {}}'),
    ],
)
def test_a_file_in_another_form_is_named(reader: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"set\.json"):
        list(reader(path))


def test_points_are_taken_where_the_mask_is_unsure() -> None:
    torch.manual_seed(0)
    logits = torch.full((1, 32, 32), 9.0)
    logits[:, :, :4] = 0.1
    settings = LossSettings(points=200)
    points = sample_points(logits, settings)
    assert points.shape == (1, 200, 2)
    unsure = (at_points(logits, points).abs() < 5).float().mean()
    assert unsure > 0.3, "an eighth of the map is unsure, and most points lie there"


def test_a_right_mask_loses_less() -> None:
    truth = torch.zeros(2, 16, 16)
    truth[:, 4:12, 4:12] = 1
    settings = LossSettings(points=256)
    good = torch.where(truth > 0, 8.0, -8.0)
    # Most points lie on the outline, where even a right mask is half and half.
    assert sum(mask_loss(good, truth, settings)) < 1.5
    assert sum(mask_loss(-good, truth, settings)) > 5


def test_the_shipped_recipe_says_what_the_paper_says() -> None:
    path = ROOT / "configs" / "unibiomed.yaml"
    assert is_adaptation(path)
    assert not is_adaptation(ROOT / "configs" / "nano.yaml")
    said = yaml.safe_load(path.read_text())
    stated = Adaptation.model_validate(said)
    silent = Adaptation.model_validate({"base": said["base"], "sets": said["sets"]})
    assert stated == silent
