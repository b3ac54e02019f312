"""Run a model over held-out images and keep what it said, before any threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from inference import decoding, prompts
from inference.architecture import UniBiomed
from inference.presence import mask_statistics
from inference.tiling import squash, to_source
from learning.datasets import Sample
from learning.metrics import dice
from learning.recipe import Recipe

THRESHOLDS = tuple(float(value) for value in np.linspace(-1.5, 1.5, 13))
"""Logits at which masks are cut to find the best."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answers to every concept for one image.

    Attributes
    ----------
    sample
        The image.
    score
        ``(K,)`` object scores.
    cuts
        Concept index to Dice and area of the mask at the image's own size, for every threshold of
        `THRESHOLDS`, ``(2, T)``; for concepts that the image shows.
    further
        ``(K, len(learning.evidence.NAMES))`` evidence beside the object score.
    """

    sample: Sample
    score: NDArray[np.float64]
    cuts: dict[int, NDArray[np.float64]]
    further: NDArray[np.float64]


@torch.inference_mode()
def predict(
    model: UniBiomed, tokenizer: Tokenizer, recipe: Recipe, samples: Sequence[Sample]
) -> Iterator[Prediction]:
    """Ask every concept of every image, eight images at a time."""
    questions = [prompts.TargetPrompt(c.target, c.modality).prompt for c in recipe.concepts]
    batch = decoding.encode(tokenizer, questions, model.config.image_tokens)
    size = model.config.grounding.image_size
    count = len(questions)
    for start in range(0, len(samples), 8):
        chosen = samples[start : start + 8]
        pixels = torch.cat([squash(sample.image[None], size) for sample in chosen])
        tokens = model.image_tokens(pixels).repeat_interleave(count, dim=0)
        vectors = model.seg_vectors(
            tokens, batch.ids.repeat(len(chosen), 1), batch.seg_position.repeat(len(chosen))
        )
        image = torch.arange(len(chosen)).repeat_interleave(count)
        decoded = model.grounding.decode(model.grounding.encode(pixels), vectors, image)
        scores = decoded.object_score.reshape(len(chosen), count).double().numpy()
        overlaps = decoded.predicted_iou.reshape(len(chosen), count).double().numpy()
        logits = decoded.logits.reshape(len(chosen), count, *decoded.logits.shape[1:])
        for number, sample in enumerate(chosen):
            cuts = {
                concept: _cut(logits[number, concept], truth_of(sample, concept))
                for concept in sample.present
            }
            certainty, extent = mask_statistics(logits[number].numpy())
            further = np.column_stack([overlaps[number], certainty, extent])
            yield Prediction(sample, scores[number], cuts, further)


def truth_of(sample: Sample, concept: int) -> NDArray[np.bool_]:
    """Return the true mask of a concept that a sample shows."""
    return np.isin(sample.mask, sample.present[concept])


def _cut(logits: torch.Tensor, truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice and area of the mask at every threshold."""
    upsampled = to_source(logits[None], *truth.shape)[0].numpy()
    masks = [upsampled > threshold for threshold in THRESHOLDS]
    return np.array([[dice(mask, truth) for mask in masks], [mask.sum() for mask in masks]])
