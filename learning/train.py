"""Train a model from a recipe: vectors, then the language model, then all together, then words.

End to end from random weights the prompt never reaches the decoder (its bridge outputs are nearly
equal for all prompts), so the SAM2 part is first trained with one learned vector per concept; the
language model is then taught to say these vectors; then all is trained jointly, in the end with
answers in words beside the masks.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from sam2.modeling.backbones.image_encoder import ImageEncoder
from sam2.modeling.sam2_utils import DropPath
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from inference import decoding, prompts
from inference.architecture import (
    GroundingConfig,
    LanguageConfig,
    ModelConfig,
    UniBiomed,
    VisionConfig,
)
from learning.batches import Batch, BatchMaker, Maker, prefetch
from learning.datasets import load_split
from learning.descent import Descent, LossParts, Rate, common_clock, schedule
from learning.losses import AuxiliaryHeads, decoder_loss
from learning.recipe import Baseline, Recipe, Stage, load_recipe
from learning.speech import speech_loss
from learning.spoken_batches import SpokenBatch, SpokenBatchMaker
from learning.vocabulary import train_tokenizer

_LOG = logging.getLogger(__name__)
_EMA_DECAY = 0.998
_EMA_EVERY = 5
"""Steps between updates of the averaged weights; the decay is per step."""
_REPORT_EVERY = 50
"""Steps between lines of the log."""


class TrainingModel(nn.Module):
    """The model with what only training needs: concept vectors and auxiliary heads."""

    def __init__(self, config: ModelConfig, concepts: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.model = UniBiomed(config)
        self.vectors = nn.Embedding(concepts, config.grounding.d_model)
        self.auxiliary = AuxiliaryHeads(config.grounding.d_model, concepts)
        if drop_path:
            drop_paths(self.model, drop_path)


def drop_paths(model: UniBiomed, most: float) -> None:
    """Let images go around the trunk's blocks at random while training, the deeper the oftener."""
    encoder = model.grounding.image_encoder
    blocks = cast(ImageEncoder, encoder).trunk.blocks
    rates = torch.linspace(0.0, most, len(blocks)).tolist()
    for block, rate in zip(blocks, rates, strict=True):
        block.drop_path = DropPath(rate)


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    stage: int = 0
    step: int = 0
    elapsed: float = 0.0
    total_steps: int = 0


def model_config(recipe: Recipe, tokenizer: Tokenizer) -> ModelConfig:
    """Fill the recipe's sizes into the architecture's configuration."""
    parts = recipe.architecture
    return ModelConfig(
        vision=VisionConfig(**parts.vision),  # type: ignore[arg-type]
        language=LanguageConfig(
            vocabulary=tokenizer.get_vocab_size(),
            image_token_id=decoding.token_id(tokenizer, prompts.IMAGE_CONTEXT),
            **parts.language,  # type: ignore[arg-type]
        ),
        grounding=GroundingConfig(**parts.grounding),  # type: ignore[arg-type]
    )


def device_of(recipe: Recipe) -> torch.device:
    """Where a recipe is trained on this machine."""
    if recipe.device != "auto":
        return torch.device(recipe.device)
    return torch.device("cuda" if torch.cuda.is_available() and recipe.workers == 1 else "cpu")


class Trainer:
    """One training run in one folder; picks up from the folder's last checkpoint.

    With several workers each process holds the same weights and draws its share of every batch;
    gradients are averaged before each step. Only the first writes.
    """

    def __init__(self, recipe: Recipe, data: Path, out: Path, rank: int = 0) -> None:
        self.rank = rank
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        torch.set_float32_matmul_precision("high")
        out.mkdir(parents=True, exist_ok=True)
        self.recipe, self.out, self.device = recipe, out, device_of(recipe)
        self.tokenizer = train_tokenizer(recipe)
        if rank == 0:
            self.tokenizer.save(str(out / "tokenizer.json"))
        self.config = model_config(recipe, self.tokenizer)
        self.net = TrainingModel(self.config, len(recipe.concepts), recipe.drop_path)
        self.net.to(self.device)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.progress = Progress()
        self._prompts = self._encode_prompts()
        self._optimizer_state: dict[str, Any] | None = None
        self._resume()
        samples = load_split(recipe, data).train
        seed = recipe.seed + self.progress.total_steps + 1_000_003 * rank
        images = recipe.batch_images // recipe.workers
        self._maker = BatchMaker(samples, recipe, images, seed, self.device)
        self._speaker = SpokenBatchMaker(
            self._maker, recipe, seed, self.tokenizer, self.config.image_tokens
        )

    def run(self) -> None:
        """Run the stages that are left."""
        for index in range(self.progress.stage, len(self.recipe.stages)):
            stage = self.recipe.stages[index]
            maker = self._speaker if stage.kind == "spoken" else self._maker
            with contextlib.closing(batches_of(maker, self.device)) as batches:
                self._stage(stage, batches)
            # The stage ends in its averaged weights; the next begins from them.
            self.net.load_state_dict(self.average)
            next_steps = self.progress.total_steps
            self.progress = Progress(stage=index + 1, total_steps=next_steps)
            self._optimizer_state = None
            self._save(None)
        _LOG.info("training is complete")

    def _stage(self, stage: Stage, batches: Iterator[Batch]) -> None:
        descent = Descent(self._rates(stage), self._losses(stage), self.device, self.recipe.workers)
        if self._optimizer_state is not None:
            descent.load(self._optimizer_state)
        last = saved = time.monotonic()
        self.net.train()
        while (fraction := stage_fraction(self.progress, stage)) < 1.0:
            factor = schedule(fraction)
            descent.step(next(batches), factor)
            now = time.monotonic()
            elapsed = self.progress.elapsed + now - last
            self.progress.elapsed = common_clock(elapsed, self.recipe.workers)
            last = now
            self._follow(stage)
            self.progress.step += 1
            self.progress.total_steps += 1
            if self.progress.step % _REPORT_EVERY == 0:
                self._report(stage, factor, descent.means())
            if now - saved > self.recipe.checkpoint_minutes * 60:
                self._save(descent)
                saved = now

    def _losses(self, stage: Stage) -> Callable[[Batch], LossParts]:
        return self._language_loss if stage.kind == "language" else (
            lambda batch: self._mask_loss(batch, spoken=stage.kind != "vectors")
        )  # fmt: skip

    def _language_loss(self, batch: Batch) -> LossParts:
        vectors = self._spoken(batch, first_wording=0.3)
        target = self.net.vectors(batch.concept.flatten()).detach()
        return {"total": torch.nn.functional.mse_loss(vectors.float(), target)}

    def _mask_loss(self, batch: Batch, *, spoken: bool) -> LossParts:
        model = self.net.model
        features = model.grounding.encode(batch.pixels)
        if spoken:
            vectors = self._spoken(batch, first_wording=0.7)
        else:
            vectors = self.net.vectors(batch.concept.flatten())
        count, asked = batch.concept.shape
        image = torch.arange(count, device=self.device).repeat_interleave(asked)
        losses = decoder_loss(model.grounding.decode(features, vectors, image), batch)
        total = losses.total + self.net.auxiliary.loss(features, batch)
        parts = {"dice": losses.dice, "presence": losses.presence}
        if isinstance(batch, SpokenBatch):
            words, masks = speech_loss(model, features, batch)
            total = total + words + 0.5 * masks.total
            parts |= {"words": words, "spoken_dice": masks.dice}
        return {"total": total, **parts}

    def _spoken(self, batch: Batch, first_wording: float) -> Tensor:
        """Bridge outputs for the batch's prompts: a part in the first wording, others in any."""
        asked = batch.concept.shape[1]
        concept, wording = batch.concept.flatten(), batch.wording.flatten()
        first = torch.rand(concept.shape, device=self.device) < first_wording
        rows = concept * len(prompts.WORDINGS) + torch.where(first, 0, wording)
        ids, position = self._prompts.ids[rows], self._prompts.seg_position[rows]
        tokens = self.net.model.image_tokens(batch.pixels).repeat_interleave(asked, dim=0)
        return self.net.model.seg_vectors(tokens, ids, position)

    def _encode_prompts(self) -> decoding.TokenBatch:
        """Every wording of every concept, concept by concept."""
        questions = [
            wording.format(phrase=prompts.TargetPrompt(concept.target, concept.modality).phrase)
            for concept in self.recipe.concepts
            for wording in prompts.WORDINGS
        ]
        batch = decoding.encode(self.tokenizer, questions, self.config.image_tokens)
        return decoding.TokenBatch(
            ids=batch.ids.to(self.device), seg_position=batch.seg_position.to(self.device)
        )

    def _rates(self, stage: Stage) -> list[Rate]:
        model = self.net.model
        language = [*model.mllm.parameters(), *model.text_hidden_fcs.parameters()]
        rest = [
            *model.grounding.parameters(),
            *self.net.auxiliary.parameters(),
            *(self.net.vectors.parameters() if stage.kind == "vectors" else ()),
        ]
        rates = []
        if stage.kind != "vectors":
            rates.append(Rate(language, stage.lr * stage.language_lr_factor, stage.weight_decay))
        if stage.kind != "language":
            rates.append(Rate(rest, stage.lr, stage.weight_decay))
        return rates

    def _follow(self, stage: Stage) -> None:
        """Let the averaged weights follow; the language stage is too short for an average."""
        step = self.progress.step
        if step % _EMA_EVERY:
            return
        decay = min(_EMA_DECAY, (1 + step) / (10 + step)) ** _EMA_EVERY
        if stage.kind == "language":
            decay = 0.0
        follow(self.average, self.net, decay)

    def _report(self, stage: Stage, factor: float, means: dict[str, float]) -> None:
        if self.rank:
            return
        progress = self.progress
        line = {
            "stage": stage.kind,
            "step": progress.step,
            "minutes": round(progress.elapsed / 60, 2),
            "factor": round(factor, 4),
            **{name: round(value, 4) for name, value in means.items()},
        }
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        _LOG.info("%s", line)

    def _save(self, descent: Descent | None) -> None:
        """Write the checkpoint beside the last one, then take its place."""
        if self.rank:
            return
        state = {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizer": None if descent is None else descent.state(),
            "progress": vars(self.progress),
        }
        partial = self.out / "checkpoint.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.out / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        self._optimizer_state = state["optimizer"]
        self.progress = Progress(**state["progress"])
        _LOG.info("resumed at stage %d, step %d", self.progress.stage, self.progress.step)


def batches_of(maker: Maker, device: torch.device) -> Generator[Batch]:
    """Endless batches: on a GPU made as they are needed, which takes it no time to speak of."""
    if device.type != "cuda":
        return prefetch(maker)
    return (maker.batch() for _ in itertools.count())


def follow(average: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    """Move averaged weights towards the present ones."""
    state = net.state_dict()
    names = [name for name, value in state.items() if value.is_floating_point()]
    with torch.no_grad():
        torch._foreach_lerp_(
            [average[name] for name in names], [state[name] for name in names], 1 - decay
        )


def stage_fraction(progress: Progress, stage: Stage | Baseline) -> float:
    """How much of a stage is over: by the clock, or by steps where they are limited."""
    by_clock = progress.elapsed / (stage.minutes * 60)
    by_steps = 0.0 if stage.max_steps is None else progress.step / stage.max_steps
    return min(1.0, max(by_clock, by_steps))


def train(config_path: Path, data: Path, out: Path) -> Path:
    """Train by a recipe.

    Parameters
    ----------
    config_path
        YAML recipe, e.g. ``configs/nano.yaml``.
    data
        Folder of the training sets.
    out
        Folder of the run: log, tokenizer and the resumable checkpoint. A run that was stopped goes
        on where it was.

    Returns
    -------
    Path
        The training checkpoint; ``learning.release`` makes a model folder of it.
    """
    recipe = load_recipe(config_path)
    if recipe.workers == 1:
        Trainer(recipe, data, out).run()
    else:
        with tempfile.TemporaryDirectory() as meeting:
            spawn(_worker, args=(recipe, data, out, f"{meeting}/rendezvous"), nprocs=recipe.workers)
    return out / "checkpoint.pt"


def _worker(rank: int, recipe: Recipe, data: Path, out: Path, meeting: str) -> None:
    """One process of a run with several."""
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    torch.set_num_threads(recipe.threads)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=recipe.workers
    )
    try:
        Trainer(recipe, data, out, rank).run()
    finally:
        dist.destroy_process_group()


def main(config: Path | None = None) -> None:
    """Command line: ``python -m learning.train CONFIG --data DIR --out DIR``."""
    parser = argparse.ArgumentParser(description="Train a model by a recipe.")
    parser.add_argument("config", type=Path, nargs="?" if config else None, default=config)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    train(arguments.config, arguments.data, arguments.out)


if __name__ == "__main__":
    main()
