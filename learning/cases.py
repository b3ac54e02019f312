"""Cases to evaluate on: one image or volume each, with the true masks of what is known of it.

A target whose truth is an empty mask is a negative, and counts as one. A target about which
nothing is known is not in the case at all.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image

from learning.datasets import Sample, Side, read_source
from learning.phantom import generate_phantom
from learning.recipe import Recipe, Source

Kind = Literal["volume", "images"]
_PHANTOM_SEEDS = {
    Side.TRAIN: range(0),
    Side.CALIBRATION: range(91_000, 91_006),
    Side.TEST: range(90_000, 90_006),
}
"""Never trained on: recipes draw from their own first seed on."""

EIGHT_BIT = (0.0, 255.0)


class DataError(Exception):
    """A data set that cannot be read; the message names file and reason."""


@dataclass(frozen=True, slots=True)
class Case:
    """One image or volume.

    Attributes
    ----------
    name
        Unique among the cases, e.g. a path.
    images
        As `inference.engine.Engine.answer` takes them.
    modality
        In the words of the card.
    truths
        Target to its true mask ``(frames, rows, columns)``, empty for a known negative.
    source, group
        Data set, and patient or cluster.
    spacing
        mm between frames, rows, columns; ``None`` where it is unknown.
    rendered
        Set where the images are grey levels already.
    """

    name: str
    images: NDArray[Any]
    modality: str
    kind: Kind
    truths: dict[str, NDArray[np.bool_]]
    source: str
    group: str
    spacing: tuple[float, float, float] | None = None
    rendered: tuple[float, float] | None = None


def recipe_cases(
    recipe: Recipe, data: Path, *, sides: Collection[Side] = (Side.TEST,)
) -> Iterator[Case]:
    """Read the sets that a training recipe names; by default only groups to measure on.

    Phantoms are drawn anew, from seeds that no recipe trains on.

    Parameters
    ----------
    sides
        Of the split, whose groups are read.

    Raises
    ------
    FileNotFoundError
        When a folder of the recipe is not under ``data``.
    """
    for source in recipe.sources:
        if source.folder == "phantom":
            yield from _phantoms(source, sides)
            continue
        stream = (
            sample
            for sample, side in read_source(source, recipe, data / source.folder)
            if side in sides
        )
        for number, (series, samples) in enumerate(_grouped(stream)):
            yield _of_samples(recipe, source, series, samples, data, number)


def _grouped(samples: Iterable[Sample]) -> Iterator[tuple[str, list[Sample]]]:
    """Slices of a volume together, single images alone."""
    for series, part in itertools.groupby(samples, key=lambda sample: sample.series):
        if series:
            yield series, list(part)
        else:
            yield from ((series, [sample]) for sample in part)


def _of_samples(
    recipe: Recipe, source: Source, series: str, samples: list[Sample], data: Path, number: int
) -> Case:
    truths: dict[str, NDArray[np.bool_]] = {}
    for concept in recipe.concepts:
        # A concept that the source neither covers nor leaves open is absent from all its images.
        if concept.modality == source.modality and concept.key not in source.unknown:
            values = source.targets.get(concept.key, ())
            truths[concept.target] = np.stack([np.isin(s.mask, values) for s in samples])
    return Case(
        name=f"{source.folder}/{series or number}",
        images=np.stack([sample.image for sample in samples]),
        modality=source.modality,
        kind="volume" if series else "images",
        truths=truths,
        source=source.folder,
        group=samples[0].group,
        spacing=_nifti_spacing(data / source.folder / series) if series else None,
        rendered=EIGHT_BIT,
    )


def _nifti_spacing(path: Path) -> tuple[float, float, float]:
    """Spacing in the orientation that `learning.datasets.read_nifti` brings a volume to."""
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
    x, y, z = image.GetSpacing()
    return float(z), float(y), float(x)


def _phantoms(source: Source, sides: Collection[Side]) -> Iterator[Case]:
    target = next(iter(source.targets)).rsplit(", ", 1)[0]
    for seed in (seed for side in sides for seed in _PHANTOM_SEEDS[side]):
        phantom = generate_phantom(seed, inserts=2)
        yield Case(
            name=f"phantom/{seed}",
            images=phantom.volume,
            modality=source.modality,
            kind="volume",
            truths={target: phantom.labels > 0},
            source="phantom",
            group=f"phantom_{seed}",
            spacing=phantom.spacing,
        )


def published_cases(annotations: Path, split: str = "test") -> Iterator[Case]:
    """Read a 2D set in the published form: a COCO-like JSON beside ``SPLIT`` and ``SPLIT_mask``.

    A sentence "polyp in endoscopy" is a target in a modality. Pictures are 8 bit already. There
    are no negatives in this form.

    Raises
    ------
    DataError
        When the file is no such set, or an image or mask is missing or does not fit.
    """
    for number, entry in enumerate(published_annotations(annotations, split)):
        folder = annotations.parent
        image = read_picture(folder / split / entry["file_name"])
        mask = read_mask(folder / f"{split}_mask" / entry["mask_file"], image.shape[:2])
        target, modality = split_phrase(sentence_of(entry, annotations))
        yield Case(
            name=f"{annotations.parent.name}/{number}-{entry['mask_file']}",
            images=image[None],
            modality=modality,
            kind="images",
            truths={target: mask[None]},
            source=annotations.parent.name,
            group=str(entry.get("image_id", entry["file_name"])),
            rendered=EIGHT_BIT,
        )


def published_annotations(path: Path, split: str) -> list[dict[str, Any]]:
    """Read the annotations of a split; an entry without a split belongs to all.

    Raises
    ------
    DataError
        When the file is not in the published form.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = document["annotations"]
        chosen = [entry for entry in entries if entry.get("split", split) == split]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no annotations in the published form: {error!r}") from error
    for entry in chosen:
        missing = [key for key in ("file_name", "mask_file", "sentences") if key not in entry]
        if missing:
            raise DataError(f"{path}: annotation {entry.get('id')} has no {', '.join(missing)}")
    return chosen


def sentence_of(entry: dict[str, Any], path: Path) -> str:
    """Return the first sentence of an annotation, without a final stop.

    Raises
    ------
    DataError
        When there is none.
    """
    try:
        first = entry["sentences"][0]
        return str(first.get("sent") or first["raw"]).strip().rstrip(".")
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: annotation {entry.get('id')} has no sentence") from error


def split_phrase(phrase: str) -> tuple[str, str]:
    """Split "left ventricle in cardiac MRI" at its last " in "; no modality gives ""."""
    target, _, modality = phrase.rpartition(" in ")
    return (target, modality) if target else (modality, "")


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read an 8-bit picture, grey or RGB; raises DataError."""
    try:
        with Image.open(path) as opened:
            return np.asarray(opened if opened.mode in ("L", "RGB") else opened.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from error


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read a mask: any value above 0 of the first channel is inside; raises DataError."""
    values = read_picture(path)
    plane = values if values.ndim == 2 else values[..., 0]
    if plane.shape != shape:
        # Nearest: the published loader's bilinear filter would wear thin structures away.
        resized = Image.fromarray(plane).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
        plane = np.asarray(resized)
    inside: NDArray[np.bool_] = plane > 0
    return inside
