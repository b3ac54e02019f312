"""Make a model folder of a training run: measure, calibrate, write the card and the report.

Everything is measured on groups that neither training nor calibration saw, at the images' own size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from inference.card import ModelCard, PromptSettings, write_card
from inference.checkpoints import TOKENIZER_FILE, load_checkpoint, save_weights
from inference.engine import Engine
from learning import metrics
from learning.baseline import FIGURES
from learning.calibrate import ConceptMeasurement, Further, calibrations
from learning.cases import recipe_cases
from learning.datasets import Sample, Side, Split, load_split, thinned, with_concept
from learning.evaluate_speech import hear, summarise_speech
from learning.evidence import NAMES
from learning.phantom import generate_phantom
from learning.predict import THRESHOLDS, Prediction, asker, predict, truth_of
from learning.recipe import Recipe, load_recipe
from learning.report import write_report
from learning.scoring import build_card, judged
from learning.spoken_choice import choices, spoken_tasks
from learning.train import TrainingModel, model_config

_LOG = logging.getLogger(__name__)
_MEAN_SIDE = 64
_PHANTOM_SEEDS = range(90_000, 90_006)
_VOLUMES = 12
_GROUPS_FOR_A_CUT = 3
_CHOICE_EVERY, _WORDS_EVERY = 2, 4
"""Of the calibration and of the test images and volumes, those that are asked in words: each takes
some seconds, both ways."""


def export(run: Path, recipe: Recipe, out: Path) -> str:
    """Write the averaged weights of a training checkpoint as a model folder, still without card."""
    tokenizer = Tokenizer.from_file(str(run / TOKENIZER_FILE))
    net = TrainingModel(model_config(recipe, tokenizer), len(recipe.concepts))
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    net.load_state_dict(state["average"])
    return save_weights(net.model, tokenizer, out)


def cuts_of(predictions: Sequence[Prediction], recipe: Recipe) -> dict[int, int]:
    """Choose for each concept the place in `THRESHOLDS` at which its masks are cut.

    On the calibration images; 0 where too few of them show it.
    """
    middle = int(np.argmin(np.abs(THRESHOLDS)))
    result = dict.fromkeys(range(len(recipe.concepts)), middle)
    for index, concept in enumerate(recipe.concepts):
        if concept.mask_threshold is not None:
            result[index] = int(np.argmin(np.abs(np.array(THRESHOLDS) - concept.mask_threshold)))
            continue
        shown = [p for p in predictions if index in p.cuts]
        if len({p.sample.group for p in shown}) >= _GROUPS_FOR_A_CUT:
            truths = [float(truth_of(p.sample, index).sum()) for p in shown]
            result[index] = best_cut(np.stack([p.cuts[index] for p in shown]), np.array(truths))
    return result


def measure(
    predictions: Sequence[Prediction],
    moved: Sequence[Prediction],
    cuts: Mapping[int, int],
    constant: Mapping[int, NDArray[np.bool_]],
    recipe: Recipe,
) -> list[ConceptMeasurement]:
    """Score every concept on images as they are and moved at random.

    Parameters
    ----------
    cuts
        From `cuts_of`.
    constant
        Concept to its best constant mask; concepts without one are left out.
    """
    result = []
    for index, mask in constant.items():
        concept, cut = recipe.concepts[index], cuts[index]
        shown = [p for p in predictions if index in p.cuts]
        away = [p for p in moved if index in p.cuts]
        own = [p for p in predictions if index in p.sample.absent_own]
        other = [p for p in predictions if index in p.sample.absent_other]
        result.append(
            ConceptMeasurement(
                concept=concept,
                mask_threshold=THRESHOLDS[cut],
                dice=np.array([p.cuts[index][0, cut] for p in shown]),
                floor=_constant_dice(mask, shown, index),
                dice_shifted=np.array([p.cuts[index][0, cut] for p in away]),
                floor_shifted=_constant_dice(mask, away, index),
                groups=tuple(p.sample.group for p in shown),
                groups_shifted=tuple(p.sample.group for p in away),
                positive=np.array([p.score[index] for p in shown]),
                negative_own=np.array([p.score[index] for p in own]),
                negative_other=np.array([p.score[index] for p in other]),
                near=np.array([p.sample.modality == concept.modality for p in other], np.bool_),
                further=_further(predictions, index),
            )
        )
    return result


def constant_masks(training: Sequence[Sample], recipe: Recipe) -> dict[int, NDArray[np.bool_]]:
    """Find the best constant mask of every concept that training images show."""
    return {
        index: constant_mask(shown, index)
        for index in range(len(recipe.concepts))
        if (shown := with_concept(training, index))
    }


def _further(predictions: Sequence[Prediction], index: int) -> Further:
    """Evidence beside the object score, in the order of the scores."""
    none = np.zeros((0, len(NAMES)))
    shown = [p for p in predictions if index in p.cuts]
    own = [p for p in predictions if index in p.sample.absent_own]
    other = [p for p in predictions if index in p.sample.absent_other]
    return Further(
        positive=np.array([p.further[index] for p in shown]) if shown else none,
        negative_own=np.array([p.further[index] for p in own]) if own else none,
        negative_other=np.array([p.further[index] for p in other]) if other else none,
        groups_own=tuple(p.sample.group for p in own),
    )


def best_cut(cuts: NDArray[np.float64], truth: NDArray[np.float64]) -> int:
    """Choose the threshold at which areas are right, in the median of what was found at all.

    Where that costs more than one point of Dice, the threshold of the best Dice is taken.

    Parameters
    ----------
    cuts
        ``(N, 2, T)``: Dice and area of each image at each threshold.
    truth
        ``(N,)`` true areas.
    """
    mean_dice = cuts[:, 0].mean(axis=0)
    met = cuts[:, 0].max(axis=1) > 0.5
    if not met.any():
        return int(np.argmax(mean_dice))
    ratio = np.median(cuts[met, 1] / truth[met, None], axis=0)
    unbiased, best = int(np.argmin(np.abs(ratio - 1.0))), int(np.argmax(mean_dice))
    return unbiased if mean_dice[unbiased] >= mean_dice[best] - 0.01 else best


def _constant_dice(
    constant: NDArray[np.bool_], predictions: Sequence[Prediction], concept: int
) -> NDArray[np.float64]:
    truths = [truth_of(p.sample, concept) for p in predictions]
    return np.array([metrics.dice(_resized(constant, t.shape), t) for t in truths])


def shifted(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Move images and masks by up to a quarter of the field; what comes in is black.

    Targets that leave the view are dropped from what the image shows.
    """
    draw = np.random.default_rng(seed)
    result = []
    for sample in samples:
        rows, columns = sample.mask.shape
        down, right = (int(draw.uniform(-0.25, 0.25) * side) for side in (rows, columns))
        mask = _moved(sample.mask, down, right)
        counts = np.bincount(mask.reshape(-1), minlength=256)
        before = np.bincount(sample.mask.reshape(-1), minlength=256)
        kept = {
            concept: values
            for concept, values in sample.present.items()
            if counts[list(values)].sum() > 0.5 * before[list(values)].sum()
        }
        result.append(
            replace(sample, image=_moved(sample.image, down, right), mask=mask, present=kept)
        )
    return result


def _moved(picture: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    rows, columns = picture.shape[:2]
    result = np.zeros_like(picture)
    result[max(0, down) : rows + min(0, down), max(0, right) : columns + min(0, right)] = picture[
        max(0, -down) : rows - max(0, down), max(0, -right) : columns - max(0, right)
    ]
    return result


def constant_mask(samples: Sequence[Sample], concept: int) -> NDArray[np.bool_]:
    """Find the constant mask that scores best on the training images: what position gives."""
    masks = np.stack(
        [_resized(truth_of(sample, concept), (_MEAN_SIDE, _MEAN_SIDE)) for sample in samples]
    )
    mean = masks.mean(axis=0)
    best: NDArray[np.bool_] = mean >= mean.max()
    highest = 0.0
    for threshold in mean.max() * np.linspace(0.1, 0.8, 15):
        candidate = mean >= threshold
        score = float(np.mean([metrics.dice(candidate, mask) for mask in masks]))
        if score > highest:
            best, highest = candidate, score
    return best


def _resized(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    enough: NDArray[np.bool_] = np.asarray(resized) > 127
    return enough


def measure_volumes(engine: Engine, split: Split, recipe: Recipe) -> dict[str, tuple[float, ...]]:
    """Dice over whole volumes, through the engine with its gates: what a user gets.

    A target that is called absent scores 0.
    """
    result: dict[str, list[float]] = {}
    series: dict[str, list[Sample]] = {}
    for sample in split.test:
        if sample.series:
            series.setdefault(sample.series, []).append(sample)
    for slices in list(series.values())[:_VOLUMES]:
        modality = slices[0].modality
        names = [t.name for t in engine.card.targets if t.modality == modality]
        found = engine.segment(
            np.stack([s.image for s in slices]).astype(np.float32),
            modality=modality,
            kind="volume",
            targets=names,
            spacing=(1.0, 1.0, 1.0),
        )
        labels = np.stack([s.mask for s in slices])
        for finding in found.findings:
            index = recipe.index(f"{finding.target}, {modality}")
            values = {v for s in slices for v in s.present.get(index, ())}
            truth = np.isin(labels, sorted(values))
            if truth.any():
                mask = finding.mask if finding.mask is not None else np.zeros_like(truth)
                result.setdefault(recipe.concepts[index].key, []).append(metrics.dice(mask, truth))
    return {key: tuple(values) for key, values in result.items()}


def measure_phantoms(engine: Engine) -> list[tuple[int, float, float]]:
    """Seed, Dice and relative volume error on phantoms that were never trained on."""
    if engine.card.target("CT", "phantom insert") is None:
        return []
    rows = []
    for seed in _PHANTOM_SEEDS:
        phantom = generate_phantom(seed, inserts=2)
        finding = engine.segment(
            phantom.volume,
            modality="CT",
            kind="volume",
            targets=["phantom insert"],
            spacing=phantom.spacing,
        ).findings[0]
        truth = phantom.labels > 0
        mask = finding.mask if finding.mask is not None else np.zeros_like(truth)
        voxel = float(np.prod(phantom.spacing))
        known = sum(insert.volume for insert in phantom.inserts)
        rows.append(
            (seed, metrics.dice(mask, truth), metrics.volume_error(mask.sum() * voxel, known))
        )
    return rows


def release(
    run: Path, config: Path, data: Path, out: Path, report: Path | None = None
) -> ModelCard:
    """Export, measure, calibrate and describe a training run.

    Parameters
    ----------
    run
        Folder of `learning.train`.
    config
        The recipe of the run.
    data
        Folder of the training sets.
    out
        Model folder to write: weights, configuration, tokenizer, card.
    report
        Where to write the results table; ``None`` writes none.
    """
    recipe = load_recipe(config)
    export(run, recipe, out)
    split = load_split(recipe, data)
    # A first card, of nothing, because the engine refuses to work without one.
    write_card(build_card(recipe, []), out)
    # The stored weights are rounded: what is measured is what is shipped.
    checkpoint = load_checkpoint(out)
    samples = thinned(split.test)
    images = [sample for sample in shifted(samples, recipe.seed) if sample.present]
    ask = asker(checkpoint.model, checkpoint.tokenizer, recipe)
    aside, predictions, moved = (
        list(predict(ask, recipe, part)) for part in (thinned(split.calibration), samples, images)
    )
    constant = constant_masks(split.train, recipe)
    cuts = cuts_of(aside, recipe)
    measured = measure(predictions, moved, cuts, constant, recipe)
    fitted = calibrations(measure(aside, [], cuts, constant, recipe))
    scores = judged(measured, fitted, recipe, baselines_of(run))
    write_card(build_card(recipe, scores), out)
    engine = Engine.load(out)
    volumes = measure_volumes(engine, split, recipe)
    phantoms = measure_phantoms(engine)
    if phantoms:
        volumes["phantom insert, CT"] = tuple(dice for _, dice, _ in phantoms)
    scores = [item.with_volumes(volumes.get(item.concept.key, ())) for item in scores]
    # Words are taught with one picture each (`learning.spoken_batches`).
    card = build_card(recipe, scores).model_copy(
        update={"prompts": PromptSettings(spoken_slices=1)}
    )
    engine = engine.with_card(card)
    asked = recipe_cases(recipe, data, sides=(Side.CALIBRATION,))
    chosen = choices(hear(engine, itertools.islice(asked, 0, None, _CHOICE_EVERY), recipe))
    tested = itertools.islice(recipe_cases(recipe, data), 0, None, _WORDS_EVERY)
    words = summarise_speech(hear(engine, tested, recipe))
    card = card.model_copy(update={"spoken": spoken_tasks(chosen, words)})
    write_card(card, out)
    if report is not None:
        write_report(report, card, engine.digest, split, phantoms, scores, chosen, words)
    return card


def baselines_of(run: Path) -> dict[str, float]:
    """Concept key to the Dice of the U-Net that was trained beside a run; empty without one."""
    figures = run / FIGURES
    if not figures.is_file():
        return {}
    measured: dict[str, dict[str, float]] = json.loads(figures.read_text(encoding="utf-8"))
    return {key: one["dice"] for key, one in measured.items()}


def main(checkpoint: Path | None = None, data: Path | None = None, out: Path | None = None) -> None:
    """Command line: ``python -m learning.release RUN --config YAML --data DIR --out DIR``."""
    parser = argparse.ArgumentParser(description="Make a model folder of a training run.")
    parser.add_argument("run", type=Path, nargs="?", default=checkpoint or Path("runs/nano"))
    parser.add_argument("--config", type=Path, default=Path("configs/nano.yaml"))
    parser.add_argument("--data", type=Path, default=data or Path("../shared/data/train"))
    parser.add_argument("--out", type=Path, default=out or Path("inference/weights/nano"))
    parser.add_argument("--report", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    torch.set_num_threads(arguments.threads)
    card = release(arguments.run, arguments.config, arguments.data, arguments.out, arguments.report)
    for target in card.targets:
        _LOG.info("%s in %s: %s", target.name, target.modality, target.score)


if __name__ == "__main__":
    main()
