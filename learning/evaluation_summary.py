"""Sum an evaluation up, target by target, and hold two of them against each other.

Beside the node's own rule stands the reference's (the first 300 items of a set, slices that show
the target alone), so that figures can be held against published ones; every figure says its rule.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from inference.engine import Engine
from inference.findings import Presence
from learning import metrics
from learning.evaluate import Row

PUBLISHED_FIRST: Final = 300
"""Items of a set that the reference's evaluation looks at."""

_ALL: Final = "all targets together"


def summarise(rows: Sequence[Row], engine: Engine, seed: int = 0) -> list[dict[str, Any]]:
    """Sum the rows up, one line for each target, then one for all.

    Returns
    -------
    list of dict
        Plain values; ``None`` where nothing was there to measure.
    """
    by_key: dict[str, list[Row]] = defaultdict(list)
    foreign: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        (foreign if row.images_of else by_key)[row.key].append(row)
    lines = [_line(key, part, foreign[key], engine, seed) for key, part in sorted(by_key.items())]
    if lines:
        lines.append(_mean_line(lines, rows))
    return lines


def _line(
    key: str, rows: Sequence[Row], foreign: Sequence[Row], engine: Engine, seed: int
) -> dict[str, Any]:
    positive = [row for row in rows if row.positive]
    negative = [row for row in rows if not row.positive]
    dice = [row.dice for row in positive]
    low = high = None
    if positive:
        low, high = metrics.bootstrap_mean(dice, [row.group for row in positive], seed)
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
        "dice_unet_of_card": None if target is None else target.score.baseline,
        "dice_negatives_counted": _mean([row.dice for row in rows]),
        "iou_positive": _mean([row.iou for row in positive]),
        "hausdorff_95_mm": _median([row.hausdorff_95 for row in positive]),
        "surface_dice": _mean([row.surface_dice for row in positive]),
        "sensitivity": _share(positive, Presence.PRESENT),
        "sensitivity_with_uncertain": (
            None if not positive else 1.0 - (_share(positive, Presence.ABSENT) or 0.0)
        ),
        "specificity": None if not negative else 1.0 - (_share(negative, Presence.PRESENT) or 0.0),
        **_areas(positive, negative, foreign),
        **_calibration(rows),
        "published_rule_dice": _mean(published_rule(rows)),
        "published_rule_count": len(published_rule(rows)),
    }


def _areas(
    positive: Sequence[Row], negative: Sequence[Row], foreign: Sequence[Row]
) -> dict[str, Any]:
    """Areas under the ROC curve of presence, against three circles of negatives, with their counts.

    Empty images of the sets that show the target; those and other images of its modality, which is
    what the node asks about; and those with images of other modalities: all negatives.
    """
    sets = {row.source for row in positive}
    own = [row for row in negative if row.source in sets]
    circles = {"own": own, "modality": negative, "all": [*negative, *foreign]}
    result: dict[str, Any] = {}
    for name, rows in circles.items():
        known = bool(positive and rows)
        result[f"presence_auc_{name}"] = _area(positive, rows) if known else None
        result[f"presence_negatives_{name}"] = len(rows)
    return result


def _area(positive: Sequence[Row], negative: Sequence[Row]) -> float:
    above, below = (np.array([row.probability for row in rows]) for rows in (positive, negative))
    return metrics.roc_auc(above, below)


def _calibration(rows: Sequence[Row]) -> dict[str, Any]:
    """Calibration error over what the node asks about, beside what chance alone makes of it."""
    truth = np.array([row.positive for row in rows])
    if truth.all() or not truth.any():
        return dict.fromkeys(("calibration_error", "calibration_chance", "calibration_chance_95"))
    probability = np.array([row.probability for row in rows])
    mean, high = metrics.calibration_by_chance(probability)
    return {
        "calibration_error": metrics.calibration_error(probability, truth)[0],
        "calibration_chance": mean,
        "calibration_chance_95": high,
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
    counts = {"positives", "negatives", "published_rule_count"}
    counts.update(name for name in lines[0] if name.startswith("presence_negatives"))
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
        ``target``, ``rule`` and the fields of `learning.metrics.Comparison` of the Dice: with
        negatives counted (``node``), and of the reference's first items, shown slices alone
        (``reference``). The last two lines are of all targets together. Targets and cases that
        only one of them has are left out.
    """
    earlier = {(row.case, row.key): row for row in first if not row.images_of}
    pairs: dict[str, list[tuple[Row, Row]]] = defaultdict(list)
    for row in second:
        other = earlier.get((row.case, row.key))
        if other is not None and not row.images_of:
            pairs[row.key].append((other, row))
    parts = sorted(pairs.items())
    if len(parts) > 1:
        parts.append((_ALL, [pair for _, part in parts for pair in part]))
    return [line for key, part in parts for line in _compared(key, part)]


def _compared(key: str, pairs: Sequence[tuple[Row, Row]]) -> Iterator[dict[str, Any]]:
    """Compare by both rules; a target that no case shows has no line of the reference's."""
    node = [(old.dice, new.dice, new.group) for old, new in pairs]
    taken: dict[tuple[str, str], int] = defaultdict(int)
    reference = []
    for old, new in pairs:
        if old.published_dice is not None and new.published_dice is not None:
            taken[new.source, new.key] += 1
            if taken[new.source, new.key] <= PUBLISHED_FIRST:
                reference.append((old.published_dice, new.published_dice, new.group))
    for rule, values in (("node", node), ("reference", reference)):
        if values:
            before, after, groups = zip(*values, strict=True)
            compared = metrics.compare(before, after, groups)
            yield {"target": key, "rule": rule, **asdict(compared)}


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
