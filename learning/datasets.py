"""Images with masks in memory, split by patient.

Images keep their own size (at most the model's input size, for training) and become the model's
square input in one affine step together with the augmentation.
"""

from __future__ import annotations

import csv
import enum
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from numpy.typing import NDArray
from PIL import Image

from inference import intensity
from learning.phantom import generate_phantom
from learning.recipe import Recipe, Source

_LOG = logging.getLogger(__name__)
_MIN_PIXELS = 3
"""A target of fewer mask pixels is neither asked for nor denied: it may be a rounding artefact."""

_VOLUME_SLICE_STEP = 4
"""Of volumes every fourth slice is scored: neighbours hardly differ."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and what is known of it.

    Attributes
    ----------
    image
        8 bit, ``(rows, columns)`` grey or ``(rows, columns, 3)``.
    mask
        ``(rows, columns)`` class values.
    present
        Concept index to the mask values that make it up.
    absent_own
        Concepts that the source's masks cover and that this image does not have.
    absent_other
        All other concepts that are known to be absent.
    modality, source, group
        In words; folder; patient or cluster of near-duplicates.
    series
        Volume that the slice belongs to, empty for single images.
    any_angle
        See `learning.recipe.Source`.
    """

    image: Bytes
    mask: Bytes
    present: dict[int, tuple[int, ...]]
    absent_own: tuple[int, ...]
    absent_other: tuple[int, ...]
    modality: str
    source: str
    group: str
    series: str
    any_angle: bool


@dataclass(frozen=True, slots=True)
class Split:
    """Samples to learn from, to calibrate on, and to measure on; no group is in two of them."""

    train: tuple[Sample, ...]
    calibration: tuple[Sample, ...]
    test: tuple[Sample, ...]


class Side(enum.StrEnum):
    """Which part of the split a group is in."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    TEST = "test"


def side_of(group: str, recipe: Recipe) -> Side:
    """Split by a hash of the group, so that it never depends on file order."""
    if group in recipe.held_out_groups:
        return Side.TEST
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    if number < recipe.test_fraction:
        return Side.TEST
    if number < recipe.test_fraction + recipe.calibration_fraction:
        return Side.CALIBRATION
    return Side.TRAIN


def load_split(recipe: Recipe, data: Path) -> Split:
    """Load every source. Training images are reduced to the input size, the others are not.

    Raises
    ------
    FileNotFoundError
        When a folder that the recipe names is not under ``data``.
    """
    size = int(recipe.architecture.grounding["image_size"])  # type: ignore[arg-type]
    parts: dict[Side, list[Sample]] = {side: [] for side in Side}
    for source in recipe.sources:
        before = [len(part) for part in parts.values()]
        stream = (
            _phantoms(source, recipe)
            if source.folder == "phantom"
            else read_source(source, recipe, data / source.folder)
        )
        for sample, side in stream:
            parts[side].append(_reduced(sample, size) if side is Side.TRAIN else sample)
        counts = [len(part) - old for part, old in zip(parts.values(), before, strict=True)]
        _LOG.info("%s: %d to learn from, %d to calibrate, %d to test", source.folder, *counts)
    return Split(*(tuple(parts[side]) for side in Side))


def read_source(source: Source, recipe: Recipe, folder: Path) -> Iterator[tuple[Sample, Side]]:
    """Read one set at the images' own size; each sample with its side of the split.

    Raises
    ------
    FileNotFoundError
        When the folder has no ``labels.csv``.
    """
    labels = folder / "labels.csv"
    if not labels.is_file():
        raise FileNotFoundError(
            f"{labels} is missing: the recipe's source {source.folder} is not in the data folder"
        )
    with labels.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            side = side_of(row["group"], recipe)
            for image, mask, series in _open(folder, row, source, recipe):
                yield _sample(source, recipe, image, mask, row["group"], series), side


def _open(
    folder: Path, row: dict[str, str], source: Source, recipe: Recipe
) -> Iterator[tuple[Bytes, Bytes, str]]:
    policy = recipe.intensity[source.modality]
    if row["image"].endswith(".nii.gz"):
        values, mask = (read_nifti(folder / row[name]) for name in ("image", "mask"))
        image = intensity.to_bytes(values, *intensity.limits(values, policy))
        for index in range(image.shape[0]):
            yield image[index], mask[index].astype(np.uint8), row["image"]
        return
    with Image.open(folder / row["image"]) as opened:
        picture = np.asarray(opened if opened.mode in ("L", "RGB") else opened.convert("RGB"))
    if policy.grey and picture.ndim == 3:
        picture = intensity.luminance(picture)
    if source.stretch:
        picture = intensity.to_bytes(picture, *intensity.limits(picture, policy))
    with Image.open(folder / row["mask"]) as opened:
        yield picture, np.asarray(opened, dtype=np.uint8), ""


def read_nifti(path: Path) -> NDArray[np.float32]:
    """Read a volume as ``(frames, rows, columns)`` in DICOM's axial orientation.

    Rows run to the patient's back, columns to the left, frames to the head.
    """
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
    values: NDArray[np.float32] = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    return values


def _sample(
    source: Source, recipe: Recipe, image: Bytes, mask: Bytes, group: str, series: str
) -> Sample:
    counts = np.bincount(mask.reshape(-1), minlength=256)
    present: dict[int, tuple[int, ...]] = {}
    absent: list[int] = []
    covered = {recipe.index(key) for key in (*source.targets, *source.unknown)}
    for key, values in source.targets.items():
        pixels = int(sum(counts[value] for value in values))
        if pixels == 0:
            absent.append(recipe.index(key))
        elif pixels >= _MIN_PIXELS:
            present[recipe.index(key)] = values
    return Sample(
        image=image,
        mask=mask,
        present=present,
        absent_own=tuple(absent),
        absent_other=tuple(i for i in range(len(recipe.concepts)) if i not in covered),
        modality=source.modality,
        source=source.folder,
        group=group,
        series=series,
        any_angle=source.any_angle,
    )


def _phantoms(source: Source, recipe: Recipe) -> Iterator[tuple[Sample, Side]]:
    """Draw phantoms: the sides take the seeds one after the other."""
    draws = recipe.phantom
    if draws is None:
        raise ValueError("the recipe has a phantom source but no phantom section")
    policy = recipe.intensity[source.modality]
    counts = zip(Side, (draws.train, draws.calibration, draws.test), strict=True)
    for number, side in enumerate(side for side, count in counts for _ in range(count)):
        seed = draws.first_seed + number
        draw = np.random.default_rng(seed)
        pixel = float(draw.uniform(1.2, 1.8))
        spacing = (float(draw.uniform(2.0, 5.0)), pixel, pixel)
        phantom = generate_phantom(
            seed,
            (24, 256, 256),
            spacing,
            radius=draws.radius,
            length=draws.length,
            density=draws.density,
        )
        for index in sorted(_phantom_slices(draw, phantom.labels, draws.slices)):
            image = intensity.to_bytes(phantom.volume[index], policy.lower, policy.upper)
            mask = (phantom.labels[index] > 0).astype(np.uint8)
            group = f"phantom_{seed}"
            yield _sample(source, recipe, image, mask, group, ""), side


def _phantom_slices(draw: np.random.Generator, labels: Bytes, count: int) -> set[int]:
    """Slices at random, and those on both sides of where an insert begins or ends."""
    occupied = (labels > 0).any(axis=(1, 2))
    edges = np.flatnonzero(np.diff(occupied.astype(np.int8)))
    chosen = {int(i) for edge in edges[:2] for i in (edge, edge + 1)}
    rest = [int(i) for i in draw.permutation(labels.shape[0]) if int(i) not in chosen]
    return chosen | set(rest[: max(0, count - len(chosen))])


def _reduced(sample: Sample, size: int) -> Sample:
    """Bring an image that is larger than the model's input down to it, side by side."""
    height, width = sample.mask.shape
    if max(height, width) <= size:
        return sample
    target = (min(height, size), min(width, size))
    planes = sample.image[..., None] if sample.image.ndim == 2 else sample.image
    tensor = torch.from_numpy(planes.copy()).permute(2, 0, 1)[None].float()
    tensor = torch.nn.functional.interpolate(tensor, target, mode="bilinear", antialias=True)
    image = tensor[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    mask = Image.fromarray(sample.mask).resize((target[1], target[0]), Image.Resampling.NEAREST)
    return Sample(
        image=image[..., 0] if sample.image.ndim == 2 else image,
        mask=np.asarray(mask),
        present=sample.present,
        absent_own=sample.absent_own,
        absent_other=sample.absent_other,
        modality=sample.modality,
        source=sample.source,
        group=sample.group,
        series=sample.series,
        any_angle=sample.any_angle,
    )


def group_count(samples: Iterable[Sample]) -> int:
    """Count the different patients or clusters."""
    return len({sample.group for sample in samples})


def with_concept(samples: Sequence[Sample], concept: int) -> list[Sample]:
    """Choose the samples that show a concept."""
    return [sample for sample in samples if concept in sample.present]


def thinned(samples: Sequence[Sample]) -> list[Sample]:
    """All single images, and every fourth slice of volumes."""
    chosen, seen = [], dict[str, int]()
    for sample in samples:
        seen[sample.series] = seen.get(sample.series, -1) + 1
        if not sample.series or seen[sample.series] % _VOLUME_SLICE_STEP == 0:
            chosen.append(sample)
    return chosen
