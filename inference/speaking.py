"""Answers in the language model's own words, with the masks that they speak of.

A task is asked in this way only where the card lists it as spoken, with a measured score. Masks
keep to the card all the same: a phrase that names no listed target stays a sentence without one.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference import answers, decoding, prompts
from inference.answers import Piece
from inference.card import CardTarget, ModelCard, SpokenTask
from inference.checkpoints import Checkpoint
from inference.findings import Finding, Presence
from inference.prompts import Whitespace
from inference.regions import marked
from inference.segmenting import Segmenter
from inference.series import Series, View, evenly_spaced
from inference.tasks import REGION_TASKS, Task, TaskKind
from inference.volumes import SliceAnswers, assemble


def question_text(task: Task) -> str:
    """Return what the model is asked, in the words of the published training."""
    anatomy = task.targets[0] if task.targets else ""
    if task.kind in (TaskKind.QUESTION, TaskKind.GROUNDED_QUESTION):
        masks = f" {prompts.MASKS_PLEASE}" if task.kind is TaskKind.GROUNDED_QUESTION else ""
        return task.question + masks
    if task.kind is TaskKind.DISEASE_RECOGNITION and anatomy:
        return prompts.ANATOMY_QUESTION.format(anatomy=anatomy)
    return {
        TaskKind.DISEASE_RECOGNITION: prompts.DISEASE_QUESTION,
        TaskKind.REGION_CLASSIFICATION: prompts.REGION_QUESTION,
        TaskKind.REGION_REPORT: prompts.REGION_REPORT_QUESTION,
        TaskKind.GROUNDED_REPORT: prompts.REPORT_QUESTION,
    }[task.kind]


def speak(
    checkpoint: Checkpoint,
    segmenter: Segmenter,
    series: Series,
    task: Task,
    spoken: SpokenTask,
) -> Generator[float, None, list[Finding]]:
    """Ask one task and read the answer.

    Yields
    ------
    float
        The fraction that is done, after the words and after each batch of masks.
    """
    view = View.of(series, series.policy())
    frames, pictures = _shown(view, task, checkpoint.card.prompts.spoken_slices)
    tokens = segmenter.tokens_of_many(pictures)
    question = question_text(task)
    whitespace = _whitespace(checkpoint.card, task)
    images = pictures.shape[0]
    ids = decoding.encode_question(
        checkpoint.tokenizer, question, tokens.shape[1] // images, whitespace, images
    )
    said = decoding.generate(
        checkpoint.model, checkpoint.tokenizer, tokens, ids.to(tokens.device), spoken.limit
    )
    yield 0.2
    pieces = answers.parse(said.text)
    masks: list[SliceAnswers] = []
    if said.seg_states.shape[0]:
        with torch.inference_mode():
            vectors: Tensor = checkpoint.model.text_hidden_fcs(said.seg_states)
        shown = View(series.only(frames[0]), view.policy, view.low, view.high)
        where = shown if task.region is not None else view
        steps = segmenter.decode_over(where, vectors)
        while True:
            try:
                yield 0.2 + 0.8 * next(steps)
            except StopIteration as finished:
                masks = finished.value
                break
    reader = _Reader(checkpoint.card, series, task, question, said)
    return [reader.finding(piece, masks) for piece in pieces]


def _shown(view: View, task: Task, slices: int) -> tuple[Sequence[int], NDArray[np.uint8]]:
    """Choose the frames that the language model is shown; a region is drawn on its own."""
    if task.region is not None:
        frame = task.region.frame
        picture = view.pictures([frame])[0]
        return [frame], marked(picture, task.region.box)[None]
    frames = evenly_spaced(view.series.frames, slices)
    return frames, view.pictures(frames)


def _whitespace(card: ModelCard, task: Task) -> Whitespace:
    """Line breaks of the card; region prompts always had one after the image."""
    chosen = card.prompts.whitespace
    if task.kind in REGION_TASKS:
        return Whitespace(after_image=True, before_answer=chosen.before_answer)
    return chosen


class _Reader:
    """Turns pieces of an answer into findings."""

    def __init__(
        self, card: ModelCard, series: Series, task: Task, question: str, said: decoding.Generated
    ) -> None:
        self._card, self._series, self._task = card, series, task
        self._question, self._said = question, said

    def finding(self, piece: Piece, masks: Sequence[SliceAnswers]) -> Finding:
        """Read one piece; its mask is kept where the card lists what it speaks of."""
        sentence = piece.sentence or "The model gave no answer in words."
        target = self._target(piece.phrase or piece.sentence)
        answered = masks[piece.seg] if piece.seg is not None and piece.seg < len(masks) else None
        if target is None or answered is None or self._task.kind is TaskKind.QUESTION:
            return self._words(piece, sentence, target)
        series = self._series
        region = self._task.region
        result = assemble(
            answered,
            target,
            kind="images" if region is not None else series.kind,
            grid=series.grid,
            spacing=series.spacing,
        )
        mask, key = result.mask, result.key_frame
        if region is not None and mask is not None:
            whole = np.zeros((series.frames, *series.grid), np.bool_)
            whole[region.frame] = mask[0]
            mask, key = whole, region.frame
        return Finding(
            target=target.name,
            text=sentence,
            phrase=piece.phrase or target.name,
            prompt=self._question,
            presence=result.presence,
            confidence=result.confidence,
            mask=mask,
            key_frame=key,
            predicted_iou=result.predicted_iou,
            task=self._task.kind.value,
        )

    def _words(self, piece: Piece, sentence: str, target: CardTarget | None) -> Finding:
        """State what was said without a mask; how sure the model was of its words is told."""
        return Finding(
            target=target.name if target is not None else "model's answer",
            text=sentence,
            phrase=piece.phrase or sentence,
            prompt=self._question,
            # Words that no mask stands for are for a reader to confirm.
            presence=Presence.UNCERTAIN,
            confidence=min(1.0, self._said.certainty),
            task=self._task.kind.value,
        )

    def _target(self, words: str) -> CardTarget | None:
        """Find the listed target that words name; the longest name counts."""
        lower = words.lower().replace("tumor", "tumour")
        modality = self._series.modality.name
        named = [
            target
            for target in self._card.targets
            if target.modality == modality
            and target.name.lower().replace("tumor", "tumour") in lower
        ]
        return max(named, key=lambda target: len(target.name), default=None)
