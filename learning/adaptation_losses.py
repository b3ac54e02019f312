"""Losses of the fine-tuning: the answer's words, and masks at points where they are least sure.

Point sampling as in PointRend (Kirillov et al., CVPR 2020) and Mask2Former.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from learning.adaptation_recipe import LossSettings


def language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the next token where it belongs to an answer.

    Parameters
    ----------
    logits
        ``(B, L, V)``.
    labels
        ``(B, L)``, -100 where nothing is asked.
    """
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
    )


def sample_points(logits: Tensor, settings: LossSettings) -> Tensor:
    """Draw points ``(N, P, 2)`` in 0..1, most of them where the logits are nearest to 0."""
    count = settings.points
    many = torch.rand(logits.shape[0], int(count * settings.oversample), 2, device=logits.device)
    unsure = -at_points(logits, many).abs()
    chosen = int(count * settings.uncertain)
    place = unsure.topk(chosen, dim=1).indices
    hard = many.gather(1, place[..., None].expand(-1, -1, 2))
    rest = torch.rand(logits.shape[0], count - chosen, 2, device=logits.device)
    return torch.cat([hard, rest], dim=1)


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Values of ``(N, h, w)`` at points ``(N, P, 2)`` in 0..1 (x, y), bilinear: ``(N, P)``."""
    sampled = functional.grid_sample(
        maps[:, None].float(), 2.0 * points[:, :, None] - 1.0, align_corners=False
    )
    return sampled[:, 0, :, 0]


def mask_loss(logits: Tensor, truth: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """Weighted cross entropy and Dice of masks at sampled points.

    Parameters
    ----------
    logits, truth
        ``(N, h, w)``; truth is 0 or 1.
    """
    with torch.no_grad():
        points = sample_points(logits.float(), settings)
        expected = at_points(truth, points)
    found = at_points(logits, points)
    entropy = functional.binary_cross_entropy_with_logits(found, expected)
    probability = found.sigmoid()
    overlap = 2.0 * (probability * expected).sum(1) + 1.0
    dice = 1.0 - overlap / (probability.sum(1) + expected.sum(1) + 1.0)
    return settings.mask * entropy, settings.dice * dice.mean()
