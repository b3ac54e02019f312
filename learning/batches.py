"""Random training batches: which image, which prompts, how it is distorted."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference.tiling import normalise
from learning.datasets import Sample, with_concept
from learning.recipe import Recipe

_MIN_AREA = 8.0
"""Pixels of the input below which a target that was moved out of view is not asked for."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B images with P prompts each.

    Attributes
    ----------
    pixels
        ``(B, 3, s, s)`` normalised.
    concept
        ``(B, P)`` concept index of each prompt.
    mask
        ``(B, P, s / 2, s / 2)`` 0..1; all zero where absent.
    present
        ``(B, P)`` 0 or 1.
    weight
        ``(B, P)`` 0 where the prompt does not count.
    """

    pixels: Tensor
    concept: Tensor
    mask: Tensor
    present: Tensor
    weight: Tensor


class BatchMaker:
    """Draws batches of ``images`` images from one seed."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, images: int, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self._recipe = recipe
        self._images = images
        self._size = int(recipe.architecture.grounding["image_size"])  # type: ignore[arg-type]
        count = len(recipe.concepts)
        self._modality = [concept.modality for concept in recipe.concepts]
        self._positive = [with_concept(samples, i) for i in range(count)]
        self._empty = [[s for s in samples if i in s.absent_own] for i in range(count)]
        self._negative = [s for s in samples if not s.present]
        weight = np.array(
            [
                concept.weight * math.sqrt(len(images))
                for concept, images in zip(recipe.concepts, self._positive, strict=True)
            ]
        )
        self._probability = weight / weight.sum()

    def batch(self) -> Batch:
        """Draw one batch."""
        items = [self._item() for _ in range(self._images)]
        return Batch(*(torch.stack(part) for part in zip(*items, strict=True)))

    def _item(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        sample, concepts = self._choose()
        picture, masks = self._distort(sample, concepts)
        known = torch.tensor([float(c in sample.present) for c in concepts])
        in_view = masks.sum(dim=(1, 2)) * 4 >= _MIN_AREA
        counts = torch.where(known > 0, in_view.float(), torch.ones(()))
        return normalise(picture), torch.tensor(concepts), masks, known, counts

    def _choose(self) -> tuple[Sample, list[int]]:
        """Choose an image by concept, then its prompts."""
        draw = self._draw
        concept = int(draw.choice(len(self._positive), p=self._probability))
        roll = draw.random()
        if roll < 0.12 and self._empty[concept]:
            sample = _one(draw, self._empty[concept])
            first = concept
        elif roll < 0.2 and self._negative:
            sample = _one(draw, self._negative)
            first = self._absent(sample)
        else:
            sample = _one(draw, self._positive[concept])
            first = concept
        concepts = [first]
        for _ in range(self._recipe.prompts_per_image - 1):
            concepts.append(self._next(sample, concepts))
        return sample, concepts

    def _next(self, sample: Sample, chosen: Sequence[int]) -> int:
        others = [c for c in sample.present if c not in chosen]
        if others and self._draw.random() < 0.5:
            return int(self._draw.choice(others))
        return self._absent(sample)

    def _absent(self, sample: Sample) -> int:
        """Draw a concept that the image does not have: the nearer, the likelier."""
        draw, roll = self._draw, self._draw.random()
        if roll < 0.5 and sample.absent_own:
            return int(draw.choice(sample.absent_own))
        same = [c for c in sample.absent_other if self._modality[c] == sample.modality]
        if roll < 0.75 and same:
            return int(draw.choice(same))
        return int(draw.choice(sample.absent_other))

    def _distort(self, sample: Sample, concepts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Turn, shift, scale and flip image and masks in one resampling; then change the grey."""
        planes = sample.image if sample.image.ndim == 3 else sample.image[..., None]
        layers = [np.isin(sample.mask, sample.present.get(c, ())) * np.uint8(255) for c in concepts]
        stack = np.concatenate([planes, np.stack(layers, axis=-1).astype(np.uint8)], axis=-1)
        tensor = torch.from_numpy(stack).permute(2, 0, 1)[None].float() / 255.0
        grid = functional.affine_grid(
            self._affine(sample.any_angle)[None],
            [1, 1, self._size, self._size],
            align_corners=False,
        )
        moved = functional.grid_sample(tensor, grid, mode="bilinear", align_corners=False)[0]
        channels = planes.shape[2]
        masks = functional.avg_pool2d((moved[channels:] > 0.5).float()[None], 2)[0]
        return self._recolour(moved[:channels]).expand(3, -1, -1), masks

    def _affine(self, any_angle: bool) -> Tensor:
        draw = self._draw
        turn = draw.uniform(-math.pi, math.pi) if any_angle else math.radians(draw.uniform(-20, 20))
        scale, aspect = math.exp(draw.uniform(-0.25, 0.25)), math.exp(draw.uniform(-0.12, 0.12))
        flip = -1.0 if draw.random() < 0.5 else 1.0
        sx, sy = scale * aspect * flip, scale / aspect
        cos, sin = math.cos(turn), math.sin(turn)
        shift_x, shift_y = draw.uniform(-0.18, 0.18, 2)
        return torch.tensor(
            [[cos * sx, -sin * sy, shift_x], [sin * sx, cos * sy, shift_y]], dtype=torch.float32
        )

    def _recolour(self, picture: Tensor) -> Tensor:
        draw = self._draw
        picture = picture.clamp(1e-4, 1.0) ** math.exp(draw.uniform(-0.35, 0.35))
        picture = picture * draw.uniform(0.88, 1.12) + draw.uniform(-0.06, 0.06)
        if picture.shape[0] == 3:
            picture = picture * torch.from_numpy(draw.uniform(0.9, 1.1, (3, 1, 1))).float()
        if draw.random() < 0.5:
            noise = torch.from_numpy(draw.standard_normal(picture.shape, dtype=np.float32))
            picture = picture + noise * draw.uniform(0.0, 0.05)
        return picture.clamp(0.0, 1.0)


def _one(draw: np.random.Generator, samples: Sequence[Sample]) -> Sample:
    return samples[int(draw.integers(len(samples)))]


def prefetch(maker: BatchMaker, depth: int = 4) -> Generator[Batch]:
    """Endless batches, drawn by one thread ahead of time, in the maker's order.

    An error in the thread is raised to the consumer. The thread ends when the iterator is closed.
    """
    waiting: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                item: Batch | BaseException = maker.batch()
            except (RuntimeError, ValueError, IndexError, KeyError) as error:
                item = error
            while not stopped.is_set():
                try:
                    waiting.put(item, timeout=0.5)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
