"""Random training batches: which image, which prompts, how it is distorted."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference import prompts
from inference.tiling import normalise
from learning.datasets import Sample
from learning.distortion import Distortion, distort, draw_distortion
from learning.recipe import Recipe

MIN_AREA = 8.0
"""Pixels of the input below which a target that was moved out of view is not asked for."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B images with P prompts each.

    Attributes
    ----------
    pixels
        ``(B, 3, s, s)`` normalised.
    concept, wording
        ``(B, P)`` concept index of each prompt, and which of its wordings asks for it.
    mask
        ``(B, P, s / 2, s / 2)`` 0..1; all zero where absent.
    present
        ``(B, P)`` 0 or 1.
    weight
        ``(B, P)`` 0 where the prompt does not count.
    """

    pixels: Tensor
    concept: Tensor
    wording: Tensor
    mask: Tensor
    present: Tensor
    weight: Tensor

    def clone(self) -> Self:
        """Copy every tensor."""
        return type(self)(*(getattr(self, part.name).clone() for part in fields(self)))

    def copy_(self, other: Self) -> None:
        """Take over another batch's values, in place."""
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name))


@dataclass(frozen=True, slots=True)
class Drawn:
    """B distorted pictures and their masks, before they become a batch.

    Attributes
    ----------
    samples
        What each was drawn from.
    concepts
        ``B`` rows of concept indices, one for each mask.
    pixels
        ``(B, 3, s, s)`` 0..1.
    asked, wording, masks, present, weight
        As in `Batch`, with as many columns as there are concepts in a row.
    """

    samples: Sequence[Sample]
    concepts: Sequence[Sequence[int]]
    pixels: Tensor
    asked: Tensor
    wording: Tensor
    masks: Tensor
    present: Tensor
    weight: Tensor

    def batch(self, prompts: int) -> Batch:
        """Make a batch of the first concepts of each row."""
        parts = (self.asked, self.wording, self.masks, self.present, self.weight)
        return Batch(normalise(self.pixels), *(part[:, :prompts] for part in parts))


class PromptDraw:
    """Draws images and the prompts to ask of them."""

    def __init__(
        self, samples: Sequence[Sample], recipe: Recipe, draw: np.random.Generator
    ) -> None:
        self._draw, self._prompts = draw, recipe.prompts_per_image
        count = len(recipe.concepts)
        self._modality = [concept.modality for concept in recipe.concepts]
        self._samples = samples
        self._positive = [_where([i in s.present for s in samples]) for i in range(count)]
        self._empty = [_where([i in s.absent_own for s in samples]) for i in range(count)]
        self._negative = _where([not s.present for s in samples])
        weight = np.array(
            [
                concept.weight * math.sqrt(len(images))
                for concept, images in zip(recipe.concepts, self._positive, strict=True)
            ]
        )
        self._probability = weight / weight.sum()

    def choose(self) -> tuple[int, list[int]]:
        """Choose an image, by concept, then the concepts that it is asked for."""
        draw = self._draw
        concept = int(draw.choice(len(self._positive), p=self._probability))
        roll = draw.random()
        if roll < 0.12 and len(self._empty[concept]):
            number = int(draw.choice(self._empty[concept]))
            first = concept
        elif roll < 0.2 and len(self._negative):
            number = int(draw.choice(self._negative))
            first = self._absent(self._samples[number])
        else:
            number = int(draw.choice(self._positive[concept]))
            first = concept
        sample, concepts = self._samples[number], [first]
        for _ in range(self._prompts - 1):
            concepts.append(self._next(sample, concepts))
        return number, concepts

    def _next(self, sample: Sample, chosen: Sequence[int]) -> int:
        others = [c for c in sample.present if c not in chosen]
        if others and self._draw.random() < 0.5:
            return others[int(self._draw.integers(len(others)))]
        return self._absent(sample)

    def _absent(self, sample: Sample) -> int:
        """Draw a concept that the image does not have: the nearer, the likelier."""
        draw, roll = self._draw, self._draw.random()
        if roll < 0.5 and sample.absent_own:
            return _one(draw, sample.absent_own)
        same = [c for c in sample.absent_other if self._modality[c] == sample.modality]
        if roll < 0.75 and same:
            return _one(draw, same)
        return _one(draw, sample.absent_other)


class Maker(Protocol):
    """What draws batches."""

    def batch(self) -> Batch:
        """Draw one batch."""
        ...


class BatchMaker:
    """Draws batches of ``images`` images from one seed.

    On a GPU all images lie there, squashed to the input's size, and a batch is distorted at once;
    otherwise they keep their own size in memory and are distorted one by one.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        recipe: Recipe,
        images: int,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        self._device = device or torch.device("cpu")
        self._draw = np.random.default_rng(seed)
        self._noise = torch.Generator(self._device).manual_seed(seed)
        self._chooser = PromptDraw(samples, recipe, self._draw)
        self._samples, self._images = samples, images
        self._wordings = len(prompts.WORDINGS)
        self._size = int(recipe.architecture.grounding["image_size"])  # type: ignore[arg-type]
        self._source = {source.folder: number for number, source in enumerate(recipe.sources)}
        self._values = _values_of_concepts(recipe).to(self._device)
        self._resident = (
            resident(samples, self._size, self._device) if self._device.type == "cuda" else None
        )

    def sample(self, number: int) -> Sample:
        """Return an image by its number."""
        return self._samples[number]

    def batch(self) -> Batch:
        """Draw one batch."""
        numbers, concepts = self.choose()
        return self.drawn(numbers, concepts).batch(len(concepts[0]))

    def choose(self) -> tuple[tuple[int, ...], tuple[list[int], ...]]:
        """Choose the images and what each is asked for."""
        numbers, concepts = zip(*(self._chooser.choose() for _ in range(self._images)), strict=True)
        return numbers, concepts

    def drawn(self, numbers: Sequence[int], concepts: Sequence[Sequence[int]]) -> Drawn:
        """Distort the chosen images with a mask for each concept."""
        chosen = [self._samples[number] for number in numbers]
        shape = (self._images, len(concepts[0]))
        known = [[c in s.present for c in row] for s, row in zip(chosen, concepts, strict=True)]
        wording = self._draw.integers(self._wordings, size=shape)
        distortion = draw_distortion(
            self._draw,
            np.array([sample.any_angle for sample in chosen]),
            np.array([sample.image.ndim == 3 for sample in chosen]),
        )
        asked = self.put(np.array(concepts))
        source = self.put(np.array([self._source[sample.source] for sample in chosen]))
        values = self._values[source[:, None], asked]
        pixels, masks = self._distort(numbers, values, distortion)
        area = masks.sum(dim=(2, 3)) * 4
        shown = self.put(np.array(known, np.float32))
        # What was moved out of view is absent; what hardly shows is neither asked for nor denied.
        return Drawn(
            samples=chosen,
            concepts=concepts,
            pixels=pixels,
            asked=asked,
            wording=self.put(wording),
            masks=masks,
            present=shown * (area > 0),
            weight=((area == 0) | (area >= MIN_AREA)).float(),
        )

    def _distort(
        self, numbers: Sequence[int], values: Tensor, distortion: Distortion
    ) -> tuple[Tensor, Tensor]:
        if self._resident is not None:
            place = self.put(np.array(numbers))
            pictures, classes = (part[place] for part in self._resident)
            moved = distortion.to(self._device)
            return distort(pictures, classes, values, moved, self._size, self._noise)
        parts = [
            distort(*_planes(self._samples[number]), values[row : row + 1],
                    distortion.row(row), self._size, self._noise)
            for row, number in enumerate(numbers)
        ]  # fmt: skip
        pixels, masks = zip(*parts, strict=True)
        return torch.cat(pixels), torch.cat(masks)

    def put(self, values: NDArray[Any]) -> Tensor:
        """Bring values to the device without waiting."""
        tensor = torch.from_numpy(values)
        if self._device.type != "cuda":
            return tensor
        # Pinned, the copy waits for nothing.
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _values_of_concepts(recipe: Recipe) -> Tensor:
    """Tell which mask values of a source belong to a concept: ``(sources, concepts, 256)``."""
    table = torch.zeros(len(recipe.sources), len(recipe.concepts), 256)
    for number, source in enumerate(recipe.sources):
        for key, values in source.targets.items():
            table[number, recipe.index(key), list(values)] = 1.0
    return table


def _planes(sample: Sample) -> tuple[Tensor, Tensor]:
    """Make a batch of one: ``(1, 3, h, w)`` picture and ``(1, h, w)`` classes, 8 bit."""
    planes = sample.image if sample.image.ndim == 3 else sample.image[..., None]
    picture = torch.from_numpy(planes.copy()).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
    return picture, torch.from_numpy(sample.mask.copy())[None]


def resident(samples: Sequence[Sample], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All pictures ``(N, 3, s, s)`` and classes ``(N, s, s)`` on a device, 8 bit."""
    pictures = torch.empty(len(samples), 3, size, size, dtype=torch.uint8, device=device)
    classes = torch.empty(len(samples), size, size, dtype=torch.uint8, device=device)
    for number, sample in enumerate(samples):
        picture, mask = (part.to(device) for part in _planes(sample))
        resized = functional.interpolate(
            picture.float(), (size, size), mode="bilinear", align_corners=False, antialias=True
        )
        pictures[number] = resized[0].round().clamp(0, 255).byte()
        nearest = functional.interpolate(mask[:, None].float(), (size, size), mode="nearest-exact")
        classes[number] = nearest[0, 0].byte()
    return pictures, classes


def _where(holds: Sequence[bool]) -> NDArray[np.int64]:
    return np.flatnonzero(np.array(holds, np.bool_))


def _one(draw: np.random.Generator, concepts: Sequence[int]) -> int:
    return concepts[int(draw.integers(len(concepts)))]


def prefetch(maker: Maker, depth: int = 4) -> Generator[Batch]:
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
