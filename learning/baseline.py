"""A U-Net that is told its target by FiLM: what the grounded model is held against.

Same images, same distortions, same losses and optimiser; no language, no attention. The image is
encoded once; a learned vector of the target scales and shifts every level of the decoder.

References
----------
Ronneberger et al., "U-Net", MICCAI 2015; Perez et al., "FiLM", AAAI 2018.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.tiling import squash, to_source
from learning import metrics
from learning.batches import Batch, BatchMaker
from learning.datasets import Sample, load_split, thinned
from learning.descent import Descent, LossParts, Rate, schedule
from learning.losses import mask_losses, weighted_mean
from learning.predict import truth_of
from learning.recipe import Baseline, Recipe, load_recipe
from learning.train import Progress, batches_of, device_of, follow, stage_fraction

_LOG = logging.getLogger(__name__)
FIGURES = "baseline.json"
"""What was measured of it, in the run's folder."""

_LEVELS = 5
_VECTOR = 128
_GROUPS = 8
_EMA_DECAY = 0.998
_REPORT_EVERY = 50


class Block(nn.Module):
    """Two convolutions around which the input goes, with an optional FiLM between them."""

    def __init__(self, inside: int, outside: int, *, told: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, padding=1)
        self.second = nn.Conv2d(outside, outside, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, outside) for _ in range(2))
        self.around = nn.Conv2d(inside, outside, 1)
        self.film = nn.Linear(_VECTOR, 2 * outside) if told else None

    def forward(self, maps: Tensor, vector: Tensor | None = None) -> Tensor:
        """Map ``(B, inside, h, w)`` to ``(B, outside, h, w)``."""
        inner = self.norms[0](self.first(maps))
        if self.film is not None and vector is not None:
            scale, shift = self.film(vector)[:, :, None, None].chunk(2, dim=1)
            inner = inner * (1.0 + scale) + shift
        inner = self.norms[1](self.second(functional.silu(inner)))
        result: Tensor = functional.silu(inner + self.around(maps))
        return result


class FilmUNet(nn.Module):
    """Images and targets in, mask logits at half their size and presence logits out."""

    def __init__(self, width: int, concepts: int) -> None:
        super().__init__()
        widths = [width * (level + 1) for level in range(_LEVELS)]
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.down = nn.ModuleList(
            Block(widths[max(0, level - 1)], widths[level]) for level in range(_LEVELS)
        )
        self.up = nn.ModuleList(
            Block(widths[level] + widths[level + 1], widths[level], told=True)
            for level in reversed(range(_LEVELS - 1))
        )
        self.vectors = nn.Embedding(concepts, _VECTOR)
        self.middle = Block(widths[-1], widths[-1], told=True)
        self.mask = nn.Conv2d(width, 1, 1)
        self.presence = nn.Sequential(
            nn.Linear(2 * widths[-1], _VECTOR), nn.SiLU(), nn.Linear(_VECTOR, 1)
        )

    def forward(self, pixels: Tensor, concept: Tensor) -> tuple[Tensor, Tensor]:
        """Answer ``(B, P)`` targets of ``(B, 3, s, s)``.

        Returns
        -------
        tuple of Tensor
            Mask logits ``(B * P, s / 2, s / 2)`` and presence logits ``(B * P,)``.
        """
        maps = self.stem(pixels)
        levels: list[Tensor] = []
        for level, block in enumerate(self.down):
            maps = block(functional.max_pool2d(maps, 2) if level else maps)
            levels.append(maps)
        asked = concept.shape[1]
        vector = self.vectors(concept.flatten())
        maps = self.middle(maps.repeat_interleave(asked, dim=0), vector)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
        for block, skipped in zip(self.up, reversed(levels[:-1]), strict=True):
            size = skipped.shape[-2:]
            larger = functional.interpolate(maps, size, mode="bilinear", align_corners=False)
            maps = block(torch.cat([larger, skipped.repeat_interleave(asked, dim=0)], 1), vector)
        return self.mask(maps)[:, 0], self.presence(pooled)[:, 0]


def baseline_loss(net: FilmUNet, batch: Batch) -> LossParts:
    """Sum up what the grounded model's decoder is judged by, but for its estimate of overlap."""
    logits, score = net(batch.pixels, batch.concept)
    present, weight = batch.present.flatten(), batch.weight.flatten()
    entropy, dice = mask_losses(logits.float(), batch.mask.flatten(0, 1), present * weight)
    found = functional.binary_cross_entropy_with_logits(score.float(), present, reduction="none")
    presence = weighted_mean(found, weight)
    return {"total": 2.0 * entropy + dice + presence, "dice": dice, "presence": presence}


def train_baseline(recipe: Recipe, data: Path, out: Path) -> Path:
    """Train the recipe's baseline; returns its weights, ``baseline.pt`` in the run's folder.

    Raises
    ------
    ValueError
        When the recipe has none.
    """
    settings = recipe.baseline
    if settings is None:
        raise ValueError("the recipe has no baseline")
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    device = device_of(recipe)
    net = FilmUNet(settings.width, len(recipe.concepts)).to(device)
    samples = load_split(recipe, data).train
    maker = BatchMaker(samples, recipe, recipe.batch_images, recipe.seed, device)
    average = _descend(net, settings, maker, device, out)
    path = out / "baseline.pt"
    torch.save({name: value.cpu() for name, value in average.items()}, path)
    return path


def _descend(
    net: FilmUNet, settings: Baseline, maker: BatchMaker, device: torch.device, out: Path
) -> dict[str, Tensor]:
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    rates = [Rate(list(net.parameters()), settings.lr, settings.weight_decay)]
    descent = Descent(rates, lambda batch: baseline_loss(net, batch), device)
    progress, last = Progress(), time.monotonic()
    with contextlib.closing(batches_of(maker, device)) as batches:
        while (fraction := stage_fraction(progress, settings)) < 1.0:
            descent.step(next(batches), schedule(fraction))
            now = time.monotonic()
            progress.elapsed += now - last
            last = now
            progress.step += 1
            follow(average, net, min(_EMA_DECAY, progress.step / (10 + progress.step)))
            if progress.step % _REPORT_EVERY == 0:
                means = {name: round(value, 4) for name, value in descent.means().items()}
                line = {"stage": "baseline", "step": progress.step, **means}
                with (out / "log.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                _LOG.info("%s", line)
    return average


def load_baseline(recipe: Recipe, path: Path) -> FilmUNet:
    """Read a trained baseline, ready to answer.

    Raises
    ------
    ValueError
        When the recipe has none.
    """
    if recipe.baseline is None:
        raise ValueError("the recipe has no baseline")
    net = FilmUNet(recipe.baseline.width, len(recipe.concepts))
    net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return net.eval()


@torch.inference_mode()
def measure_baseline(
    net: FilmUNet, recipe: Recipe, samples: Sequence[Sample]
) -> dict[str, dict[str, float]]:
    """Ask every target of its own modality of every image, at the images' own size.

    Returns
    -------
    dict
        Concept key to ``dice`` over the images that show it (masks cut at a logit of 0), their
        number ``images``, and ``presence_auc`` against empty images of the same modality, where
        there are any.
    """
    size = int(recipe.architecture.grounding["image_size"])  # type: ignore[arg-type]
    dice: dict[int, list[float]] = {}
    scores: dict[tuple[int, bool], list[float]] = {}
    for sample in samples:
        asked = [
            index
            for index in (*sample.present, *sample.absent_own, *sample.absent_other)
            if recipe.concepts[index].modality == sample.modality
        ]
        if not asked:
            continue
        logits, score = net(squash(sample.image[None], size), torch.tensor([asked]))
        for row, index in enumerate(asked):
            shown = index in sample.present
            scores.setdefault((index, shown), []).append(float(score[row]))
            if shown:
                truth = truth_of(sample, index)
                mask = to_source(logits[row : row + 1], *truth.shape)[0].numpy() > 0
                dice.setdefault(index, []).append(metrics.dice(mask, truth))
    return {
        recipe.concepts[index].key: {
            "dice": float(np.mean(values)),
            "images": len(values),
            **(
                {
                    "presence_auc": metrics.roc_auc(
                        np.array(scores[index, True]), np.array(scores[index, False])
                    )
                }
                if (index, False) in scores
                else {}
            ),
        }
        for index, values in sorted(dice.items())
    }


def main() -> None:
    """Command line: ``python -m learning.baseline CONFIG --data DIR --out RUN``."""
    parser = argparse.ArgumentParser(description="Train a recipe's baseline and measure it.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    recipe = load_recipe(arguments.config)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "baseline.pt"
    if not path.is_file():
        train_baseline(recipe, arguments.data, arguments.out)
    net = load_baseline(recipe, path)
    measured = measure_baseline(net, recipe, thinned(load_split(recipe, arguments.data).test))
    (arguments.out / FIGURES).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
