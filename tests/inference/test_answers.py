"""Reading a model's own words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.answers import Piece, caption, parse


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It is [SEG].", [Piece("It is.", "", 0)]),
        (
            "It is [SEG]. polyp in endoscopy.",
            [Piece("polyp in endoscopy", "polyp in endoscopy", 0)],
        ),
        (
            "<p> effusion. A report. </p> [SEG]",
            [Piece("effusion. A report.", "effusion. A report.", 0)],
        ),
        ("Just words.", [Piece("Just words.", "", None)]),
        ("", [Piece("", "", None)]),
        ("<p>a</p> [SEG] <p>b</p>", [Piece("a", "a", 0), Piece("b", "b", None)]),
        ("[SEG]. a [SEG]. b", [Piece("a", "a", 0), Piece("b", "b", 1)]),
        ("<p> never closed [SEG]", [Piece("never closed", "never closed", 0)]),
        ("</p> closed only [SEG]", [Piece("closed only", "", 0)]),
        ("ASSISTANT: yes<|end|> more", [Piece("yes", "", None)]),
        ("yes<|im_end|>[SEG]", [Piece("yes", "", None)]),
    ],
)
def test_published_answers_and_broken_ones(text: str, pieces: list[Piece]) -> None:
    assert list(parse(text)) == pieces


def test_a_seg_that_ends_the_text_keeps_its_mask() -> None:
    assert parse("<p> nodule </p> [SEG]")[0].seg == 0
    assert parse("nodule [SEG]")[0].seg == 0


PARTS = st.sampled_from(
    [
        "[SEG]",
        "<p>",
        "</p>",
        "<s>",
        "<",
        ">",
        "a b",
        ".",
        "\n",
        "<|end|>",
        "[SEG",
        "\x00",
        "ASSISTANT: ",
    ]
)


@given(st.lists(PARTS | st.text(max_size=5), max_size=12).map("".join))
def test_nothing_raises_and_every_mask_is_kept(text: str) -> None:
    pieces = parse(text)
    assert pieces
    numbers = [piece.seg for piece in pieces if piece.seg is not None]
    assert len(set(numbers)) == len(numbers)
    for piece in pieces:
        assert "[SEG]" not in piece.sentence
        assert piece.sentence.isprintable()
    assert "[SEG]" not in caption(text)
