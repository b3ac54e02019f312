"""Generation: greedy, cached, and every [SEG] read where it is the input."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from inference import decoding, prompts
from inference.architecture import UniBiomed
from inference.errors import FinalInferenceError
from tests.inference.tiny_model import TOKENIZER, tiny_model

IMAGE_TOKENS = 4


class Scripted(nn.Module):
    """A language head that says what it is told, whatever the state."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Iterator[int] = iter(TOKENIZER.encode(text, add_special_tokens=False).ids)

    def forward(self, state: Tensor) -> Tensor:
        scores = torch.zeros(TOKENIZER.get_vocab_size())
        scores[next(self.ids)] = 9.0
        return scores


@pytest.fixture
def model() -> UniBiomed:
    return tiny_model()


def ask(model: UniBiomed, limit: int, question: str = "What is seen?") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randn(1, IMAGE_TOKENS, model.config.language.hidden, generator=generator)
    ids = decoding.encode_question(TOKENIZER, question, IMAGE_TOKENS, prompts.AS_IN_DEMOS, 1)
    return tokens, ids


def says(model: UniBiomed, text: str, limit: int = 64) -> decoding.Generated:
    model.mllm.lm_head = Scripted(text)
    tokens, ids = ask(model, limit)
    return decoding.generate(model, TOKENIZER, tokens, ids, limit)


def test_the_cache_changes_nothing(model: UniBiomed) -> None:
    tokens, ids = ask(model, 12)
    said = decoding.generate(model, TOKENIZER, tokens, ids, 12)
    whole, chosen = ids, []
    for _ in range(12):
        scores = model.mllm.lm_head(model.states(tokens, whole)[0, -1])
        chosen.append(int(scores.argmax()))
        whole = torch.cat([whole, torch.tensor([[chosen[-1]]])], dim=1)
    assert said.text == TOKENIZER.decode(chosen, skip_special_tokens=False).split("<|end|>")[0]
    again = decoding.generate(model, TOKENIZER, tokens, ids, 12)
    assert again.text == said.text
    assert torch.equal(again.seg_states, said.seg_states)


@pytest.mark.parametrize("end", ["<|end|>", ""])
def test_every_seg_is_read_where_it_is_the_input_the_last_one_too(
    model: UniBiomed, end: str
) -> None:
    answer = "It is [SEG]. polyp [SEG]"
    limit = len(TOKENIZER.encode(answer + end, add_special_tokens=False).ids)
    said = says(model, answer + end, limit)
    assert said.text == answer
    assert said.complete is bool(end)
    tokens, ids = ask(model, limit)
    answered = torch.tensor([TOKENIZER.encode(answer, add_special_tokens=False).ids])
    whole = torch.cat([ids, answered], dim=1)
    place = (whole[0] == decoding.token_id(TOKENIZER, prompts.SEG)).nonzero()[:, 0]
    expected = model.states(tokens, whole)[0, place]
    assert said.seg_states.shape == (2, model.config.language.hidden)
    torch.testing.assert_close(said.seg_states, expected, atol=1e-5, rtol=1e-4)
    assert len(said.seg_log_odds) == 2


def test_the_limit_and_the_models_own_end_are_kept(model: UniBiomed) -> None:
    assert says(model, "a b c d e f g h", 3).complete is False
    said = says(model, "yes<|end|>no")
    assert said.text == "yes"
    assert said.complete
    assert 0.0 < said.certainty <= 1.0
    assert says(model, "<|end|>").text == ""


def test_an_end_mark_of_several_tokens_ends_as_well(model: UniBiomed) -> None:
    """To the published tokenizer it is ordinary text."""
    from tests.inference.tiny_published import make_tokenizer

    tokenizer = make_tokenizer()
    ids = tokenizer.encode("It is.<|end|>", add_special_tokens=False).ids
    assert len(tokenizer.encode("<|end|>").ids) > 1
    assert not decoding._ended(tokenizer, ids[:-1])
    assert decoding._ended(tokenizer, ids)


def test_a_question_that_fills_the_context_is_refused(model: UniBiomed) -> None:
    tokens, ids = ask(model, 4, "why " * 120)
    with pytest.raises(FinalInferenceError, match="the model has room for 128"):
        decoding.generate(model, TOKENIZER, tokens, ids, 4)


@pytest.mark.parametrize("hostile", ["[SEG]", "<IMG_CONTEXT>"])
def test_template_tokens_are_refused(hostile: str) -> None:
    with pytest.raises(ValueError, match="template tokens"):
        decoding.encode_question(TOKENIZER, hostile, 4, prompts.AS_IN_DEMOS, 1)
