"""Forced answers: from prompts to token ids, one pass and no generation.

The answer to a segmentation prompt is known but for its mask ("It is [SEG]."), so it is fed as
input and only the state at ``[SEG]`` is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from inference import tasks


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Right-padded prompts.

    Attributes
    ----------
    ids
        ``(P, L)`` int64.
    seg_position
        ``(P,)`` index of ``[SEG]`` in each row.
    """

    ids: Tensor
    seg_position: Tensor


def encode(tokenizer: Tokenizer, questions: Sequence[str], image_tokens: int) -> TokenBatch:
    """Tokenise questions with their forced answers.

    Raises
    ------
    ValueError
        When a question does not come out with exactly one ``[SEG]`` and the right number of image
        tokens, e.g. because it holds template tokens itself.
    """
    seg, context = (token_id(tokenizer, token) for token in (tasks.SEG, tasks.IMAGE_CONTEXT))
    rows: list[list[int]] = []
    for question in questions:
        text = tasks.chat(question, image_tokens)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        if ids.count(seg) != 1 or ids.count(context) != image_tokens:
            raise ValueError(
                f"prompt {question[:80]!r} holds template tokens: {ids.count(seg)} {tasks.SEG} and "
                f"{ids.count(context)} image tokens where 1 and {image_tokens} belong"
            )
        rows.append(ids)
    length = max(len(ids) for ids in rows)
    # The padding value only has to be no image token: causal attention never looks at it.
    padded = torch.full((len(rows), length), seg, dtype=torch.long)
    for row, ids in enumerate(rows):
        padded[row, : len(ids)] = torch.tensor(ids)
    position = torch.tensor([ids.index(seg) for ids in rows])
    return TokenBatch(ids=padded, seg_position=position)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Look up a special token.

    Raises
    ------
    ValueError
        When the tokenizer has no such token.
    """
    number: int | None = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no token {token}: its files are not this model's")
    return number
