"""Figures of an evaluation: box plots, a reliability diagram, and overlays of the worst cases."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from learning import metrics
from learning.evaluate import Picture, Row

_INK, _PALE, _ACCENT, _FLOOR = "#1f2933", "#d9e2ec", "#2f6f9f", "#b7791f"
TRUTH_COLOUR: Final = (56, 189, 94)
FOUND_COLOUR: Final = (240, 84, 84)
_SIDE: Final = 288


def box_plots(rows: Sequence[Row], lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the Dice of the images that show each target, with the floor of a constant mask."""
    floors = {line["target"]: line["dice_floor_of_card"] for line in lines}
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.positive:
            values[row.key].append(row.dice)
    keys = sorted(values, key=lambda key: float(np.median(values[key])))
    figure = Figure(figsize=(8.6, 1.4 + 0.42 * max(1, len(keys))), layout="constrained")
    axes = figure.subplots()
    if keys:
        axes.boxplot(
            [values[key] for key in keys],
            orientation="horizontal",
            tick_labels=[f"{key}  (n={len(values[key])})" for key in keys],
            widths=0.55,
            patch_artist=True,
            boxprops={"facecolor": _PALE, "edgecolor": _ACCENT},
            medianprops={"color": _ACCENT, "linewidth": 2},
            whiskerprops={"color": _ACCENT},
            capprops={"color": _ACCENT},
            flierprops={"marker": "o", "markersize": 3, "markeredgecolor": _ACCENT},
        )
        for place, key in enumerate(keys, start=1):
            if floors.get(key) is not None:
                axes.plot(floors[key], place, marker="D", color=_FLOOR, markersize=5)
        axes.plot([], [], "D", color=_FLOOR, label="best constant mask (floor, from the card)")
        figure.legend(loc="outside lower right", frameon=False, fontsize=9)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Dice on images that show the target")
    _plain(axes)
    figure.savefig(path, dpi=130)


def reliability(rows: Sequence[Row], path: Path) -> float:
    """Draw how often targets were there by the probability that was stated; return the error."""
    truth = np.array([row.positive for row in rows], dtype=bool)
    probability = np.array([row.probability for row in rows])
    error, bins = metrics.calibration_error(probability, truth)
    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color=_PALE, linewidth=2)
    upper.plot([p for p, _, _ in bins], [s for _, s, _ in bins], "o-", color=_ACCENT)
    upper.set_ylabel("share that shows the target")
    upper.set_ylim(-0.03, 1.03)
    upper.set_title(f"expected calibration error {error:.3f}", color=_INK, fontsize=10)
    lower.bar([p for p, _, _ in bins], [n for _, _, n in bins], width=0.05, color=_ACCENT)
    lower.set_yscale("log")
    lower.set_ylabel("cases")
    lower.set_xlabel("stated probability")
    lower.set_xlim(-0.03, 1.03)
    for axes in (upper, lower):
        _plain(axes)
    figure.savefig(path, dpi=130)
    return error


def overlay(picture: Picture) -> bytes:
    """Draw the outlines of truth and finding on a frame; return a PNG."""
    image = picture.image
    colour = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    scale = _SIDE / max(colour.shape[:2])
    size = (max(1, round(colour.shape[1] * scale)), max(1, round(colour.shape[0] * scale)))
    drawn = np.asarray(Image.fromarray(colour).resize(size, Image.Resampling.BICUBIC)).copy()
    for mask, ink in ((picture.truth, TRUTH_COLOUR), (picture.found, FOUND_COLOUR)):
        drawn[_outline(mask, size)] = ink
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _outline(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    large = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), dtype=bool)
    inner: NDArray[np.bool_] = ndimage.binary_erosion(large, iterations=2, border_value=1)
    return large & ~inner


def _plain(axes: Any) -> None:
    """Take away what says nothing."""
    for place in ("top", "right"):
        axes.spines[place].set_visible(False)
    axes.grid(axis="x", color=_PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=_INK)
