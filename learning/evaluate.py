"""Measure a checkpoint on cases through the engine: what a user of the node would get.

Negatives are counted, presence is gated by the card's thresholds, distances are in millimetres.
Beside the node's own rule stands the reference's (the first 300 items of a set, slices that show
the target alone), so that figures can be held against published ones; every figure says its rule.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference import intensity
from inference.engine import Engine
from inference.findings import Finding, Presence
from inference.tasks import Task
from learning import metrics, surfaces
from learning.cases import Case

PUBLISHED_FIRST: Final = 300
"""Items of a set that the reference's evaluation looks at."""

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
    progress: Progress | None = None,
) -> Measured:
    """Ask every listed target of every case of which the truth is known.

    Parameters
    ----------
    tolerance
        Of the surface Dice, mm.
    worst
        Pictures to keep for each target.
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
        if progress is not None:
            progress(number, case.name)
    kept = [picture for key in sorted(pictures) for picture in pictures[key]]
    return Measured(tuple(rows), tuple(kept))


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


def summarise(rows: Sequence[Row], engine: Engine, seed: int = 0) -> list[dict[str, Any]]:
    """Sum the rows up, one line for each target, then one for all.

    Returns
    -------
    list of dict
        Plain values; ``None`` where nothing was there to measure.
    """
    by_key: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_key[row.key].append(row)
    lines = [_line(key, part, engine, seed) for key, part in sorted(by_key.items())]
    if lines:
        lines.append(_mean_line(lines, rows))
    return lines


def _line(key: str, rows: Sequence[Row], engine: Engine, seed: int) -> dict[str, Any]:
    positive = [row for row in rows if row.positive]
    negative = [row for row in rows if not row.positive]
    dice = [row.dice for row in positive]
    low = high = None
    if positive:
        low, high = metrics.bootstrap_mean(dice, [row.group for row in positive], seed)
    truth = np.array([row.positive for row in rows])
    probability = np.array([row.probability for row in rows])
    error, _ = metrics.calibration_error(probability, truth)
    target = engine.card.target(rows[0].modality, rows[0].target)
    return {
        "target": key,
        "positives": len(positive),
        "negatives": len(negative),
        "groups": len({row.group for row in rows}),
        "dice_positive": _mean(dice),
        "dice_low": low,
        "dice_high": high,
        "dice_floor_of_card": None if target is None else target.score.floor,
        "dice_negatives_counted": _mean([row.dice for row in rows]),
        "iou_positive": _mean([row.iou for row in positive]),
        "hausdorff_95_mm": _median([row.hausdorff_95 for row in positive]),
        "surface_dice": _mean([row.surface_dice for row in positive]),
        "sensitivity": _share(positive, Presence.PRESENT),
        "sensitivity_with_uncertain": (
            None if not positive else 1.0 - (_share(positive, Presence.ABSENT) or 0.0)
        ),
        "specificity": None if not negative else 1.0 - (_share(negative, Presence.PRESENT) or 0.0),
        "presence_auc": (
            metrics.roc_auc(probability[truth], probability[~truth])
            if positive and negative
            else None
        ),
        "calibration_error": error if positive and negative else None,
        "published_rule_dice": _mean(published_rule(rows)),
        "published_rule_count": len(published_rule(rows)),
    }


def published_rule(rows: Sequence[Row]) -> list[float]:
    """Dice by the reference's rule: the first 300 items of a set, shown slices alone."""
    taken: dict[str, int] = defaultdict(int)
    result = []
    for row in rows:
        if row.published_dice is not None and taken[row.source] < PUBLISHED_FIRST:
            taken[row.source] += 1
            result.append(row.published_dice)
    return result


def _mean_line(lines: Sequence[dict[str, Any]], rows: Sequence[Row]) -> dict[str, Any]:
    """Mean over targets, whatever their numbers of images; counts are sums."""
    counts = ("positives", "negatives", "published_rule_count")
    result: dict[str, Any] = {"target": "mean over targets"}
    for name in lines[0]:
        if name == "target":
            continue
        values = [line[name] for line in lines]
        result[name] = sum(values) if name in counts else _mean(values)
    result["groups"] = len({row.group for row in rows})
    result["dice_low"] = result["dice_high"] = None
    return result


def compare_rows(first: Sequence[Row], second: Sequence[Row]) -> list[dict[str, Any]]:
    """Hold two evaluations of the same cases against each other, target by target.

    Returns
    -------
    list of dict
        ``target`` and the fields of `learning.metrics.Comparison` of the Dice with negatives
        counted; targets and cases that only one of them has are left out.
    """
    earlier = {(row.case, row.key): row for row in first}
    pairs: dict[str, list[tuple[Row, Row]]] = defaultdict(list)
    for row in second:
        other = earlier.get((row.case, row.key))
        if other is not None:
            pairs[row.key].append((other, row))
    return [
        {
            "target": key,
            **asdict(
                metrics.compare(
                    [old.dice for old, _ in part],
                    [new.dice for _, new in part],
                    [new.group for _, new in part],
                )
            ),
        }
        for key, part in sorted(pairs.items())
    ]


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
    words = ("case", "source", "group", "modality", "target", "presence")
    values: dict[str, Any] = {name: line[name] for name in words}
    values["positive"] = line["positive"] == "True"
    for field in fields(Row):
        if field.name not in values:
            text = line[field.name]
            values[field.name] = None if text == "" else float(text)
    return Row(**values)


def write_summary(lines: Sequence[dict[str, Any]], facts: dict[str, Any], out: Path) -> None:
    """Write ``summary.csv`` and ``summary.json``; the JSON also says what was measured how."""
    if lines:
        with (out / "summary.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    document = {**facts, "targets": list(lines)}
    text = json.dumps(document, indent=2, ensure_ascii=False)
    (out / "summary.json").write_text(text + "\n", encoding="utf-8")


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = _present(values)
    return float(np.mean(known)) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = _present(values)
    return float(np.median(known)) if known else None


def _share(rows: Sequence[Row], presence: Presence) -> float | None:
    return float(np.mean([row.presence == presence.value for row in rows])) if rows else None
