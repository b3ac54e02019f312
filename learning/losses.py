"""Losses of mask, presence and overlap, and the auxiliary heads that training throws away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.architecture import Decoded, ImageFeatures
from learning.batches import Batch


@dataclass(frozen=True, slots=True)
class Losses:
    """Parts of the loss; ``total`` is what is minimised, the rest is logged."""

    total: Tensor
    mask: Tensor
    dice: Tensor
    presence: Tensor


def soft_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the Dice of probabilities, for each of N maps, with one pixel of smoothing."""
    probability = logits.sigmoid().flatten(1)
    flat = truth.flatten(1)
    overlap = (probability * flat).sum(1)
    return 1.0 - (2.0 * overlap + 1.0) / (probability.sum(1) + flat.sum(1) + 1.0)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean under weights; 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def mask_losses(logits: Tensor, truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross entropy and soft Dice of ``(N, h, w)`` logits brought to the truth's grid."""
    size = truth.shape[-2:]
    brought = functional.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[
        :, 0
    ]
    entropy = functional.binary_cross_entropy_with_logits(brought, truth, reduction="none").mean(
        (1, 2)
    )
    return weighted_mean(entropy, weight), weighted_mean(soft_dice(brought, truth), weight)


def decoder_loss(decoded: Decoded, batch: Batch) -> Losses:
    """Loss of the mask decoder: masks of present targets only, presence of all prompts."""
    truth, present = batch.mask.flatten(0, 1), batch.present.flatten()
    weight = batch.weight.flatten()
    logits = decoded.logits.float()
    entropy, dice = mask_losses(logits, truth, present * weight)
    score = functional.binary_cross_entropy_with_logits(
        decoded.object_score.float(), present, reduction="none"
    )
    presence = weighted_mean(score, weight)
    error = decoded.predicted_iou.float() - _iou(logits, truth)
    iou = weighted_mean(error**2, present * weight)
    return Losses(2.0 * entropy + dice + presence + 0.5 * iou, entropy, dice, presence)


def _iou(logits: Tensor, truth: Tensor) -> Tensor:
    """Overlap of the thresholded masks, at the decoder's own size."""
    with torch.no_grad():
        target = functional.interpolate(truth[:, None], logits.shape[-2:], mode="area")[:, 0] > 0.5
        found = logits > 0
        union = (target | found).sum((1, 2)).clamp(min=1)
        return (target & found).sum((1, 2)) / union


def _prompted(head: nn.Conv2d, features: Tensor, concept: Tensor) -> Tensor:
    """Apply a 1x1 convolution for the prompted concepts alone: ``(B, P, h, w)``."""
    kernel = functional.embedding(concept, head.weight.flatten(1))
    bias = functional.embedding(concept, cast(Tensor, head.bias)[:, None])
    maps = torch.bmm(kernel.to(features.dtype), features.flatten(2)) + bias
    return maps.reshape(*concept.shape, *features.shape[2:])


class AuxiliaryHeads(nn.Module):
    """Maps of every concept straight from the feature pyramid.

    They give the trunk a short way to the truth; masks learn faster. Not part of the model.
    """

    def __init__(self, d_model: int, concepts: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(d_model, concepts, 1)
        self.coarse = nn.Conv2d(d_model, concepts, 1)
        self.presence = nn.Linear(2 * d_model, concepts)

    def loss(self, features: ImageFeatures, batch: Batch) -> Tensor:
        """Dense and pooled losses of the prompted concepts."""
        weight, present = batch.weight.flatten(), batch.present.flatten()
        total = batch.weight.new_zeros(())
        for level, head in ((0, self.fine), (2, self.coarse)):
            maps = _prompted(head, features.pyramid[level], batch.concept).float().flatten(0, 1)
            truth = functional.interpolate(batch.mask, maps.shape[-2:], mode="area").flatten(0, 1)
            entropy = functional.binary_cross_entropy_with_logits(
                maps, truth, reduction="none"
            ).mean((1, 2))
            dice = weighted_mean(soft_dice(maps, truth), present * weight)
            total = total + 2.0 * weighted_mean(entropy, weight) + 0.5 * dice
        coarse = features.pyramid[2].float()
        pooled = torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3))], dim=1)
        scores = self.presence(pooled).float().gather(1, batch.concept).flatten()
        entropy = functional.binary_cross_entropy_with_logits(scores, present, reduction="none")
        return total + 0.5 * weighted_mean(entropy, weight)
