"""Images with masks in memory, split by patient.

Images keep their own size (at most the model's input size, for training) and become the model's
square input in one affine step together with the augmentation.
"""

from __future__ import annotations

import csv
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
    """Training and validation samples; no group is in both."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]


def is_validation(group: str, recipe: Recipe) -> bool:
    """Split by a hash of the group, so that it never depends on file order."""
    if group in recipe.held_out_groups:
        return True
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
    return number / 2**64 < recipe.validation_fraction


def load_split(recipe: Recipe, data: Path) -> Split:
    """Load every source. Training images are reduced to the input size, validation ones are not.

    Raises
    ------
    FileNotFoundError
        When a folder that the recipe names is not under ``data``.
    """
    size = int(recipe.architecture.grounding["image_size"])  # type: ignore[arg-type]
    train: list[Sample] = []
    validation: list[Sample] = []
    for source in recipe.sources:
        before = len(train), len(validation)
        stream = (
            _phantoms(source, recipe)
            if source.folder == "phantom"
            else read_source(source, recipe, data / source.folder)
        )
        for sample, held_out in stream:
            if held_out:
                validation.append(sample)
            else:
                train.append(_reduced(sample, size))
        _LOG.info(
            "%s: %d training, %d validation images",
            source.folder,
            len(train) - before[0],
            len(validation) - before[1],
        )
    return Split(tuple(train), tuple(validation))


def read_source(source: Source, recipe: Recipe, folder: Path) -> Iterator[tuple[Sample, bool]]:
    """Read one set at the images' own size; each sample with whether its group is held out.

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
            held_out = is_validation(row["group"], recipe)
            for image, mask, series in _open(folder, row, source, recipe):
                yield _sample(source, recipe, image, mask, row["group"], series), held_out


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


def _phantoms(source: Source, recipe: Recipe) -> Iterator[tuple[Sample, bool]]:
    """Draw phantoms: validation seeds follow the training seeds."""
    draws = recipe.phantom
    if draws is None:
        raise ValueError("the recipe has a phantom source but no phantom section")
    policy = recipe.intensity[source.modality]
    for number in range(draws.train + draws.validation):
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
            yield _sample(source, recipe, image, mask, group, ""), number >= draws.train


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
