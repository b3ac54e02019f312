"""Batches that ask for masks and for words: each picture with one question and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from inference import decoding, prompts
from inference.prompts import Whitespace
from inference.regions import LINE
from inference.tasks import TaskKind
from inference.tiling import normalise
from learning.batches import MIN_AREA, Batch, BatchMaker, Drawn
from learning.datasets import Sample
from learning.dialogues import Dialogue, Scene, Seen, centre_of, distinct, draw_dialogue
from learning.recipe import Recipe

_LENGTH = 288
"""Tokens of question and answer, all rows alike: a recorded step has fixed shapes."""
_MASKS = 3
"""``[SEG]`` of an answer at most, and targets of a picture that are spoken of."""


@dataclass(frozen=True, slots=True)
class SpokenBatch(Batch):
    """A batch of prompts for masks with one dialogue for each of its B pictures.

    Attributes
    ----------
    shown
        ``(B, 3, s, s)`` normalised pictures with the green box of a marked region.
    ids, answer
        ``(B, L)`` tokens of question and answer, and 1 where a token belongs to the answer.
    seg_position
        ``(B, S)`` where each ``[SEG]`` of the answer stands.
    spoken_mask, spoken_weight
        ``(B, S, s / 2, s / 2)`` and ``(B, S)``: what it speaks of; weight 0 where there is none.
    """

    shown: Tensor
    ids: Tensor
    answer: Tensor
    seg_position: Tensor
    spoken_mask: Tensor
    spoken_weight: Tensor

    def masks_alone(self) -> Batch:
        """Return what the spoken ``[SEG]`` are held against, as a batch of prompts."""
        return Batch(
            pixels=self.pixels,
            concept=self.seg_position,
            wording=self.seg_position,
            mask=self.spoken_mask,
            present=self.spoken_weight,
            weight=self.spoken_weight,
        )


class SpokenBatchMaker:
    """Draws batches with a dialogue for each picture.

    Parameters
    ----------
    maker
        Draws and distorts the pictures.
    image_tokens
        Of one picture.
    """

    def __init__(
        self, maker: BatchMaker, recipe: Recipe, seed: int, tokenizer: Tokenizer, image_tokens: int
    ) -> None:
        self._maker, self._recipe = maker, recipe
        self._draw = np.random.default_rng((seed, 1))
        self._tokenizer, self._image_tokens = tokenizer, image_tokens
        self._organ = {source.folder: source.organ for source in recipe.sources}
        self._seg = decoding.token_id(tokenizer, prompts.SEG)
        self._known: dict[str, list[int]] = {}

    def batch(self) -> SpokenBatch:
        """Draw one batch."""
        numbers, concepts = self._maker.choose()
        slots = [self._slots(self._maker.sample(number)) for number in numbers]
        drawn = self._maker.drawn(numbers, [[*c, *s] for c, s in zip(concepts, slots, strict=True)])
        asked = len(concepts[0])
        scenes = self._scenes(drawn, [len(slot) for slot in slots], asked)
        dialogues, rows = zip(*(self._say(scene) for scene in scenes), strict=True)
        columns = np.zeros((len(rows), _MASKS), np.int64)
        weight = np.zeros((len(rows), _MASKS), np.float32)
        position = np.zeros((len(rows), _MASKS), np.int64)
        ids = np.full((len(rows), _LENGTH), self._seg, np.int64)
        answer = np.zeros((len(rows), _LENGTH), np.float32)
        for number, (dialogue, (question, said)) in enumerate(zip(dialogues, rows, strict=True)):
            whole = np.array([*question, *said])
            ids[number, : whole.size] = whole
            answer[number, len(question) : whole.size] = 1.0
            count = len(dialogue.masks)
            columns[number, :count], weight[number, :count] = dialogue.masks, 1.0
            position[number, :count] = np.flatnonzero(whole == self._seg)
        index = self._maker.put(columns)[:, :, None, None].expand(-1, -1, *drawn.masks.shape[2:])
        plain = drawn.batch(asked)
        return SpokenBatch(
            **{part.name: getattr(plain, part.name) for part in fields(Batch)},
            shown=normalise(self._marked(drawn, dialogues)),
            ids=self._maker.put(ids),
            answer=self._maker.put(answer),
            seg_position=self._maker.put(position),
            spoken_mask=drawn.masks.gather(1, index),
            spoken_weight=self._maker.put(weight),
        )

    def _slots(self, sample: Sample) -> list[int]:
        """Choose what a picture is spoken of: what it shows, filled up to one number."""
        shown = sorted(sample.present)
        if len(shown) > _MASKS:
            shown = sorted(self._draw.permutation(shown)[:_MASKS].tolist())
        return [*shown, *[0] * (_MASKS - len(shown))]

    def _scenes(self, drawn: Drawn, counts: Sequence[int], asked: int) -> list[Scene]:
        """Measure the masks as they are shown; one transfer for the whole batch."""
        rows, columns = drawn.masks.sum(3).cpu().numpy(), drawn.masks.sum(2).cpu().numpy()
        scenes = []
        for number, sample in enumerate(drawn.samples):
            measured = [
                self._seen(concept, sample, rows[number, place], columns[number, place], place)
                for place, concept in enumerate(drawn.concepts[number])
            ]
            areas = rows[number].sum(axis=1) * 4
            clear = [area == 0 or area >= MIN_AREA for area in areas]
            shown = range(asked, asked + min(len(sample.present), counts[number]))
            scenes.append(
                Scene(
                    modality=sample.modality,
                    organ=self._organ[sample.source],
                    seen=distinct([measured[place] for place in shown if measured[place].part]),
                    asked=tuple(measured[place] for place in range(asked) if clear[place]),
                    sure=all(clear[place] for place in shown) and len(sample.present) <= _MASKS,
                )
            )
        return scenes

    def _seen(
        self,
        concept: int,
        sample: Sample,
        rows: NDArray[np.float32],
        columns: NDArray[np.float32],
        place: int,
    ) -> Seen:
        known = self._recipe.concepts[concept]
        values = sample.present.get(concept, ())
        total = float(rows.sum()) if values else 0.0
        return Seen(
            name=known.target,
            modality=known.modality,
            lesion=known.category == "lesion",
            part=total / (rows.size * columns.size),
            down=centre_of(rows) if total else 0.0,
            right=centre_of(columns) if total else 0.0,
            column=place,
            values=frozenset(values),
        )

    def _say(self, scene: Scene) -> tuple[Dialogue, tuple[list[int], list[int]]]:
        """Draw a dialogue that fits into a row, and its tokens."""
        while True:
            dialogue = draw_dialogue(scene, self._draw)
            region = dialogue.task is TaskKind.REGION_CLASSIFICATION
            text = prompts.chat(
                dialogue.question, self._image_tokens, Whitespace(after_image=region)
            )
            question, said = self._encoded(text), self._encoded(dialogue.answer + prompts.END)
            if len(question) + len(said) <= _LENGTH and len(dialogue.masks) <= _MASKS:
                return dialogue, (question, said)

    def _encoded(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return self._known[text]

    def _marked(self, drawn: Drawn, dialogues: Sequence[Dialogue]) -> Tensor:
        """Draw the green box where a dialogue speaks of a region.

        As wide as `inference.regions.marked` draws it on the picture's own grid, or thinner: it is
        not known how much larger the source was.
        """
        pictures = drawn.pixels
        side = pictures.shape[2]
        boxes = np.zeros((len(dialogues), 6), np.float32)
        marginals = [drawn.masks.sum(axis).cpu().numpy() > 0 for axis in (3, 2)]
        for number, dialogue in enumerate(dialogues):
            if dialogue.region is None:
                continue
            shape = drawn.samples[number].mask.shape
            thin = self._draw.uniform(0.5, 1.0, 2)
            wide = [max(1.0, thin[axis] * LINE * side / shape[axis]) for axis in (0, 1)]
            if dialogue.region < 0:
                low = self._draw.uniform(0.0, 0.7, 2)
                high = low + self._draw.uniform(0.1, 0.3, 2)
                edges = [low[0] * side, low[1] * side, high[0] * side, high[1] * side]
            else:
                filled = [np.flatnonzero(part[number, dialogue.region]) * 2 for part in marginals]
                edges = [filled[0][0], filled[1][0], filled[0][-1] + 2, filled[1][-1] + 2]
            boxes[number] = [*edges, *wide]
        green = torch.tensor([0.0, 1.0, 0.0], device=pictures.device)[None, :, None, None]
        return torch.where(_outline(self._maker.put(boxes), side), green, pictures)


def _outline(boxes: Tensor, side: int) -> Tensor:
    """Pixels ``(B, 1, s, s)`` of the lines just inside boxes (top, left, bottom, right, widths)."""
    place = torch.arange(side, device=boxes.device).float()
    top, left, bottom, right, tall, wide = (edge[:, None] for edge in boxes.unbind(1))

    def inside(low: Tensor, high: Tensor) -> Tensor:
        return (place >= low) & (place < high)

    box = inside(top, bottom)[:, :, None] & inside(left, right)[:, None, :]
    core = (
        inside(top + tall, bottom - tall)[:, :, None]
        & inside(left + wide, right - wide)[:, None, :]
    )
    return (box & ~core)[:, None]
