"""Forced answers over the slices of a series: targets in, logits and scores out.

Each slice goes through the vision tower and the grounding encoder once; all targets of a batch of
slices are then answered and decoded together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference import decoding, prompts
from inference.architecture import ModelConfig, TilingConfig
from inference.card import CardTarget
from inference.checkpoints import Checkpoint
from inference.intensity import IntensityPolicy
from inference.preparation import prepare
from inference.series import Series, View, blank, evenly_spaced
from inference.volumes import SliceAnswers

_BATCH_PROMPTS: Final = 48
"""Prompts that are decoded together at most; bounds memory, not the answer."""
_BATCH_SLICES: Final = 16
_BATCH_PIXELS: Final = 4 * 1024 * 1024
"""Of the grounding encoder's input: about 1 GB of memory for each of four pictures of 1024."""

Steps = Generator[float, None, list[SliceAnswers]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What N prompts gave on B pictures.

    Attributes
    ----------
    logits
        ``(N, B, h, w)`` float16.
    score, predicted_iou
        ``(N, B)``.
    seg_log_odds
        ``(N, B)`` or ``None``.
    """

    logits: NDArray[np.float16]
    score: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    seg_log_odds: NDArray[np.float32] | None = None


class Segmenter:
    """Decodes prompts with one checkpoint on one device."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._device = device

    @property
    def config(self) -> ModelConfig:
        """Of the model."""
        return self._checkpoint.model.config

    def segment(self, series: Series, targets: Sequence[CardTarget]) -> Steps:
        """Ask every target of every slice; one entry for each target.

        Targets that want their values in another intensity are asked in passes of their own.

        Yields
        ------
        float
            The fraction of the work that is done, after each batch.
        """
        passes: dict[IntensityPolicy, list[int]] = {}
        for number, target in enumerate(targets):
            passes.setdefault(series.policy(target), []).append(number)
        answers: dict[int, SliceAnswers] = {}
        for done, (policy, numbers) in enumerate(passes.items()):
            questions = [series.question(targets[n]) for n in numbers]
            wants_odds = any("seg_log_odds" in targets[n].presence.coefficients for n in numbers)
            steps = self._pass(View.of(series, policy), questions, wants_odds)
            while True:
                try:
                    fraction = next(steps)
                except StopIteration as finished:
                    answers.update(zip(numbers, finished.value, strict=True))
                    break
                yield (done + fraction) / len(passes)
        return [answers[number] for number in range(len(targets))]

    def _pass(self, view: View, questions: Sequence[str], wants_odds: bool) -> Steps:
        slices = self._checkpoint.card.prompts.volume_slices
        fixed: Tensor | None = None
        if slices and view.series.kind == "volume" and view.series.frames > 1:
            fixed = self._volume_vectors(view, questions, slices)
        collected = _Collected(self.config, len(questions), view.series.frames)
        for batch in _batches(view.series.frames, len(questions), self.config):
            pictures = view.pictures(batch)
            if fixed is None:
                part = self._decode(pictures, questions, wants_odds)
            else:
                part = self.decode_vectors(pictures, fixed)
            collected.put(batch, part, blank(pictures))
            yield batch.stop / view.series.frames
        return collected.answers()

    def decode_over(self, view: View, vectors: Tensor) -> Steps:
        """Decode given ``[SEG]`` vectors ``(N, d)`` on every slice; arguments else as `segment`."""
        collected = _Collected(self.config, vectors.shape[0], view.series.frames)
        for batch in _batches(view.series.frames, vectors.shape[0], self.config):
            pictures = view.pictures(batch)
            collected.put(batch, self.decode_vectors(pictures, vectors), blank(pictures))
            yield batch.stop / view.series.frames
        return collected.answers()

    @torch.inference_mode()
    def _decode(
        self, pictures: NDArray[np.uint8], questions: Sequence[str], wants_odds: bool
    ) -> Decoded:
        """Decode N prompts on each of B pictures, each picture with vectors of its own."""
        model, count = self._checkpoint.model, len(questions)
        slices = pictures.shape[0]
        inputs = prepare(pictures, model.config)
        tiles = inputs.tiles.flatten(0, 1).to(self._device)
        tokens = model.image_tokens(tiles).reshape(slices, -1, model.config.language.hidden)
        batch = decoding.encode(
            self._checkpoint.tokenizer,
            questions,
            tokens.shape[1],
            self._checkpoint.card.prompts.whitespace,
        )
        ids = batch.ids.to(self._device).repeat_interleave(slices, dim=0)
        position = batch.seg_position.to(self._device).repeat_interleave(slices)
        states = model.states(tokens.repeat(count, 1, 1), ids)
        row = torch.arange(ids.shape[0], device=self._device)
        odds = None
        if wants_odds:
            seg = decoding.token_id(self._checkpoint.tokenizer, prompts.SEG)
            scores = model.mllm.lm_head(states[row, position - 1]).float()
            rest = torch.cat([scores[:, :seg], scores[:, seg + 1 :]], dim=1).logsumexp(-1)
            odds = (scores[:, seg] - rest).clamp(-30, 30).reshape(count, slices).cpu().numpy()
        vectors = model.text_hidden_fcs(states[row, position])
        decoded = self._ground(inputs.pixels, vectors, count)
        return dataclasses.replace(decoded, seg_log_odds=odds)

    @torch.inference_mode()
    def decode_vectors(self, pictures: NDArray[np.uint8], vectors: Tensor) -> Decoded:
        """Decode the same N vectors ``(N, d)`` on each of B pictures."""
        pixels = prepare(pictures, self.config).pixels
        slices = pictures.shape[0]
        return self._ground(pixels, vectors.repeat_interleave(slices, dim=0), vectors.shape[0])

    def _ground(self, pixels: Tensor, vectors: Tensor, count: int) -> Decoded:
        model, slices = self._checkpoint.model, pixels.shape[0]
        features = model.grounding.encode(pixels.to(self._device))
        image = torch.arange(slices, device=self._device).repeat(count)
        decoded = model.grounding.decode(features, vectors, image)
        logits = decoded.logits.clamp(-100, 100)
        return Decoded(
            logits.reshape(count, slices, *logits.shape[1:]).to(torch.float16).cpu().numpy(),
            decoded.object_score.float().reshape(count, slices).cpu().numpy(),
            decoded.predicted_iou.float().reshape(count, slices).cpu().numpy(),
        )

    @torch.inference_mode()
    def _volume_vectors(self, view: View, questions: Sequence[str], slices: int) -> Tensor:
        """Ask about a whole volume: one vector for each question, from evenly spaced slices."""
        chosen = evenly_spaced(view.series.frames, slices)
        tokens = self.tokens_of_many(view.pictures(chosen))
        model = self._checkpoint.model
        batch = decoding.encode(
            self._checkpoint.tokenizer,
            questions,
            tokens.shape[1] // len(chosen),
            self._checkpoint.card.prompts.whitespace,
            len(chosen),
        )
        return model.seg_vectors(
            tokens.repeat(len(questions), 1, 1),
            batch.ids.to(self._device),
            batch.seg_position.to(self._device),
        )

    @torch.inference_mode()
    def tokens_of_many(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Image tokens ``(1, B * n, hidden)`` of B pictures shown together, one tile each."""
        config = self.config
        if config.tiling is not None and pictures.shape[0] > 1:
            config = dataclasses.replace(config, tiling=TilingConfig(1, 1, thumbnail=False))
        tiles = prepare(pictures, config).tiles.flatten(0, 1).to(self._device)
        return self._checkpoint.model.image_tokens(tiles).flatten(0, 1)[None]


class _Collected:
    """Answers of all slices, filled batch by batch."""

    def __init__(self, config: ModelConfig, count: int, frames: int) -> None:
        side = config.grounding.image_size // 4
        self._logits = np.empty((count, frames, side, side), np.float16)
        self._score = np.empty((count, frames), np.float32)
        self._iou = np.empty((count, frames), np.float32)
        self._odds: NDArray[np.float32] | None = None
        self._blank = np.empty(frames, np.bool_)
        self._via = None if config.tiling is None else config.grounding.image_size

    def put(self, batch: slice, part: Decoded, blank_frames: NDArray[np.bool_]) -> None:
        """Keep one batch."""
        self._logits[:, batch], self._score[:, batch] = part.logits, part.score
        self._iou[:, batch], self._blank[batch] = part.predicted_iou, blank_frames
        if part.seg_log_odds is not None:
            if self._odds is None:
                self._odds = np.zeros_like(self._score)
            self._odds[:, batch] = part.seg_log_odds

    def answers(self) -> list[SliceAnswers]:
        """Return one entry for each prompt."""
        return [
            SliceAnswers(
                self._logits[n],
                self._score[n],
                self._iou[n],
                self._blank,
                self._via,
                None if self._odds is None else self._odds[n],
            )
            for n in range(self._logits.shape[0])
        ]


def _batches(frames: int, targets: int, config: ModelConfig) -> Iterator[slice]:
    """Slices of the frame axis, sized so that a batch's prompts and input pixels stay bounded."""
    side = config.grounding.image_size
    size = max(1, min(_BATCH_SLICES, _BATCH_PROMPTS // targets, _BATCH_PIXELS // side**2))
    for start in range(0, frames, size):
        yield slice(start, min(start + size, frames))
