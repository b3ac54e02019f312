"""The results table of a model, written from its card."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import fmean

from inference.card import MeasuredScore, ModelCard
from learning.datasets import Split, group_count
from learning.recipe import Concept

_HEAD = """\
# {name} {version}

{use}

{research}

Licence of the weights: {licence}. SHA-256 of `model.safetensors`: `{digest}`.
Recipe: `configs/nano.yaml` (its copy as trained: `config.yaml`), log: `log.jsonl`.

{train} training images of {train_groups} patients or clusters; {calibration} of
{calibration_groups} others to choose thresholds and probabilities on; {test} of {test_groups} more
to measure on. No group is in two of them: the figures below are of images that neither training nor
calibration saw. This file and `card.yaml` are written by `learning/release.py` from what it
measured; nobody types a figure.

## Measured on test groups

Dice: mean over images that show the target, at their own size, without the presence gate, with a
95 % interval by group. Floor: Dice of the best constant mask, which is what position alone gives.
U-Net: a U-Net told its target by FiLM, same images, distortions, losses and optimiser, masks cut at
a logit of 0. Moved: Dice and floor on the same images moved by up to a quarter of the field at
random. Asked: what the recipe asks of the target; what falls short is not listed. AUC: presence by
the object score, against all negatives, and against empty images of the target's own source.
Sensitivity and specificity, over all negatives, at the card's threshold.

"""
_COLUMNS = (
    "target", "Dice", "interval", "asked", "floor", "U-Net", "moved (floor)", "images / groups",
    "AUC", "own (n)", "sens, spec", "listed",
)  # fmt: skip

Scores = Mapping[str, tuple[Concept, MeasuredScore]]
"""Concept key to what was measured of it."""


def write_report(
    path: Path,
    card: ModelCard,
    digest: str,
    split: Split,
    phantoms: list[tuple[int, float, float]],
    scores: Scores,
    baseline: Mapping[str, Mapping[str, float]],
) -> None:
    """Write the report of a model.

    Parameters
    ----------
    phantoms
        Seed, Dice and relative volume error of each phantom.
    scores
        Of all measured targets, listed or not.
    baseline
        From `learning.baseline.measure_baseline`; empty where none was trained.
    """
    text = _HEAD.format(
        name=card.name,
        version=card.version,
        use=card.intended_use,
        research=card.research_use,
        licence=card.licence,
        digest=digest,
        train=len(split.train),
        train_groups=group_count(split.train),
        calibration=len(split.calibration),
        calibration_groups=group_count(split.calibration),
        test=len(split.test),
        test_groups=group_count(split.test),
    )
    listed = {f"{target.name}, {target.modality}" for target in card.targets}
    text += f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"
    text += "".join(
        _row(key, concept, score, baseline.get(key, {}), key in listed)
        for key, (concept, score) in scores.items()
    )
    text += _means(scores, baseline, listed)
    text += _volumes(card) + _phantoms(phantoms) + _refused(card)
    text += "\n## Limits\n\n" + "".join(f"- {line}\n" for line in card.limitations)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _row(
    key: str, concept: Concept, score: MeasuredScore, other: Mapping[str, float], listed: bool
) -> str:
    own = "none"
    if score.presence_auc_own is not None:
        own = f"{score.presence_auc_own:.3f} ({score.negatives_own})"
    return (
        f"| {key} | {score.dice:.3f} "
        f"| {score.dice_interval.low:.2f} to {score.dice_interval.high:.2f} "
        f"| {concept.least_dice:.2f} | {score.floor:.2f} | {_figure(other.get('dice'))} "
        f"| {score.dice_shifted:.3f} ({score.floor_shifted:.2f}) "
        f"| {score.images} / {score.groups} | {score.presence_auc:.3f} | {own} "
        f"| {score.sensitivity:.2f} / {score.specificity:.2f} | {'yes' if listed else 'no'} |\n"
    )


def _means(
    scores: Scores, baseline: Mapping[str, Mapping[str, float]], listed: Collection[str]
) -> str:
    """Means over targets, whatever their numbers of images."""
    rows = ""
    for name, keys in (("all", list(scores)), ("listed", [k for k in scores if k in listed])):
        if not keys:
            continue
        chosen = [scores[key][1] for key in keys]
        own = [s.presence_auc_own for s in chosen if s.presence_auc_own is not None]
        known = [key for key in keys if key in baseline]
        rows += (
            f"\nMean over the {len(keys)} {'' if name == 'all' else 'listed '}targets: "
            f"Dice {fmean(s.dice for s in chosen):.3f}, floor {fmean(s.floor for s in chosen):.3f}"
        )
        if known:
            rows += f", U-Net {fmean(baseline[key]['dice'] for key in known):.3f}"
        rows += f"; AUC {fmean(s.presence_auc for s in chosen):.3f}"
        rows += f", on own empty images {fmean(own):.3f}.\n" if own else ".\n"
    return rows


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _volumes(card: ModelCard) -> str:
    rows = "".join(
        f"| {t.name}, {t.modality} | {t.score.volume_dice:.3f} | {t.score.volumes} |\n"
        for t in card.targets
        if t.score.volume_dice is not None
    )
    if not rows:
        return ""
    return (
        "\n## Whole volumes, through the engine\n\nWith presence gate, smoothing across slices and "
        "the rules of the card: what a user gets.\n\n| target | mean Dice | volumes |\n"
        "|---|---|---|\n" + rows
    )


def _phantoms(phantoms: list[tuple[int, float, float]]) -> str:
    if not phantoms:
        return ""
    rows = "".join(
        f"| {seed} | {dice:.3f} | {100 * error:+.1f} % |\n" for seed, dice, error in phantoms
    )
    return (
        "\n## Phantoms that were never trained on\n\nThe volume is compared with the inserts' "
        "exact volume.\n\n| seed | Dice | volume error |\n|---|---|---|\n" + rows
    )


def _refused(card: ModelCard) -> str:
    if not card.not_listed:
        return ""
    return "\n## Trained but not listed\n\n" + "".join(
        f"- {item.name} in {item.modality}: {item.reason}\n" for item in card.not_listed
    )
