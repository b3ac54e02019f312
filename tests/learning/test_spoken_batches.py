"""Batches with dialogues: tokens, masks and drawn regions belong together, and can be learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from inference import decoding, prompts
from inference.prompts import NONE_LISTED
from inference.tiling import normalise
from learning.batches import BatchMaker
from learning.datasets import load_split
from learning.recipe import Recipe
from learning.spoken_batches import SpokenBatch, SpokenBatchMaker
from learning.train import Trainer
from learning.vocabulary import train_tokenizer
from tests.learning.small_recipe import recipe_data, write_data

IMAGES = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("spoken"), images=20)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(recipe_data())


@pytest.fixture(scope="module")
def tokenizer(recipe: Recipe) -> Tokenizer:
    return train_tokenizer(recipe)


def maker(data: Path, recipe: Recipe, tokenizer: Tokenizer) -> SpokenBatchMaker:
    plain = BatchMaker(load_split(recipe, data).train, recipe, IMAGES, seed=4)
    return SpokenBatchMaker(plain, recipe, 4, tokenizer, image_tokens=4)


def answer_of(batch: SpokenBatch, row: int, tokenizer: Tokenizer) -> str:
    ids = batch.ids[row][batch.answer[row] > 0].tolist()
    return str(tokenizer.decode(ids, skip_special_tokens=False))


def green(batch: SpokenBatch) -> Tensor:
    colour = normalise(torch.tensor([0.0, 1.0, 0.0])[None, :, None, None])
    return (batch.shown == colour).all(dim=1)


def test_tokens_masks_and_boxes_belong_together(
    data: Path, recipe: Recipe, tokenizer: Tokenizer
) -> None:
    speaking = maker(data, recipe, tokenizer)
    seg = decoding.token_id(tokenizer, prompts.SEG)
    spoken = marked = 0
    for _ in range(6):
        batch = speaking.batch()
        drawn = green(batch)
        for row in range(IMAGES):
            text = answer_of(batch, row, tokenizer)
            assert text.endswith(prompts.END)
            count = int(batch.spoken_weight[row].sum())
            assert text.count(prompts.SEG) == count
            for place in range(count):
                spoken += 1
                assert int(batch.ids[row, batch.seg_position[row, place]]) == seg
                assert batch.spoken_mask[row, place].sum() > 0
            region = text.startswith((NONE_LISTED, "polyp in", "breast tumour in"))
            assert bool(drawn[row].any()) == region
            if region:
                marked += 1
                assert torch.equal(
                    batch.shown[row].masked_fill(drawn[row], 0),
                    batch.pixels[row].masked_fill(drawn[row], 0),
                )
    assert spoken > 5
    assert marked > 5


def test_the_same_seed_says_the_same(data: Path, recipe: Recipe, tokenizer: Tokenizer) -> None:
    first, second = (maker(data, recipe, tokenizer).batch() for _ in range(2))
    assert torch.equal(first.ids, second.ids)
    assert torch.equal(first.shown, second.shown)


def test_the_spoken_stage_learns_words(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learning.train._REPORT_EVERY", 4)
    stages = [{"kind": "spoken", "minutes": 5, "max_steps": 12, "lr": 5e-3}]
    trainer = Trainer(Recipe.model_validate(recipe_data(stages=stages)), data, tmp_path)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["words"] < 0.95 * lines[0]["words"]
    assert "spoken_dice" in lines[-1]
