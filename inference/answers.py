"""From a model's own words to sentences, phrases and the masks that they speak of.

The rules are those of the published demos (UniBiomed's ``demo`` scripts), made total: whatever a
model writes is read as well as it can be, and nothing raises. Imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from inference.prompts import END, PHRASE_END, PHRASE_START, SEG, TURN_END

_TAG: Final = re.compile(r"<[^<>]*>")
_PHRASE: Final = re.compile(
    re.escape(PHRASE_START)
    + r"(.*?)(?:"
    + re.escape(PHRASE_END)
    + "|(?="
    + re.escape(PHRASE_START)
    + r")|\Z)",
    re.DOTALL,
)
_ASSISTANT: Final = "ASSISTANT: "


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer that speaks of one thing.

    Attributes
    ----------
    sentence
        Plain words, without tags.
    phrase
        The words that the mask speaks of; empty where the answer names nothing.
    seg
        Which ``[SEG]`` of the text, counted from 0, gives its mask; ``None`` for no mask.
    """

    sentence: str
    phrase: str
    seg: int | None


def parse(text: str) -> tuple[Piece, ...]:
    """Read an answer.

    With phrases in ``<p>..</p>``, mask k belongs to phrase k. Without them a ``[SEG]`` stands
    before its phrase ("It is [SEG]. polyp in endoscopy."). Phrases without a mask and masks without
    a phrase are kept; an answer without ``[SEG]`` is one piece without a mask.

    Parameters
    ----------
    text
        Raw, with special tokens, as decoded.

    Returns
    -------
    tuple of Piece
        At least one; its sentence is empty where the model said nothing.
    """
    text = cut(text)
    text = text.rsplit(_ASSISTANT, 1)[-1]
    count = text.count(SEG)
    phrases = [_plain(found) for found in _PHRASE.findall(text)]
    if phrases:
        return _tagged(text, phrases, count)
    if count == 0:
        words = _plain(text)
        return (Piece(words, "", None),)
    return _following(text, count)


def cut(text: str) -> str:
    """Cut an answer where it ends: at the template's or the model's own mark."""
    for mark in (END, TURN_END):
        text = text.split(mark, 1)[0]
    return text


def caption(text: str) -> str:
    """Return all words of an answer without tags and ``[SEG]``."""
    return _plain(cut(text).rsplit(_ASSISTANT, 1)[-1])


def _tagged(text: str, phrases: list[str], count: int) -> tuple[Piece, ...]:
    pieces = [
        Piece(phrase or _plain(text), phrase, number if number < count else None)
        for number, phrase in enumerate(phrases)
    ]
    # More masks than phrases: they belong to the answer as a whole.
    pieces += [Piece(_plain(text), "", number) for number in range(len(phrases), count)]
    return tuple(pieces)


def _following(text: str, count: int) -> tuple[Piece, ...]:
    whole = _plain(text)
    parts = [_without_stop(_plain(part)) for part in text.split(SEG)[1:]]
    return tuple(Piece(part or whole, part, number) for number, part in enumerate(parts))


def _plain(text: str) -> str:
    """Drop tags, ``[SEG]`` and what cannot be printed; one space between words."""
    words = _TAG.sub(" ", text.replace(SEG, " "))
    words = "".join(letter if letter.isprintable() else " " for letter in words)
    words = " ".join(words.split())
    # What stood before a mask token keeps its stop: "It is [SEG]." -> "It is."
    return re.sub(r"\s+([.,;:!?])", r"\1", words)


def _without_stop(words: str) -> str:
    return words.strip(" .,;:")
