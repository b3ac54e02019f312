"""Train a model from a recipe: vectors first, then the language model, then all together.

End to end from random weights the prompt never reaches the decoder (its bridge outputs are nearly
equal for all prompts), so the SAM2 part is first trained with one learned vector per concept; the
language model is then taught to say these vectors; then all is trained jointly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.attention import SDPBackend, sdpa_kernel

from inference import decoding, prompts
from inference.architecture import (
    GroundingConfig,
    LanguageConfig,
    ModelConfig,
    UniBiomed,
    VisionConfig,
)
from learning.batches import Batch, BatchMaker, prefetch
from learning.datasets import load_split
from learning.losses import AuxiliaryHeads, decoder_loss
from learning.recipe import Recipe, Stage, load_recipe
from learning.vocabulary import train_tokenizer

_LOG = logging.getLogger(__name__)
_EMA_DECAY = 0.998
_EMA_EVERY = 5
"""Steps between updates of the averaged weights; the decay is per step."""
_REPORT_EVERY = 50
"""Steps between lines of the log."""
_OTHER_WORDING = 0.3
"""Share of prompts in the joint stage that do not use the first wording."""


class TrainingModel(nn.Module):
    """The model with what only training needs: concept vectors and auxiliary heads."""

    def __init__(self, config: ModelConfig, concepts: int) -> None:
        super().__init__()
        self.model = UniBiomed(config)
        self.vectors = nn.Embedding(concepts, config.grounding.d_model)
        self.auxiliary = AuxiliaryHeads(config.grounding.d_model, concepts)


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    stage: int = 0
    step: int = 0
    elapsed: float = 0.0
    total_steps: int = 0
    log: dict[str, float] = field(default_factory=dict)


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


class Trainer:
    """One training run in one folder; picks up from the folder's last checkpoint.

    With several workers each process holds the same weights and draws its share of every batch;
    gradients are averaged before each step. Only the first writes.
    """

    def __init__(self, recipe: Recipe, data: Path, out: Path, rank: int = 0) -> None:
        self.rank = rank
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        out.mkdir(parents=True, exist_ok=True)
        self.recipe, self.out = recipe, out
        self.tokenizer = train_tokenizer(recipe)
        if rank == 0:
            self.tokenizer.save(str(out / "tokenizer.json"))
        self.config = model_config(recipe, self.tokenizer)
        self.net = TrainingModel(self.config, len(recipe.concepts))
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.progress = Progress()
        self._prompts = self._encode_prompts()
        self._optimizer_state: dict[str, Any] | None = None
        self._resume()
        samples = load_split(recipe, data).train
        seed = recipe.seed + self.progress.total_steps + 1_000_003 * rank
        self._maker = BatchMaker(samples, recipe, recipe.batch_images // recipe.workers, seed)
        self._draw = torch.Generator().manual_seed(seed)

    def run(self) -> None:
        """Run the stages that are left."""
        batches = prefetch(self._maker)
        with contextlib.closing(batches), sdpa_kernel(SDPBackend.MATH):
            for index in range(self.progress.stage, len(self.recipe.stages)):
                self._stage(self.recipe.stages[index], batches)
                # The stage ends in its averaged weights; the next begins from them.
                self.net.load_state_dict(self.average)
                next_steps = self.progress.total_steps
                self.progress = Progress(stage=index + 1, total_steps=next_steps)
                self._optimizer_state = None
                self._save(None)
        _LOG.info("training is complete")

    def _stage(self, stage: Stage, batches: Iterator[Batch]) -> None:
        optimizer = self._optimizer(stage)
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        peaks = [group["lr"] for group in optimizer.param_groups]
        last = saved = time.monotonic()
        self.net.train()
        while self.progress.elapsed < stage.minutes * 60 and (
            stage.max_steps is None or self.progress.step < stage.max_steps
        ):
            factor = _schedule(_fraction(self.progress, stage))
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            with torch.autocast("cpu", torch.bfloat16):
                loss = self._loss(stage, next(batches))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            now = time.monotonic()
            self.progress.elapsed = self._agree(parameters, self.progress.elapsed + now - last)
            last = now
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if not torch.isfinite(norm):
                _LOG.warning("step %d: gradient is not finite; skipped", self.progress.step)
                optimizer.zero_grad(set_to_none=True)
            optimizer.step()
            self._follow(stage)
            self._note("loss", float(loss.detach()))
            self.progress.step += 1
            self.progress.total_steps += 1
            if self.progress.step % _REPORT_EVERY == 0:
                self._report(stage, factor)
            if now - saved > self.recipe.checkpoint_minutes * 60:
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak
                self._save(optimizer)
                saved = now

    def _agree(self, parameters: list[nn.Parameter], elapsed: float) -> float:
        """Average gradients and clock over the workers, so that all take the same step."""
        if self.recipe.workers == 1:
            return elapsed
        gradients = [p.grad for p in parameters if p.grad is not None]
        clock = torch.tensor([elapsed])
        flat = torch.cat([*(g.reshape(-1) for g in gradients), clock])
        dist.all_reduce(flat)
        flat /= self.recipe.workers
        place = 0
        for gradient in gradients:
            gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
            place += gradient.numel()
        return float(flat[-1])

    def _loss(self, stage: Stage, batch: Batch) -> Tensor:
        if stage.kind == "language":
            vectors = self._spoken(batch, other_wording=0.7)
            target = self.net.vectors(batch.concept.flatten()).detach()
            return torch.nn.functional.mse_loss(vectors.float(), target)
        model = self.net.model
        features = model.grounding.encode(batch.pixels)
        if stage.kind == "vectors":
            vectors = self.net.vectors(batch.concept.flatten())
        else:
            vectors = self._spoken(batch, other_wording=_OTHER_WORDING)
        count, asked = batch.concept.shape
        image = torch.arange(count).repeat_interleave(asked)
        losses = decoder_loss(model.grounding.decode(features, vectors, image), batch)
        self._note("dice", float(losses.dice.detach()))
        self._note("presence", float(losses.presence.detach()))
        return losses.total + self.net.auxiliary.loss(features, batch)

    def _spoken(self, batch: Batch, other_wording: float) -> Tensor:
        """Bridge outputs for the batch's prompts, in random wordings."""
        asked = batch.concept.shape[1]
        concept = batch.concept.flatten()
        wording = torch.randint(len(prompts.WORDINGS), concept.shape, generator=self._draw)
        first = torch.rand(concept.shape, generator=self._draw) >= other_wording
        wording = torch.where(first, 0, wording)
        rows = concept * len(prompts.WORDINGS) + wording
        ids, position = self._prompts.ids[rows], self._prompts.seg_position[rows]
        ids = ids[:, : int(position.max()) + 1]
        tokens = self.net.model.image_tokens(batch.pixels).repeat_interleave(asked, dim=0)
        return self.net.model.seg_vectors(tokens, ids, position)

    def _encode_prompts(self) -> decoding.TokenBatch:
        """Every wording of every concept, concept by concept."""
        questions = [
            wording.format(phrase=prompts.TargetPrompt(concept.target, concept.modality).phrase)
            for concept in self.recipe.concepts
            for wording in prompts.WORDINGS
        ]
        return decoding.encode(self.tokenizer, questions, self.config.image_tokens)

    def _optimizer(self, stage: Stage) -> torch.optim.AdamW:
        model = self.net.model
        language = [*model.mllm.parameters(), *model.text_hidden_fcs.parameters()]
        rest = [
            *model.grounding.parameters(),
            *self.net.auxiliary.parameters(),
            *(self.net.vectors.parameters() if stage.kind == "vectors" else ()),
        ]
        parts: list[tuple[list[nn.Parameter], float]] = []
        if stage.kind != "vectors":
            parts.append((language, stage.lr * stage.language_lr_factor))
        if stage.kind != "language":
            parts.append((rest, stage.lr))
        groups: list[dict[str, Any]] = []
        for parameters, lr in parts:
            for matrix, decay in ((True, stage.weight_decay), (False, 0.0)):
                chosen = [p for p in parameters if (p.ndim > 1) is matrix]
                groups.append({"params": chosen, "lr": lr, "weight_decay": decay})
        return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)

    def _follow(self, stage: Stage) -> None:
        """Let the averaged weights follow; the language stage is too short for an average."""
        step = self.progress.step
        if step % _EMA_EVERY:
            return
        decay = min(_EMA_DECAY, (1 + step) / (10 + step)) ** _EMA_EVERY
        if stage.kind == "language":
            decay = 0.0
        with torch.no_grad():
            state = self.net.state_dict()
            names = [name for name, value in state.items() if value.is_floating_point()]
            torch._foreach_lerp_(
                [self.average[name] for name in names], [state[name] for name in names], 1 - decay
            )

    def _note(self, name: str, value: float) -> None:
        """Keep a running mean for the log."""
        log = self.progress.log
        log[name] = value if name not in log else 0.98 * log[name] + 0.02 * value

    def _report(self, stage: Stage, factor: float) -> None:
        if self.rank:
            return
        progress = self.progress
        line = {
            "stage": stage.kind,
            "step": progress.step,
            "minutes": round(progress.elapsed / 60, 2),
            "factor": round(factor, 4),
            **{name: round(value, 4) for name, value in progress.log.items()},
        }
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        _LOG.info("%s", line)

    def _save(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Write the checkpoint beside the last one, then take its place."""
        if self.rank:
            return
        state = {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "progress": vars(self.progress),
        }
        partial = self.out / "checkpoint.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.out / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        self._optimizer_state = state["optimizer"]
        self.progress = Progress(**state["progress"])
        _LOG.info("resumed at stage %d, step %d", self.progress.stage, self.progress.step)


def _fraction(progress: Progress, stage: Stage) -> float:
    """How much of a stage is over: by the clock, or by steps where they are limited."""
    by_clock = progress.elapsed / (stage.minutes * 60)
    by_steps = 0.0 if stage.max_steps is None else progress.step / stage.max_steps
    return min(1.0, max(by_clock, by_steps))


def _schedule(fraction: float, warm_up: float = 0.04) -> float:
    """Linear warm-up, then cosine to zero."""
    if fraction < warm_up:
        return 0.02 + 0.98 * fraction / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (fraction - warm_up) / (1.0 - warm_up)))


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
