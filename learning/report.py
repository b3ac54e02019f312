"""The results table of a model, written from its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from inference.card import ModelCard
from learning.datasets import Split, group_count
from learning.meteor import LEFT_OUT
from learning.scoring import Judged
from learning.spoken_choice import Choice

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
the object score, against all negatives (images of every set and modality that are known not to
show the target), and against empty images of the target's own source, with their numbers.
Sensitivity and specificity, over all negatives, at the card's threshold.

"""
_VERDICTS = """
## What is listed, and why

A target is listed when its Dice reaches what is asked, on four patients or clusters or more, and
at least 0.4 on moved images; when it beats the best constant mask on moved images by a 95 %
interval, drawn by group, that lies above 0, and on images as they are as well; and when presence
has an AUC of 0.8 or more. Where all images of a target are crops around it, position gives most of
its mask away: as they are it must not be worse than the constant mask by such an interval, and the
moved ones decide (`learning/listing.py`).

| target | verdict | difference to the constant mask |
|---|---|---|
"""
_COLUMNS = (
    "target", "Dice", "interval", "asked", "floor", "U-Net", "moved (floor)", "images / groups",
    "AUC, all (n)", "AUC, own (n)", "sens, spec", "listed",
)  # fmt: skip


def write_report(
    path: Path,
    card: ModelCard,
    digest: str,
    split: Split,
    phantoms: list[tuple[int, float, float]],
    scores: Sequence[Judged],
    chosen: Sequence[Choice],
    words: Sequence[Mapping[str, Any]],
) -> None:
    """Write the report of a model.

    Parameters
    ----------
    phantoms
        Seed, Dice and relative volume error of each phantom.
    scores
        Of all measured targets, listed or not.
    chosen
        Which way each task in words is answered.
    words
        From `learning.evaluate_speech.summarise_speech`, on test groups.
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
    text += _head(_COLUMNS)
    text += "".join(_row(item) for item in scores)
    text += _means(scores) + _verdicts(scores)
    text += _volumes(card) + _phantoms(phantoms) + _choices(chosen) + _words(chosen, words)
    text += "\n## Limits\n\n" + "".join(f"- {line}\n" for line in card.limitations)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _row(item: Judged) -> str:
    score = item.score
    own = "none"
    if score.presence_auc_own is not None:
        own = f"{score.presence_auc_own:.3f} ({score.negatives_own})"
    return (
        f"| {item.concept.key} | {score.dice:.3f} "
        f"| {score.dice_interval.low:.2f} to {score.dice_interval.high:.2f} "
        f"| {item.concept.least_dice:.2f} | {score.floor:.2f} | {_figure(score.baseline)} "
        f"| {score.dice_shifted:.3f} ({score.floor_shifted:.2f}) "
        f"| {score.images} / {score.groups} | {score.presence_auc:.3f} ({score.negatives}) | {own} "
        f"| {score.sensitivity:.2f} / {score.specificity:.2f} "
        f"| {'yes' if item.verdict.listed else 'no'} |\n"
    )


def _means(scores: Sequence[Judged]) -> str:
    """Means over targets, whatever their numbers of images."""
    rows = ""
    listed = [item.score for item in scores if item.verdict.listed]
    for name, chosen in (("", [item.score for item in scores]), ("listed ", listed)):
        if not chosen:
            continue
        own = [s.presence_auc_own for s in chosen if s.presence_auc_own is not None]
        known = [s.baseline for s in chosen if s.baseline is not None]
        rows += (
            f"\nMean over the {len(chosen)} {name}targets: "
            f"Dice {fmean(s.dice for s in chosen):.3f}, floor {fmean(s.floor for s in chosen):.3f}"
        )
        if known:
            rows += f", U-Net {fmean(known):.3f}"
        rows += f"; AUC over all negatives {fmean(s.presence_auc for s in chosen):.3f}"
        rows += (
            f", on empty images of the own source {fmean(own):.3f} (the {len(own)} targets that "
            "have any).\n"
            if own
            else ".\n"
        )
    return rows


def _verdicts(scores: Sequence[Judged]) -> str:
    """Say of each target what the rule finds, with the intervals that it looks at."""
    rows = "".join(
        f"| {item.concept.key} | {'listed' if item.verdict.listed else 'not listed'} "
        f"| {item.verdict.reason} |\n"
        for item in scores
    )
    return _VERDICTS + rows


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


_CHOICES = """
## Own words, or composed from masks

The same questions about the same pictures of the calibration groups (every second image, and of
every second volume the middle slice), answered in the model's own words and composed from its
masks, in the same wording. Users get own words where these were right more often than the composed
answer and than the most frequent one (reports: the higher ROUGE-L); regions only if empty ones are
not named more often. Interval: 95 %, of the gain, drawn by group (`learning/spoken_choice.py`).

"""
_CHOICE_COLUMNS = (
    "task", "measure", "own words", "composed", "gain", "interval", "majority", "items / groups",
    "users get",
)  # fmt: skip


def _choices(chosen: Sequence[Choice]) -> str:
    """List which way each task in words is answered, and why."""
    if not chosen:
        return ""
    text = _CHOICES + _head(_CHOICE_COLUMNS)
    for one in chosen:
        text += (
            f"| {one.task} | {one.metric} | {one.own:.2f} | {one.composed:.2f} "
            f"| {one.gain.difference:+.2f} | {one.gain.low:+.2f} to {one.gain.high:+.2f} "
            f"| {one.majority:.2f} | {one.gain.count} / {one.groups} "
            f"| {'own words' if one.spoken else 'composed'} |\n"
        )
    return text


_WORDS = """
## Answers in words

Both ways on every fourth of the test images (of volumes the middle slice), whichever was chosen.
Accuracy: the whole answer is right, with a 95 % interval by group, and how often the most frequent
answer would be. BLEU, METEOR and ROUGE-L: against the answer that the true masks give, the last
beside that of the most frequent answer. A region's own name counts once the mask of that name
reaches the region.

"""
_WORD_COLUMNS = (
    "task", "way", "items / groups", "accuracy", "interval", "majority", "BLEU-1", "BLEU-2",
    "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "majority's", "users get",
)  # fmt: skip


def _words(chosen: Sequence[Choice], words: Sequence[Mapping[str, Any]]) -> str:
    """List every task in words, both ways."""
    if not words:
        return ""
    spoken = {one.task for one in chosen if one.spoken}
    text = _WORDS + _head(_WORD_COLUMNS)
    masks = []
    for line in words:
        if "accuracy" not in line:
            masks.append(f"{line['dice']:.3f} ({line['way']})")
            continue
        own = line["task"].removeprefix("empty ") in spoken
        figures = [line[f"BLEU-{order}"] for order in (1, 2, 3, 4)]
        figures += [line[name] for name in ("METEOR", "ROUGE-L", "ROUGE-L_of_majority")]
        text += (
            f"| {line['task']} | {line['way']} | {line['items']} / {line['groups']} "
            f"| {line['accuracy']:.2f} | {line['low']:.2f} to {line['high']:.2f} "
            f"| {line['accuracy_of_majority']:.2f} | "
            + " | ".join("" if figure is None else f"{figure:.2f}" for figure in figures)
            + f" | {'yes' if own == (line['way'] == 'own words') else ''} |\n"
        )
    if any("accuracy" in line and line["METEOR"] is None for line in words):
        text += f"\n{LEFT_OUT}\n"
    return text + f"\nMean Dice of the masks that reports speak of: {', '.join(masks)}.\n"


def _head(columns: Sequence[str]) -> str:
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
