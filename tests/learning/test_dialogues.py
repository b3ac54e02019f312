"""Questions and answers from labels: what is said follows from what was measured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import answers, closed_questions
from inference.engine import Engine
from inference.prompts import NONE_LISTED, SEG, clean_question
from inference.tasks import Sort, TaskKind
from learning.dialogues import (
    NOTHING,
    QUESTIONS,
    SIZES,
    Dialogue,
    Scene,
    Seen,
    ask,
    closed_answer,
    disease_answer,
    distinct,
    draw_dialogue,
    report_answer,
    size_word,
)

HIPPOCAMPUS = Seen("hippocampus", "MRI", False, 0.1, -0.3, 0.0, 0, frozenset({1, 2}))
ANTERIOR = Seen("anterior hippocampus", "MRI", False, 0.04, -0.3, 0.2, 1, frozenset({1}))
BREAST = Seen("breast tumour", "ultrasound", True, 0.02, 0.0, 0.0, 0, frozenset({1, 2}))
BENIGN = Seen("benign breast tumour", "ultrasound", True, 0.02, 0.0, 0.0, 1, frozenset({1}))


def absent(seen: Seen) -> Seen:
    return dataclasses.replace(seen, part=0.0)


def test_what_says_more_stands_for_the_whole() -> None:
    assert distinct((BREAST, BENIGN)) == (BENIGN,)
    assert distinct((HIPPOCAMPUS, ANTERIOR)) == (HIPPOCAMPUS, ANTERIOR)
    alone = dataclasses.replace(HIPPOCAMPUS, part=ANTERIOR.part)
    assert distinct((alone, ANTERIOR)) == (ANTERIOR,)


def test_a_report_says_what_where_and_how_large_in_the_published_form() -> None:
    text = report_answer((HIPPOCAMPUS, ANTERIOR))
    assert text == (
        "<p> medium-sized hippocampus in the upper part of the picture </p> [SEG]. "
        "<p> medium-sized anterior hippocampus in the upper right part of the picture </p> [SEG]."
    )
    pieces = answers.parse(text)
    assert [piece.seg for piece in pieces] == [0, 1]
    assert "anterior hippocampus" in pieces[1].phrase
    assert report_answer(()) == NOTHING


def test_only_lesions_are_diseases_and_their_mask_token_comes_first() -> None:
    assert disease_answer((BENIGN,)) == "It is [SEG]. benign breast tumour in ultrasound."
    assert disease_answer((HIPPOCAMPUS,)) == NOTHING


@pytest.mark.parametrize(
    ("part", "word"),
    [
        (0.001, "very small"),
        (0.01, "small"),
        (0.1, "medium-sized"),
        (0.15, "large"),
        (1.0, "large"),
    ],
)
def test_sizes_are_classes_of_the_part_of_the_picture(part: float, word: str) -> None:
    assert size_word(part) == word
    assert word in SIZES


def test_closed_answers_follow_from_the_mask() -> None:
    assert closed_answer(Sort.PRESENCE, ANTERIOR) == "Yes, anterior hippocampus is seen."
    assert closed_answer(Sort.WHERE, ANTERIOR) == "In the upper right part of the picture."
    assert closed_answer(Sort.SIDE, ANTERIOR) == "On the right side of the picture."
    assert closed_answer(Sort.SIDE, HIPPOCAMPUS) == "In the middle of the picture."
    for sort in (Sort.PRESENCE, Sort.WHERE, Sort.SIZE, Sort.SIDE):
        assert closed_answer(sort, absent(BENIGN)) == "No, benign breast tumour is not seen."


@pytest.mark.parametrize("sort", QUESTIONS)
def test_the_node_understands_what_the_model_was_taught(sort: Sort, nano: Engine) -> None:
    for wording in QUESTIONS[sort]:
        words = clean_question(ask(wording, "intervertebral disc"))
        understood = closed_questions.understand(words, nano.card, "MRI")
        assert understood.sort is sort, words
        if sort not in (Sort.MODALITY, Sort.ORGAN):
            assert [target.name for target in understood.targets] == ["intervertebral disc"]


SEEN = st.builds(
    Seen,
    name=st.sampled_from(["polyp", "optic disc"]),
    modality=st.just("endoscopy"),
    lesion=st.booleans(),
    part=st.floats(0.001, 1),
    down=st.floats(-0.5, 0.5),
    right=st.floats(-0.5, 0.5),
    column=st.integers(0, 5),
)


@given(
    seen=st.lists(SEEN, max_size=3),
    sure=st.booleans(),
    organ=st.sampled_from(["", "colon"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_mask_token_of_an_answer_has_its_mask(
    seen: list[Seen], sure: bool, organ: str, seed: int
) -> None:
    asked = (*seen, absent(HIPPOCAMPUS))
    scene = Scene("endoscopy", organ, tuple(seen), asked, sure)
    dialogue = draw_dialogue(scene, np.random.default_rng(seed))
    assert dialogue.answer.count(SEG) == len(dialogue.masks)
    assert set(dialogue.masks) <= {one.column for one in seen}
    if dialogue.task in (TaskKind.DISEASE_RECOGNITION, TaskKind.GROUNDED_REPORT):
        assert sure
        assert (dialogue.answer == NOTHING) == (not dialogue.masks)
    if dialogue.task is Sort.ORGAN:
        assert dialogue == Dialogue(Sort.ORGAN, dialogue.question, "The colon.")
    if dialogue.region == -1:
        assert not seen
        assert dialogue.answer == NONE_LISTED


def test_nothing_is_asked_of_a_picture_of_which_nothing_is_known() -> None:
    scene = Scene("CT", "", (), (), sure=False)
    drawn = {draw_dialogue(scene, np.random.default_rng(seed)).task for seed in range(20)}
    assert drawn == {Sort.MODALITY}
