"""From examples to batches of the fine-tuning: token ids, answers, pictures and masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from inference import prompts
from inference.architecture import ModelConfig, TilingConfig
from inference.card import ModelCard
from inference.preparation import prepare
from learning.adaptation_recipe import Adaptation, TrainingSet
from learning.cases import DataError
from learning.examples import READERS, Example


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example, ready for the model.

    Attributes
    ----------
    ids
        ``(L,)`` question and answer.
    answer_from
        Where the answer begins.
    tiles
        ``(T, 3, v, v)``.
    pixels
        ``(F, 3, s, s)`` for the grounding encoder; ``None`` for an answer without a mask.
    masks
        ``(F, s / 4, s / 4)`` 0 or 1.
    """

    ids: Tensor
    answer_from: int
    tiles: Tensor
    pixels: Tensor | None
    masks: Tensor | None


class Examples(Dataset[Encoded]):
    """All examples of a run; question and answer are drawn by the place and the seed.

    Raises
    ------
    learning.cases.DataError
        When a set cannot be read.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        config: ModelConfig,
        card: ModelCard,
        recipe: Adaptation,
    ) -> None:
        self._examples = examples
        self._tokenizer = tokenizer
        self._config = config
        self._whitespace = card.prompts.whitespace
        self._recipe = recipe

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._examples)

    def __getitem__(self, place: int) -> Encoded:
        """Read and encode one example."""
        example = self._examples[place]
        draw = np.random.default_rng((self._recipe.seed, place))
        question = example.questions[int(draw.integers(len(example.questions)))]
        answer = example.answers[int(draw.integers(len(example.answers)))]
        shown = example.load()
        config, frames = self._config, shown.pictures.shape[0]
        if config.tiling is not None and frames > 1:
            config = dataclasses.replace(config, tiling=TilingConfig(1, 1, thumbnail=False))
        inputs = prepare(shown.pictures, config)
        tiles = inputs.tiles.flatten(0, 1)
        tokens = tiles.shape[0] * config.image_tokens
        asked = prompts.chat(question, tokens // frames, self._whitespace, frames)
        first = self._ids(asked)
        whole = first + self._ids(answer + prompts.END)
        # Room for the whole answer: a cut one would teach to stop in the middle.
        if len(whole) > min(self._recipe.max_length, config.language.positions):
            raise ValueError(
                f"an example of {len(whole)} tokens is longer than the model's or recipe's limit: "
                f"{question[:60]!r}"
            )
        has_mask = prompts.SEG in answer and shown.masks is not None
        return Encoded(
            ids=torch.tensor(whole),
            answer_from=len(first),
            tiles=tiles,
            pixels=inputs.pixels if has_mask else None,
            masks=self._reduced(shown.masks) if has_mask and shown.masks is not None else None,
        )

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _reduced(self, masks: np.ndarray) -> Tensor:
        """Bring masks to the decoder's own size, nearest as in the published training."""
        side = self._config.grounding.image_size // 4
        planes = torch.from_numpy(masks.astype(np.float32))[:, None]
        return torch.nn.functional.interpolate(planes, (side, side), mode="nearest")[:, 0]


@dataclass(frozen=True, slots=True)
class AdaptationBatch:
    """Examples side by side.

    Attributes
    ----------
    ids
        ``(B, L)`` padded on the right.
    labels
        ``(B, L)`` the ids of the answers; -100 elsewhere.
    tiles
        ``(T, 3, v, v)`` of all examples, one after the other.
    pixels, masks
        Of all frames of all examples with a mask; empty where there are none.
    example
        ``(F,)`` index of each frame's example.
    """

    ids: Tensor
    labels: Tensor
    tiles: Tensor
    pixels: Tensor
    masks: Tensor
    example: Tensor


def collate(items: Sequence[Encoded]) -> AdaptationBatch:
    """Pad and join examples; padding repeats the last token, which causal attention never sees."""
    length = max(item.ids.numel() for item in items)
    ids = torch.stack(
        [torch.cat([i.ids, i.ids[-1:].expand(length - i.ids.numel())]) for i in items]
    )
    labels = torch.full_like(ids, -100)
    for row, item in enumerate(items):
        labels[row, item.answer_from : item.ids.numel()] = item.ids[item.answer_from :]
    shown = [(row, item) for row, item in enumerate(items) if item.pixels is not None]
    empty = torch.zeros(0)
    return AdaptationBatch(
        ids=ids,
        labels=labels,
        tiles=torch.cat([item.tiles for item in items]),
        pixels=torch.cat([i.pixels for _, i in shown if i.pixels is not None]) if shown else empty,
        masks=torch.cat([i.masks for _, i in shown if i.masks is not None]) if shown else empty,
        example=torch.cat(
            [
                torch.full((item.pixels.shape[0],), row)
                for row, item in shown
                if item.pixels is not None
            ]
        )
        if shown
        else empty.long(),
    )


DicomReader = Callable[[TrainingSet, Path], Iterator[Example]]
"""Reads a folder of DICOM series with masks; handed in, because this room speaks no DICOM."""


def read_sets(
    recipe: Adaptation, data: Path, read_dicom: DicomReader | None = None
) -> list[Example]:
    """Read every set, repeated as the recipe says.

    Raises
    ------
    DataError
        When a set is not there or not in its form, or all are empty.
    """
    result: list[Example] = []
    for entry in recipe.sets:
        found = list(_read(entry, data / entry.path, read_dicom)) * entry.repeat
        if found and len(found) < entry.at_least:
            found = (found * (entry.at_least // len(found) + 1))[: entry.at_least]
        result += found
    if not result:
        raise DataError(f"the sets of the recipe under {data} hold no example")
    return result


def _read(entry: TrainingSet, path: Path, read_dicom: DicomReader | None) -> Iterator[Example]:
    if entry.format != "dicom":
        return READERS[entry.format](path)
    if read_dicom is None:
        raise DataError(f"{path} is DICOM: train with the command unibiomed-node train")
    return read_dicom(entry, path)
