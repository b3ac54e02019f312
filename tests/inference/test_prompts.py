"""Prompts and forced answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import decoding, prompts
from tests.inference.tiny_model import TOKENIZER


def test_the_prompt_is_the_published_wording() -> None:
    task = prompts.TargetPrompt("hippocampus", "MRI")
    assert task.prompt == "Please segment hippocampus in MRI."


def test_the_chat_ends_in_the_forced_answers_seg() -> None:
    text = prompts.forced_chat("Please segment x in MRI.", 2)
    assert text == (
        "<|user|>\n<img><IMG_CONTEXT><IMG_CONTEXT></img>Please segment x in MRI.<|end|>\n"
        "<|assistant|>\nIt is [SEG]"
    )


def test_seg_is_found_by_its_id_and_is_last() -> None:
    batch = decoding.encode(TOKENIZER, ["Please segment polyp in endoscopy.", "Short?"], 4)
    seg = decoding.token_id(TOKENIZER, prompts.SEG)
    for row in range(2):
        position = int(batch.seg_position[row])
        assert batch.ids[row, position] == seg
        assert (batch.ids[row, :position] != seg).all()


@pytest.mark.parametrize("hostile", ["[SEG]", "<IMG_CONTEXT>", "a [SEG] b <img>"])
def test_template_tokens_in_a_question_are_refused(hostile: str) -> None:
    with pytest.raises(ValueError, match=r"template tokens"):
        decoding.encode(TOKENIZER, [f"Please segment {hostile}."], 4)


@pytest.mark.parametrize(
    "hostile",
    ["", "  ", "[SEG]", "<img>", "a\x00b", "x" * 65, "hippo\u202ecampus", "{phrase}", "-x"],
)
def test_targets_that_are_no_plain_words_are_refused(hostile: str) -> None:
    with pytest.raises(ValueError, match="target"):
        prompts.clean_target(hostile)


def test_white_space_in_a_target_is_normalised() -> None:
    assert prompts.clean_target(" left \n ventricle ") == "left ventricle"


@given(st.text(max_size=80))
def test_any_text_is_refused_or_becomes_one_seg(text: str) -> None:
    try:
        words = prompts.clean_target(text)
    except ValueError:
        return
    batch = decoding.encode(TOKENIZER, [prompts.TargetPrompt(words, "CT").prompt], 4)
    assert (batch.ids == decoding.token_id(TOKENIZER, prompts.SEG)).sum() == 1


def test_a_foreign_tokenizer_is_named() -> None:
    from tokenizers import Tokenizer, models

    with pytest.raises(ValueError, match=r"no token \[SEG\]"):
        decoding.encode(Tokenizer(models.BPE()), ["x"], 4)
