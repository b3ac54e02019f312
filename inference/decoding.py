"""From questions to token ids, and from a model's next tokens to its answer.

The answer to a segmentation prompt is known but for its mask ("It is [SEG]."), so it is fed as
input in one pass and only the state at ``[SEG]`` is read. All other answers are generated token by
token: greedy, with a cache of keys and values, so that the same question gives the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DynamicCache

from inference import prompts
from inference.architecture import UniBiomed
from inference.errors import FinalInferenceError
from inference.prompts import AS_IN_DEMOS, Whitespace

_TAIL: Final = 16
"""Last tokens whose text is looked at for the template's end mark, which may be several tokens."""


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


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer in a model's own words.

    Attributes
    ----------
    text
        With special tokens, without the end mark.
    seg_states
        ``(S, hidden)`` state at each ``[SEG]`` of the text, where it is the input token.
    seg_log_odds
        Of each ``[SEG]`` when it was chosen.
    certainty
        Geometric mean of the chosen tokens' probabilities, 0..1.
    complete
        Whether the model ended by itself, and not at the limit.
    """

    text: str
    seg_states: Tensor
    seg_log_odds: tuple[float, ...]
    certainty: float
    complete: bool


def encode(
    tokenizer: Tokenizer,
    questions: Sequence[str],
    image_tokens: int,
    whitespace: Whitespace = AS_IN_DEMOS,
    images: int = 1,
) -> TokenBatch:
    """Tokenise questions with their forced answers.

    Raises
    ------
    ValueError
        When a question does not come out with exactly one ``[SEG]`` and the right number of image
        tokens, e.g. because it holds template tokens itself.
    """
    seg, context = (token_id(tokenizer, token) for token in (prompts.SEG, prompts.IMAGE_CONTEXT))
    expected = image_tokens * images
    rows: list[list[int]] = []
    for question in questions:
        text = prompts.forced_chat(question, image_tokens, whitespace, images)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        if ids.count(seg) != 1 or ids.count(context) != expected:
            raise ValueError(
                f"prompt {question[:80]!r} holds template tokens: {ids.count(seg)} {prompts.SEG} "
                f"and {ids.count(context)} image tokens where 1 and {expected} belong"
            )
        rows.append(ids)
    length = max(len(ids) for ids in rows)
    # The padding value only has to be no image token: causal attention never looks at it.
    padded = torch.full((len(rows), length), seg, dtype=torch.long)
    for row, ids in enumerate(rows):
        padded[row, : len(ids)] = torch.tensor(ids)
    position = torch.tensor([ids.index(seg) for ids in rows])
    return TokenBatch(ids=padded, seg_position=position)


def encode_question(
    tokenizer: Tokenizer, question: str, image_tokens: int, whitespace: Whitespace, images: int
) -> Tensor:
    """Tokenise one question up to where its answer begins: ``(1, L)``.

    Raises
    ------
    ValueError
        When the question holds template tokens.
    """
    text = prompts.chat(question, image_tokens, whitespace, images)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    found = ids.count(token_id(tokenizer, prompts.IMAGE_CONTEXT))
    if found != image_tokens * images or token_id(tokenizer, prompts.SEG) in ids:
        raise ValueError(f"prompt {question[:80]!r} holds template tokens")
    return torch.tensor([ids])


@torch.inference_mode()
def generate(
    model: UniBiomed, tokenizer: Tokenizer, image_tokens: Tensor, ids: Tensor, limit: int
) -> Generated:
    """Answer one question, the likeliest token at each step.

    A ``[SEG]`` is read where it is the input of the next step, also when it is the last token
    before the limit: it is then fed once more for its state alone.

    Parameters
    ----------
    image_tokens
        ``(1, n, hidden)`` of all images of the question, one after the other.
    ids
        ``(1, L)`` from `encode_question`, on the model's device.
    limit
        Tokens that are generated at most.

    Raises
    ------
    FinalInferenceError
        When the question alone fills the model's context.
    """
    room = model.config.language.positions - ids.shape[1]
    if room < 1:
        raise FinalInferenceError(
            f"the question takes {ids.shape[1]} tokens, the model has room for "
            f"{model.config.language.positions}; ask with fewer slices or a shorter question"
        )
    seg = token_id(tokenizer, prompts.SEG)
    ends = {tokenizer.token_to_id(mark) for mark in (prompts.END, prompts.TURN_END)} - {None}
    cache = DynamicCache()
    inputs = model.embed(image_tokens, ids)
    chosen: list[int] = []
    states: list[Tensor] = []
    odds: list[float] = []
    total, complete = 0.0, False
    for _ in range(min(limit, room)):
        state = _step(model, inputs, cache)
        if chosen and chosen[-1] == seg:
            states.append(state)
        scores = model.mllm.lm_head(state).float().log_softmax(-1)
        token = int(scores.argmax())
        if token in ends:
            complete = True
            break
        chosen.append(token)
        total += float(scores[token])
        if token == seg:
            odds.append(_log_odds(float(scores[token])))
        if _ended(tokenizer, chosen):
            complete = True
            break
        inputs = model.mllm.get_input_embeddings()(torch.tensor([[token]], device=ids.device))
    if len(states) < len(odds):
        states.append(_step(model, inputs, cache))
    text: str = tokenizer.decode(chosen, skip_special_tokens=False)
    hidden = model.config.language.hidden
    return Generated(
        text=text.split(prompts.END, 1)[0],
        seg_states=torch.stack(states) if states else inputs.new_zeros((0, hidden)),
        seg_log_odds=tuple(odds),
        certainty=math.exp(total / len(chosen)) if chosen else 0.0,
        complete=complete,
    )


def _step(model: UniBiomed, inputs: Tensor, cache: DynamicCache) -> Tensor:
    """Feed embeddings ``(1, L, hidden)``; return the last state ``(hidden,)`` only."""
    output = model.mllm.model.language_model(
        inputs_embeds=inputs, past_key_values=cache, use_cache=True
    )
    state: Tensor = output.last_hidden_state[0, -1]
    return state


def _ended(tokenizer: Tokenizer, chosen: Sequence[int]) -> bool:
    """Whether the template's end mark, in however many tokens, has just been written."""
    tail: str = tokenizer.decode(list(chosen[-_TAIL:]), skip_special_tokens=False)
    return tail.rstrip().endswith(prompts.END)


def _log_odds(log_probability: float) -> float:
    """Log odds of a log probability, within +-30."""
    rest = math.log(max(-math.expm1(log_probability), 1e-13))
    return max(-30.0, min(30.0, log_probability - rest))


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
