"""How near a sentence comes to the one that was expected: BLEU, METEOR, ROUGE-L by libraries."""

from __future__ import annotations

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from learning.meteor import meteor


def bleu(found: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 over a corpus, 0..1 (sacrebleu, its ``13a`` tokens, lower case)."""
    return {
        f"BLEU-{order}": BLEU(lowercase=True, max_ngram_order=order, effective_order=True)
        .corpus_score(list(found), [list(expected)])
        .score
        / 100.0
        for order in (1, 2, 3, 4)
    }


def rouge_l(found: Sequence[str], expected: Sequence[str]) -> list[float]:
    """F measure of the longest common subsequence of each answer, 0..1."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return [
        float(scorer.score(truth, said)["rougeL"].fmeasure)
        for said, truth in zip(found, expected, strict=True)
    ]


def exact(found: Sequence[str], expected: Sequence[str]) -> list[float]:
    """1 for each answer that equals the expected one but for case and stops, else 0."""
    return [
        float(_plain(said) == _plain(truth)) for said, truth in zip(found, expected, strict=True)
    ]


def text_scores(found: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """All measures of a set of answers.

    ``exact`` is the share of answers that equal the expected one but for case and stops;
    ``contains`` the reference's rule: the expected words stand somewhere in the answer. ``METEOR``
    is among them where WordNet is on the machine.
    """
    synonyms = meteor(found, expected)
    contains = [
        float(_plain(truth) in _plain(said)) for said, truth in zip(found, expected, strict=True)
    ]
    return {
        "exact": _mean(exact(found, expected)),
        "contains": _mean(contains),
        **bleu(found, expected),
        **({} if synonyms is None else {"METEOR": synonyms}),
        "ROUGE-L": _mean(rouge_l(found, expected)),
    }


def beside_majority(
    found: Sequence[str], expected: Sequence[str], majority: Sequence[str]
) -> dict[str, float | None]:
    """Score answers, and beside them the answer that is right most often.

    Parameters
    ----------
    majority
        What it is for each item.

    Returns
    -------
    dict
        ``accuracy`` (`exact`), ``ROUGE-L`` and ``METEOR`` (``None`` without WordNet), each with
        that of the ``_of_majority``; BLEU-1 to BLEU-4, and ``contains``.
    """
    scores, floor = text_scores(found, expected), text_scores(majority, expected)
    return {
        "accuracy": scores["exact"],
        "accuracy_of_majority": floor["exact"],
        "ROUGE-L": scores["ROUGE-L"],
        "ROUGE-L_of_majority": floor["ROUGE-L"],
        "METEOR": scores.get("METEOR"),
        "METEOR_of_majority": floor.get("METEOR"),
        **{name: value for name, value in scores.items() if name.startswith("BLEU")},
        "contains": scores["contains"],
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _plain(words: str) -> str:
    return " ".join(words.lower().split()).strip(" .")
