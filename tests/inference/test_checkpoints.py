"""Checkpoint folders: round trip, and every way in which one can be broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.checkpoints import load_checkpoint, save_weights
from inference.errors import CheckpointError
from tests.inference.tiny_model import TOKENIZER, tiny_model


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "checkpoint"))


def test_saving_and_loading_keeps_every_weight(tiny_folder: Path) -> None:
    loaded = load_checkpoint(tiny_folder)
    for name, value in tiny_model().state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
    assert not loaded.model.training
    assert loaded.card.name == "tiny"


def test_the_digest_is_that_of_the_weights_alone(tiny_folder: Path, tmp_path: Path) -> None:
    digest = save_weights(tiny_model(), TOKENIZER, tmp_path, torch.float32)
    assert digest == load_checkpoint(tiny_folder).digest
    assert len(digest) == 64


def test_half_precision_is_stored_and_computed_in_single(folder: Path) -> None:
    save_weights(tiny_model(), TOKENIZER, folder, torch.float16)
    assert all(p.dtype == torch.float32 for p in load_checkpoint(folder).model.parameters())


def test_a_folder_that_is_no_checkpoint_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors, config\.json"):
        load_checkpoint(tmp_path)


def test_a_path_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_model_without_a_card_is_not_loaded(folder: Path) -> None:
    (folder / "card.yaml").unlink()
    with pytest.raises(CheckpointError, match="a model without a card is not loaded"):
        load_checkpoint(folder)


def test_missing_surplus_and_misshapen_tensors_are_all_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_hidden_fcs.0.bias"]
    tensors["left_over"] = torch.zeros(1)
    tensors["text_hidden_fcs.2.bias"] = torch.zeros(7)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert "1 missing: text_hidden_fcs.0.bias" in message
    assert "1 surplus: left_over" in message
    assert "text_hidden_fcs.2.bias (7,) instead of (32,)" in message


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["text_hidden_fcs.0.bias"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"not finite: text_hidden_fcs\.0\.bias"):
        load_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 5, 1000])
def test_a_truncated_file_is_damaged(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.json", "{"), ("config.json", "[]"), ("tokenizer.json", "{}"), ("card.yaml", "a: [")],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(folder)


def test_a_configuration_of_another_format_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["format"] = "something else"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="this version reads"):
        load_checkpoint(folder)
