"""What may stand on a model card: the rule, and its verdict on each target in words.

A target is listed when all of this holds, on test groups:

1. Dice reaches what the recipe asks of it (``least_dice``), and `LEAST_DICE` also on moved images;
2. it was measured on `LEAST_GROUPS` patients or clusters or more;
3. it beats the best constant mask on images that were moved at random: the 95 % interval of the
   difference, drawn by group, lies above 0. Whoever knows positions alone fails here;
4. it beats the constant mask by such an interval on images as they are, too. Where all its images
   are crops around the target (``centred`` in the recipe), position gives most of the mask away and
   this says little of what a user's uncropped images would show: there it must not be worse than
   the constant mask by an interval that excludes 0, and 3 decides;
5. presence parts images that show it from those that do not with an AUC of `LEAST_AUC`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from inference.card import Interval, MeasuredScore

LEAST_DICE: Final = 0.4
LEAST_AUC: Final = 0.8
LEAST_GROUPS: Final = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a target is listed, and the sentence that says why."""

    listed: bool
    reason: str


def judge(score: MeasuredScore, *, least_dice: float = LEAST_DICE, centred: bool) -> Verdict:
    """Apply the rule of this module to what was measured of a target.

    Parameters
    ----------
    least_dice
        What the recipe asks of the target.
    centred
        All its images are crops around it.
    """
    reason = _refusal(score, least_dice, centred)
    if reason is not None:
        return Verdict(False, reason)
    if not _beats(score.over_floor):
        return Verdict(
            True,
            "by its moved images: on crops centred on it, it is not shown to be better than a "
            f"constant mask ({_said(score.over_floor)}); on moved ones it beats it by "
            f"{_said(score.over_floor_shifted)}",
        )
    return Verdict(
        True,
        f"beats a constant mask by {_said(score.over_floor)}, on moved images by "
        f"{_said(score.over_floor_shifted)}",
    )


def _refusal(score: MeasuredScore, least_dice: float, centred: bool) -> str | None:
    """Return the first part of the rule that does not hold, in words."""
    figures = f"Dice {score.dice:.2f} on {score.images} held-out images"
    over, moved = score.over_floor, score.over_floor_shifted
    if not _beats(moved):
        return (
            f"{figures}; on moved images {score.dice_shifted:.2f} does not beat a constant mask "
            f"({score.floor_shifted:.2f}): the difference is {_said(moved)}"
        )
    if not _beats(over) and not (centred and over is not None and over.high >= 0):
        word = "is worse than" if over is not None and over.high < 0 else "does not beat"
        return f"{figures} {word} a constant mask ({score.floor:.2f}): {_said(over)}"
    if score.dice < least_dice:
        return f"{figures} of {score.groups} patients or clusters; {least_dice} is asked"
    if score.groups < LEAST_GROUPS:
        return f"{figures} of {score.groups} patients or clusters, too few to say how good it is"
    if min(score.dice, score.dice_shifted) < LEAST_DICE:
        return f"{figures}, {score.dice_shifted:.2f} on moved ones; {LEAST_DICE} is asked of both"
    if score.presence_auc < LEAST_AUC:
        return f"presence AUC {score.presence_auc:.2f} is below {LEAST_AUC}"
    return None


def _beats(over: Interval | None) -> bool:
    return over is not None and over.low > 0


def _said(over: Interval | None) -> str:
    return "not measured" if over is None else f"{over.low:+.2f} to {over.high:+.2f}"
