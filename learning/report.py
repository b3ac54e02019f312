"""The results table of a model, written from its card."""

from __future__ import annotations

from pathlib import Path

from inference.card import CardTarget, ModelCard
from learning.datasets import Split, group_count

_HEAD = """\
# {name} {version}

{use}

{research}

Licence of the weights: {licence}. SHA-256 of `model.safetensors`: `{digest}`.
Recipe: `configs/nano.yaml` (its copy as trained: `config.yaml`), log: `log.jsonl`.

{train} training images of {train_groups} patients or clusters, {validation} held-out images of
{validation_groups}. No group is on both sides. This file and `card.yaml` are written by
`learning/release.py` from what it measured; nobody types a figure.

## Measured on held-out groups

Dice: mean over images that show the target, at their own size, without the presence gate, with a
95 % interval by group. Floor: Dice of the best constant mask, which is what position alone gives.
Moved: Dice and floor on the same images moved by up to a quarter of the field at random.
AUC: presence by the object score, against all negatives, and against empty images of the target's
own source. Sensitivity and specificity at the card's threshold. **The thresholds were chosen on
these same images**, so the last two columns flatter, and so, a little, does Dice: one number a
target, the logit at which masks are cut, was chosen here too. AUC uses no threshold.

| target | Dice | interval | floor | moved (floor) | images / groups | AUC | own (n) | sens, spec |
|---|---|---|---|---|---|---|---|---|
"""


def write_report(
    path: Path,
    card: ModelCard,
    digest: str,
    split: Split,
    phantoms: list[tuple[int, float, float]],
) -> None:
    """Write the report of a model.

    Parameters
    ----------
    phantoms
        Seed, Dice and relative volume error of each phantom.
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
        validation=len(split.validation),
        validation_groups=group_count(split.validation),
    )
    text += "".join(_row(target) for target in card.targets)
    text += _volumes(card) + _phantoms(phantoms) + _refused(card)
    text += "\n## Limits\n\n" + "".join(f"- {line}\n" for line in card.limitations)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _row(target: CardTarget) -> str:
    score = target.score
    own = "none"
    if score.presence_auc_own is not None:
        own = f"{score.presence_auc_own:.3f} ({score.negatives_own})"
    return (
        f"| {target.name}, {target.modality} | {score.dice:.3f} "
        f"| {score.dice_interval.low:.2f} to {score.dice_interval.high:.2f} | {score.floor:.2f} "
        f"| {score.dice_shifted:.3f} ({score.floor_shifted:.2f}) "
        f"| {score.images} / {score.groups} | {score.presence_auc:.3f} | {own} "
        f"| {score.sensitivity:.2f} / {score.specificity:.2f} |\n"
    )


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
