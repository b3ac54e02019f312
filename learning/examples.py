"""Training examples in words and masks, read from the published annotation formats and from cases.

One example is one question about one picture, or about some slices of a volume, with the answer
that the model should give and the mask of each frame at its one ``[SEG]``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from inference import prompts
from inference.regions import Region, marked
from learning.cases import (
    Case,
    DataError,
    published_annotations,
    read_mask,
    read_picture,
    sentence_of,
)

SEGMENTATION_ANSWERS: Final = (
    "It is [SEG].",
    "Sure, [SEG].",
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
    "[SEG].",
)
VOLUME_SLICES: Final = 10
"""Slices of a volume that one example shows, as in the published training."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Pictures and masks of an example: ``(F, rows, columns[, 3])`` 8 bit and ``(F, ...)`` bool."""

    pictures: NDArray[np.uint8]
    masks: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Example:
    """One question and its answer.

    Attributes
    ----------
    questions, answers
        Ways to ask and to answer; training draws one of each.
    load
        Reads pictures and masks when they are needed.
    group
        Patient or cluster.
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    load: Callable[[], Shown]
    group: str


def segmentation_questions(phrase: str) -> tuple[str, ...]:
    """Return the published questions for a phrase, with and without a final stop."""
    asked = tuple(wording.format(phrase=phrase) for wording in prompts.WORDINGS)
    return asked + tuple(question.rstrip(".?") for question in asked)


def published_2d(path: Path, split: str = "train") -> Iterator[Example]:
    """Read a 2D set: a phrase is segmented; an ``abnormality`` also makes disease and region tasks.

    Raises
    ------
    DataError
        When the file is not in the published form.
    """
    for entry in published_annotations(path, split):
        phrase = sentence_of(entry, path).lower()
        image = path.parent / split / entry["file_name"]
        mask = path.parent / f"{split}_mask" / entry["mask_file"]
        group = str(entry.get("image_id", entry["file_name"]))
        load = _one(image, mask)
        yield Example(segmentation_questions(phrase), SEGMENTATION_ANSWERS, load, group)
        if entry.get("abnormality"):
            yield from _abnormal(str(entry["abnormality"]).lower().rstrip("."), load, group)
        if entry.get("caption"):
            caption = str(entry["caption"])
            yield Example((prompts.REGION_REPORT_QUESTION,), (caption,), _boxed(load), group)


def _abnormal(name: str, load: Callable[[], Shown], group: str) -> Iterator[Example]:
    answers = (f"It is {prompts.SEG}. {name}.", f"{prompts.SEG}. {name}.")
    yield Example((prompts.DISEASE_QUESTION,), answers, load, group)
    yield Example((prompts.REGION_QUESTION,), (name,), _boxed(load), group)


def published_3d(path: Path) -> Iterator[Example]:
    """Read a set of volumes: ten slices that show the target, one ``[SEG]`` for all.

    Raises
    ------
    DataError
        When the file is not in the published form.
    """
    document = _json(path)
    try:
        for name, volume in document["volumes"].items():
            for expression in volume["expressions"].values():
                pairs = list(zip(expression["img_file"], expression["mask_file"], strict=True))
                phrase = str(expression["exp"]).lower().rstrip(".")
                load = _slices(path.parent, pairs)
                yield Example(segmentation_questions(phrase), SEGMENTATION_ANSWERS, load, str(name))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} holds no volumes in the published form: {error!r}") from error


def radgenome(path: Path) -> Iterator[Example]:
    """Read RadGenome's chest CT: grounded questions by anatomy, and grounded reports.

    Raises
    ------
    DataError
        When the file is not in the published form.
    """
    document = _json(path)
    try:
        for name, entry in document.items():
            load = _one(path.parent / entry["image_file"], path.parent / entry["mask_file"])
            found = str(entry["abnormality"]).lower().rstrip(".")
            asked = prompts.ANATOMY_QUESTION.format(anatomy=str(entry["anatomy"]).lower())
            phrase = f"{prompts.PHRASE_START} {found}. {prompts.PHRASE_END} {prompts.SEG}"
            yield Example((asked,), (phrase,), load, str(name))
            if entry.get("report"):
                words = f"{found}. {entry['report']}"
                report = f"{prompts.PHRASE_START} {words} {prompts.PHRASE_END} {prompts.SEG}"
                yield Example((prompts.REPORT_QUESTION,), (report,), load, str(name))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not in RadGenome's form: {error!r}") from error


def labelled_folder(folder: Path) -> Iterator[Example]:
    """Read a folder with ``labels.csv`` whose ``targets_present`` names the mask's values.

    Raises
    ------
    DataError
        When there is no such file, or a line cannot be read.
    """
    try:
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            if row["image"].endswith(".nii.gz"):
                continue
            for pair in filter(None, row["targets_present"].split(";")):
                value, target = pair.split("=", 1)
                target = target.split(" (")[0]
                yield Example(
                    segmentation_questions(f"{target} in {row['modality']}".lower()),
                    SEGMENTATION_ANSWERS,
                    _one(folder / row["image"], folder / row["mask"], int(value)),
                    row["group"],
                )
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{folder}/labels.csv cannot be read: {error!r}") from error


def of_cases(
    cases: Iterable[Case], to_pictures: Callable[[Case], NDArray[np.uint8]]
) -> Iterator[Example]:
    """Make segmentation examples of cases, e.g. of DICOM series with SEG or RTSTRUCT.

    Parameters
    ----------
    to_pictures
        Brings a case's values to 8 bit, by the card that the model will work under.
    """
    for case in cases:
        for target, truth in case.truths.items():
            for frame in np.flatnonzero(truth.any(axis=(1, 2))):
                yield Example(
                    segmentation_questions(f"{target} in {case.modality}"),
                    SEGMENTATION_ANSWERS,
                    _frame(case, int(frame), truth, to_pictures),
                    case.group,
                )


Format = Literal["published_2d", "published_3d", "radgenome", "labelled_folder"]
READERS: Final[dict[Format, Callable[[Path], Iterator[Example]]]] = {
    "published_2d": published_2d,
    "published_3d": published_3d,
    "radgenome": radgenome,
    "labelled_folder": labelled_folder,
}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error


def _one(image: Path, mask: Path, value: int | None = None) -> Callable[[], Shown]:
    def load() -> Shown:
        picture = read_picture(image)
        if value is None:
            inside = read_mask(mask, picture.shape[:2])
        else:
            inside = _values(mask) == value
        return Shown(picture[None], inside[None])

    return load


def _values(path: Path) -> NDArray[np.uint8]:
    """Read an index-colour mask: its values, not its colours."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return np.asarray(opened, dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a mask: {error}") from error


def _slices(folder: Path, pairs: list[tuple[str, str]]) -> Callable[[], Shown]:
    def load() -> Shown:
        places = np.linspace(0, len(pairs) - 1, min(len(pairs), VOLUME_SLICES)).round().astype(int)
        pictures = [read_picture(folder / pairs[place][0]) for place in places]
        masks = [
            read_mask(folder / pairs[place][1], picture.shape[:2])
            for place, picture in zip(places, pictures, strict=True)
        ]
        return Shown(np.stack(pictures), np.stack(masks))

    return load


def _frame(
    case: Case,
    frame: int,
    truth: NDArray[np.bool_],
    to_pictures: Callable[[Case], NDArray[np.uint8]],
) -> Callable[[], Shown]:
    return lambda: Shown(to_pictures(case)[frame][None], truth[frame][None])


def _boxed(load: Callable[[], Shown]) -> Callable[[], Shown]:
    """Draw the green box around the largest part of the mask; the answer has no mask then."""

    def boxed() -> Shown:
        shown = load()
        if shown.masks is None or not shown.masks[0].any():
            return Shown(shown.pictures, None)
        box = Region.of_mask(_largest_part(shown.masks[0])).box
        return Shown(marked(shown.pictures[0], box)[None], None)

    return boxed


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.reshape(-1))[1:]
    largest: NDArray[np.bool_] = parts == 1 + int(sizes.argmax())
    return largest
