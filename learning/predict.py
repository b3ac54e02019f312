"""Run a model over held-out images and keep what it said, before any threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model gives for every concept of B images.

    Attributes
    ----------
    logits
        ``(B, K, h, w)``.
    score, predicted_iou
        ``(B, K)``.
    """

    logits: torch.Tensor
    score: torch.Tensor
    predicted_iou: torch.Tensor


Ask = Callable[[torch.Tensor], Asked]
"""From normalised images ``(B, 3, s, s)`` to what a model says of them."""


def asker(model: UniBiomed, tokenizer: Tokenizer, recipe: Recipe) -> Ask:
    """Put every concept's prompt to a model, in its first wording."""
    questions = [prompts.TargetPrompt(c.target, c.modality).prompt for c in recipe.concepts]
    batch = decoding.encode(tokenizer, questions, model.config.image_tokens)
    concepts = len(questions)

    def ask(pixels: torch.Tensor) -> Asked:
        count = pixels.shape[0]
        tokens = model.image_tokens(pixels).repeat_interleave(concepts, dim=0)
        vectors = model.seg_vectors(
            tokens, batch.ids.repeat(count, 1), batch.seg_position.repeat(count)
        )
        image = torch.arange(count).repeat_interleave(concepts)
        decoded = model.grounding.decode(model.grounding.encode(pixels), vectors, image)
        return Asked(
            logits=decoded.logits.reshape(count, concepts, *decoded.logits.shape[1:]),
            score=decoded.object_score.reshape(count, concepts),
            predicted_iou=decoded.predicted_iou.reshape(count, concepts),
        )

    return ask


@torch.inference_mode()
def predict(ask: Ask, recipe: Recipe, samples: Sequence[Sample]) -> Iterator[Prediction]:
    """Ask every concept of every image, eight images at a time."""
    size = int(recipe.architecture.grounding["image_size"])  # type: ignore[arg-type]
    for start in range(0, len(samples), 8):
        chosen = samples[start : start + 8]
        asked = ask(torch.cat([squash(sample.image[None], size) for sample in chosen]))
        scores, overlaps = (part.double().numpy() for part in (asked.score, asked.predicted_iou))
        for number, sample in enumerate(chosen):
            logits = asked.logits[number]
            cuts = {
                concept: _cut(logits[concept], truth_of(sample, concept))
                for concept in sample.present
            }
            certainty, extent = mask_statistics(logits.numpy())
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
