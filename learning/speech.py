"""The loss of answers in words: their tokens, and the masks that their ``[SEG]`` stand for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inference.architecture import ImageFeatures, UniBiomed
from learning.losses import Losses, decoder_loss
from learning.spoken_batches import SpokenBatch

_WORDS = 0.1
"""Weight of an answer's whole log likelihood, beside that of its masks."""


def speech_loss(
    model: UniBiomed, features: ImageFeatures, batch: SpokenBatch
) -> tuple[Tensor, Losses]:
    """Return the loss of the words, and that of the masks.

    An answer counts by the sum over its tokens: the few that carry what was seen weigh the same in
    a short answer and in a long one.

    Parameters
    ----------
    features
        Of the batch's pictures, from the grounding encoder.
    """
    states = model.states(model.image_tokens(batch.shown), batch.ids)
    scores = model.mllm.lm_head(states[:, :-1]).float()
    entropy = functional.cross_entropy(
        scores.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
    )
    words = (entropy * batch.answer[:, 1:].flatten()).sum() / batch.ids.shape[0]
    count, spoken = batch.seg_position.shape
    row = torch.arange(count, device=batch.ids.device)[:, None]
    vectors = model.text_hidden_fcs(states[row, batch.seg_position]).flatten(0, 1)
    image = torch.arange(count, device=batch.ids.device).repeat_interleave(spoken)
    decoded = model.grounding.decode(features, vectors, image)
    return _WORDS * words, decoder_loss(decoded, batch.masks_alone())
