"""Figures of an evaluation: box plots, a reliability diagram, and overlays of the worst cases."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, stats

from learning import metrics
from learning.evaluate import Picture, Row

TRUTH_COLOUR: Final = (0, 190, 255)
FOUND_COLOUR: Final = (255, 150, 30)
"""Told apart with any colour vision; a dark seam keeps them visible on bright images."""
_SIDE: Final = 288


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a figure, those of the page around it."""

    back: str
    ink: str
    pale: str
    accent: str
    floor: str
    baseline: str


LIGHT: Final = Theme("#ffffff", "#1f2933", "#d9e2ec", "#2f6f9f", "#b45309", "#6d28d9")
DARK: Final = Theme("#17202a", "#e4e9ee", "#33414f", "#7cb8e4", "#f0a94a", "#b39df3")


def box_plots(rows: Sequence[Row], lines: Sequence[dict[str, Any]], theme: Theme) -> bytes:
    """Draw the Dice of images that show each target, with the floor and the U-Net of the card.

    Returns
    -------
    bytes
        PNG.
    """
    of_card = {line["target"]: line for line in lines}
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.positive:
            values[row.key].append(row.dice)
    keys = sorted(values, key=lambda key: float(np.median(values[key])))
    figure = _figure((8.6, 1.5 + 0.4 * max(1, len(keys))), theme)
    axes = figure.subplots()
    if keys:
        axes.boxplot(
            [values[key] for key in keys],
            orientation="horizontal",
            tick_labels=[f"{key}  (n={len(values[key])})" for key in keys],
            widths=0.55,
            patch_artist=True,
            boxprops={"facecolor": theme.pale, "edgecolor": theme.accent},
            medianprops={"color": theme.accent, "linewidth": 2},
            whiskerprops={"color": theme.accent},
            capprops={"color": theme.accent},
            flierprops={"marker": "o", "markersize": 3, "markeredgecolor": theme.accent},
        )
        _marks(axes, keys, of_card, theme)
        figure.legend(
            loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=theme.ink
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Dice on images and volumes that show the target")
    _plain(axes, theme)
    return _png(figure)


def _marks(axes: Any, keys: Sequence[str], lines: dict[str, dict[str, Any]], theme: Theme) -> None:
    """Mark what the card knows of others on single images: constant mask and U-Net."""
    for name, marker, colour, label in (
        ("dice_floor_of_card", "D", theme.floor, "constant mask (card)"),
        ("dice_unet_of_card", "^", theme.baseline, "FiLM U-Net (card)"),
    ):
        known = [
            (lines[key][name], place)
            for place, key in enumerate(keys, start=1)
            if lines[key][name] is not None
        ]
        if known:
            across, up = zip(*known, strict=True)
            axes.scatter(across, up, marker=marker, color=colour, s=26, zorder=4, label=label)


def reliability(rows: Sequence[Row], theme: Theme) -> bytes:
    """Draw how often targets were there by the probability that was stated, with the counts.

    The bars of each point are what 95 of 100 perfectly calibrated forecasts would show of so many
    cases. Returned as `box_plots` does.
    """
    truth = np.array([row.positive for row in rows], dtype=bool)
    probability = np.array([row.probability for row in rows])
    _, bins = metrics.calibration_error(probability, truth)
    stated, shares, counts = (np.array(part) for part in zip(*bins, strict=True))
    figure = _figure((4.8, 5.4), theme)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    upper.plot([0, 1], [0, 1], color=theme.pale, linewidth=2, label="perfect")
    low, high = (stats.binom.ppf(q, counts, stated) / counts for q in (0.025, 0.975))
    upper.vlines(stated, low, high, color=theme.floor, linewidth=5, alpha=0.45, label="by chance")
    upper.plot(stated, shares, "o-", color=theme.accent, label="measured")
    upper.set_ylabel("share that shows the target")
    upper.set_ylim(-0.03, 1.03)
    upper.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=theme.ink)
    lower.bar(stated, counts, width=0.05, color=theme.accent)
    for place, count in zip(stated, counts, strict=True):
        lower.annotate(
            f"{count:.0f}", (place, count), (0, 2), textcoords="offset points", ha="center",
            fontsize=8, color=theme.ink,
        )  # fmt: skip
    lower.set_yscale("log")
    lower.set_ylim(0.5, 6 * counts.max())
    lower.set_ylabel("answers")
    lower.set_xlabel("stated probability")
    lower.set_xlim(-0.03, 1.03)
    for axes in (upper, lower):
        _plain(axes, theme)
    return _png(figure)


def overlay(picture: Picture) -> bytes:
    """Draw the outlines of truth and finding on a frame; return a PNG."""
    image = picture.image
    colour = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    scale = _SIDE / max(colour.shape[:2])
    size = (max(1, round(colour.shape[1] * scale)), max(1, round(colour.shape[0] * scale)))
    drawn = np.asarray(Image.fromarray(colour).resize(size, Image.Resampling.BICUBIC)).copy()
    lines = [
        (_outline(m, size), ink)
        for m, ink in zip((picture.truth, picture.found), (TRUTH_COLOUR, FOUND_COLOUR), strict=True)
    ]
    seam = ndimage.binary_dilation(lines[0][0] | lines[1][0])
    drawn[seam] = drawn[seam] // 4
    for line, ink in lines:
        drawn[line] = ink
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _outline(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    large = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), dtype=bool)
    inner: NDArray[np.bool_] = ndimage.binary_erosion(large, iterations=2, border_value=1)
    return large & ~inner


def _figure(inches: tuple[float, float], theme: Theme) -> Figure:
    return Figure(figsize=inches, layout="constrained", facecolor=theme.back)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, dpi=130, format="png")
    return stream.getvalue()


def _plain(axes: Any, theme: Theme) -> None:
    """Take away what says nothing."""
    for place in ("top", "right"):
        axes.spines[place].set_visible(False)
    for place in ("left", "bottom"):
        axes.spines[place].set_color(theme.pale)
    axes.set_facecolor(theme.back)
    axes.grid(axis="x", color=theme.pale, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=theme.ink, which="both")
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
