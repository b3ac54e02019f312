"""Questions that masks can answer: is it there, where, how large, how many, on which side.

A question in plain words is matched to one of these sorts and to the targets of the card that it
names. What it does not name on the card is not covered. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from inference.card import CardTarget, ModelCard
from inference.errors import NotCoveredError
from inference.tasks import Sort


@dataclass(frozen=True, slots=True)
class ClosedQuestion:
    """A question that was understood.

    Attributes
    ----------
    words
        As it was asked.
    targets
        What it is about; empty only for the modality.
    """

    words: str
    sort: Sort
    targets: tuple[CardTarget, ...]


_SORTS: Final[tuple[tuple[Sort, re.Pattern[str]], ...]] = tuple(
    (sort, re.compile(pattern))
    for sort, pattern in (
        (
            Sort.MODALITY,
            r"\bmodality\b|\b(what|which) (kind|type|sort) of (image|scan|picture|study)"
            r"|\b(what|which) (scan|imaging)\b",
        ),
        (
            Sort.ORGAN,
            r"\b(which|what) (organ|body part|part of the body|region of the body)\b",
        ),
        (Sort.PRESENCE, r"^(is|are) there\b|^(is|are|does|do)\b.*\b(present|visible|seen|show)\b"),
        (Sort.COUNT, r"\bhow many\b|\bnumber of\b|\bcount\b"),
        (
            Sort.SIZE,
            r"\bhow (large|big|long|wide|thick|small)\b|\b(size|volume|area|diameter|extent)\b"
            r"|\bmeasure",
        ),
        (Sort.SIDE, r"\b(which|what) side\b|\bleft or (the )?right\b|\bright or (the )?left\b"),
        (Sort.WHERE, r"\bwhere\b|\blocat(ed|ion)\b|\bposition\b"),
        (
            Sort.WHAT,
            r"^(what|which|describe|list|name|report)\b",
        ),
        (Sort.PRESENCE, r"^(is|are|does|do|can|could|has|have|any)\b|\b(any|present|visible)\b"),
    )
)
_ABNORMAL: Final = re.compile(
    r"\b(abnormal\w*|lesions?|disease\w*|pathology|pathologies|tumou?rs?|cancers?|findings?)\b"
)
_NORMAL_WORDS: Final = re.compile(
    r"\b(organs?|structures?|anatomy|seen|shown|see|visible|image|picture|scan|this|here)\b"
)
MAY_BE_ASKED: Final = (
    "of what the card lists it can be asked whether it is there, where, how large, how many and on "
    "which side, e.g. 'Where is the {example}?'"
)


def understand(question: str, card: ModelCard, modality: str) -> ClosedQuestion:
    """Match a question to what masks can answer.

    Parameters
    ----------
    question
        Plain words, from `inference.prompts.clean_question`.
    modality
        In the words of the card.

    Raises
    ------
    NotCoveredError
        When it asks for something else, or about something that the card does not list; the
        message says what can be asked.
    """
    words = _normal(question)
    sort = next((sort for sort, pattern in _SORTS if pattern.search(words)), None)
    if sort is Sort.MODALITY:
        return ClosedQuestion(question, sort, ())
    listed = [target for target in card.targets if target.modality == modality]
    if sort is None or not listed:
        raise NotCoveredError(_refusal(question, card, modality, listed))
    if sort is Sort.ORGAN and not _foreign(words, listed):
        return ClosedQuestion(question, sort, tuple(listed))
    named = _named(words, listed)
    if named:
        # "What is the size of X" and "What is X": the second asks whether it can be seen.
        return ClosedQuestion(question, sort, named)
    if _ABNORMAL.search(words) and not _foreign(words, listed):
        lesions = tuple(target for target in listed if target.category == "lesion")
        if lesions:
            return ClosedQuestion(question, sort, lesions)
    if sort is Sort.WHAT and _NORMAL_WORDS.search(words) and not _foreign(words, listed):
        return ClosedQuestion(question, sort, tuple(listed))
    raise NotCoveredError(_refusal(question, card, modality, listed))


def _named(words: str, listed: Sequence[CardTarget]) -> tuple[CardTarget, ...]:
    """Find the targets that a question names, longer names first, each word used once."""
    rest = words
    found: set[str] = set()
    for target in sorted(listed, key=lambda item: -len(item.name)):
        pattern = rf"\b{re.escape(_normal(target.name))}\b"
        if re.search(pattern, rest):
            found.add(target.name)
            rest = re.sub(pattern, " ", rest)
    return tuple(target for target in listed if target.name in found)


_KNOWN_WORDS: Final = frozenset(
    "what which where who how is are was were do does did can could has have any some there here "
    "the a an this that these those of in on at for from with within and or not no to it its be "
    "been i we you me us see seen show shown shows observe observed detect detected find found "
    "identify identified describe list name report tell give visible present evidence sign "
    "indication clear observable image picture scan slice series study patient organ structure "
    "anatomy abnormality abnormal lesion disease pathology tumour cancer finding many large big "
    "long wide thick small size volume area diameter extent side left right location located "
    "position number count measure body part region kind type please depicted all "
    "everything".split()
)


def _foreign(words: str, listed: Sequence[CardTarget]) -> bool:
    """Whether a question holds a word that names something which the card does not list."""
    names = {word for target in listed for word in _normal(target.name).split()}
    names |= {word for target in listed for word in _normal(target.modality).split()}
    return any(word not in _KNOWN_WORDS | names for word in re.findall(r"[a-z]+", words))


def _normal(words: str) -> str:
    """Lower case, British spelling, singular."""
    words = words.lower().replace("tumor", "tumour").replace("nuclei", "nucleus")
    words = words.replace("abnormalities", "abnormality")
    words = re.sub(r"[^a-z0-9 ]+", " ", words)
    words = re.sub(r"\b([a-z]{3,}[^su\Wi])s\b", r"\1", words)
    return " ".join(words.split())


def _refusal(question: str, card: ModelCard, modality: str, listed: Sequence[CardTarget]) -> str:
    known = ", ".join(target.name for target in listed) or "nothing"
    example = listed[0].name if listed else "target"
    return (
        f"The question {question[:80]!r} is not covered: for {modality} the model card of "
        f"{card.name} lists {known}; {MAY_BE_ASKED.format(example=example)}."
    )
