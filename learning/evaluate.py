"""Measure a checkpoint on cases through the engine: what a user of the node would get.

Negatives are counted, presence is gated by the card's thresholds, distances are in millimetres.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import intensity
from inference.engine import Engine
from inference.findings import Finding
from inference.tasks import Task
from learning import metrics, surfaces
from learning.cases import EIGHT_BIT, Case

Progress = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one target in one case.

    Attributes
    ----------
    positive
        Whether the case shows the target.
    presence, probability
        The model's answer.
    dice, iou
        Of the mask that the model gave, empty where it said absent; both empty gives 1.
    published_dice
        Dice over the slices that show the target alone; ``None`` without any.
    hausdorff_95, surface_dice
        mm and 0..1; ``None`` without spacing or where a mask is empty.
    found_ml, true_ml
        Volumes; ``None`` without spacing or for single images.
    images_of
        Modality of the images where it is not the target's: a negative that the node would not
        ask about, and that only the presence of "all negatives" counts. Empty otherwise.
    """

    case: str
    source: str
    group: str
    modality: str
    target: str
    positive: bool
    presence: str
    probability: float
    dice: float
    iou: float
    published_dice: float | None
    hausdorff_95: float | None
    surface_dice: float | None
    found_ml: float | None
    true_ml: float | None
    images_of: str = ""

    @property
    def key(self) -> str:
        """Target and modality, as tables name them."""
        return f"{self.target}, {self.modality}"


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a case with both masks, for the page."""

    row: Row
    image: NDArray[np.uint8]
    found: NDArray[np.bool_]
    truth: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measured:
    """All rows, and the worst of them as pictures."""

    rows: tuple[Row, ...]
    worst: tuple[Picture, ...]


def measure(
    engine: Engine,
    cases: Iterable[Case],
    *,
    tolerance: float = 2.0,
    worst: int = 4,
    other_modalities: bool = False,
    progress: Progress | None = None,
) -> Measured:
    """Ask every listed target of every case of which the truth is known.

    Parameters
    ----------
    tolerance
        Of the surface Dice, mm.
    worst
        Pictures to keep for each target.
    other_modalities
        Also ask the middle frame of each case for the targets of another modality, each in turn:
        negatives as in training, which the node itself would refuse to ask about.
    progress
        Called with the number of cases done, and the name of the last.
    """
    rows: list[Row] = []
    pictures: dict[str, list[Picture]] = defaultdict(list)
    for number, case in enumerate(cases, start=1):
        targets = [t for t in case.truths if engine.card.target(case.modality, t) is not None]
        if targets:
            found = engine.answer(
                case.images,
                modality=case.modality,
                kind=case.kind,
                tasks=[Task.segment(*targets)],
                spacing=case.spacing,
                rendered=case.rendered,
            ).findings
            for finding in found:
                truth = case.truths[finding.target]
                row = measure_one(case, finding, truth, tolerance)
                rows.append(row)
                _keep_worst(pictures[row.key], case, finding, truth, row, worst)
        if other_modalities:
            rows.extend(_as_another(engine, case, number, tolerance))
        if progress is not None:
            progress(number, case.name)
    kept = [picture for key in sorted(pictures) for picture in pictures[key]]
    return Measured(tuple(rows), tuple(kept))


def _as_another(engine: Engine, case: Case, number: int, tolerance: float) -> list[Row]:
    """Ask a case as if it were of another modality, the next one each time.

    Targets of the same name are left out: a sarcoma in PET is one in CT as well.
    """
    others: dict[str, list[str]] = defaultdict(list)
    for target in engine.card.targets:
        if target.modality != case.modality and target.name not in case.truths:
            others[target.modality].append(target.name)
    if not others:
        return []
    modality = sorted(others)[number % len(others)]
    asked = others[modality]
    picture = _grey(case, case.images.shape[0] // 2)
    # Without colours: to modalities without them, a colour picture is a screen capture.
    image = (intensity.luminance(picture) if picture.ndim == 3 else picture)[None]
    empty = np.zeros(image.shape[:3], np.bool_)
    foreign = replace(
        case, images=image, modality=modality, kind="images", spacing=None, rendered=EIGHT_BIT
    )
    found = engine.answer(
        image, modality=modality, kind="images", tasks=[Task.segment(*asked)], rendered=EIGHT_BIT
    ).findings
    return [
        replace(measure_one(foreign, finding, empty, tolerance), images_of=case.modality)
        for finding in found
    ]


def measure_one(case: Case, finding: Finding, truth: NDArray[np.bool_], tolerance: float) -> Row:
    """Hold one finding against the truth."""
    mask = finding.mask if finding.mask is not None else np.zeros_like(truth)
    shown = truth.any(axis=(1, 2))
    spacing = case.spacing
    whole = spacing is not None and case.kind == "volume"
    millilitre = float(np.prod(spacing)) / 1000.0 if spacing is not None else 0.0
    return Row(
        case=case.name,
        source=case.source,
        group=case.group,
        modality=case.modality,
        target=finding.target,
        positive=bool(shown.any()),
        presence=finding.presence.value,
        probability=round(finding.confidence, 5),
        dice=metrics.dice(mask, truth),
        iou=metrics.iou(mask, truth),
        published_dice=metrics.dice(mask[shown], truth[shown]) if shown.any() else None,
        hausdorff_95=None if spacing is None else surfaces.hausdorff_95(mask, truth, spacing),
        surface_dice=(
            None if spacing is None else surfaces.surface_dice(mask, truth, spacing, tolerance)
        ),
        found_ml=float(mask.sum()) * millilitre if whole else None,
        true_ml=float(truth.sum()) * millilitre if whole else None,
    )


def _keep_worst(
    kept: list[Picture],
    case: Case,
    finding: Finding,
    truth: NDArray[np.bool_],
    row: Row,
    most: int,
) -> None:
    """Keep the pictures with the lowest Dice, false alarms among them."""
    kept.sort(key=lambda picture: picture.row.dice)
    if most == 0 or (len(kept) >= most and row.dice >= kept[-1].row.dice) or row.dice == 1.0:
        return
    mask = finding.mask if finding.mask is not None else np.zeros_like(truth)
    frame = int((mask ^ truth).sum(axis=(1, 2)).argmax())
    kept.append(Picture(row, _grey(case, frame), mask[frame].copy(), truth[frame].copy()))
    kept.sort(key=lambda picture: picture.row.dice)
    del kept[most:]


def _grey(case: Case, frame: int) -> NDArray[np.uint8]:
    """Return a frame as a reader would look at it, 8 bit."""
    image = case.images[frame]
    if image.ndim == 3 or case.rendered is not None:
        low, high = 0.0, 255.0
    elif case.modality == "CT":
        low, high = -160.0, 240.0
    else:
        low, high = (float(v) for v in np.percentile(image[np.isfinite(image)], (1, 99.5)))
    return intensity.to_bytes(image, low, max(high, low + 1e-6))


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write one line for each target of each case."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote.

    Raises
    ------
    OSError
        When there is no such file.
    ValueError
        When it is something else.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return [_row(line) for line in csv.DictReader(file)]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} was not written by an evaluation: {error!r}") from error


def _row(line: dict[str, str]) -> Row:
    words = ("case", "source", "group", "modality", "target", "presence", "images_of")
    values: dict[str, Any] = {"positive": line["positive"] == "True"}
    for field in fields(Row):
        if field.name in values or (field.name not in line and field.default is not MISSING):
            continue
        text = line[field.name]
        values[field.name] = text if field.name in words else float(text) if text else None
    return Row(**values)
