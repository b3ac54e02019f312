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


def rouge_l(found: Sequence[str], expected: Sequence[str]) -> float:
    """Mean F measure of the longest common subsequence, 0..1."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    scores = [
        scorer.score(truth, said)["rougeL"].fmeasure
        for said, truth in zip(found, expected, strict=True)
    ]
    return float(sum(scores) / len(scores)) if scores else 0.0


def text_scores(found: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """All measures of a set of answers.

    ``exact`` is the share of answers that equal the expected one but for case and stops;
    ``contains`` the reference's rule: the expected words stand somewhere in the answer. ``METEOR``
    is among them where WordNet is on the machine.
    """
    synonyms = meteor(found, expected)
    plain = [(_plain(said), _plain(truth)) for said, truth in zip(found, expected, strict=True)]
    count = max(1, len(plain))
    return {
        "exact": sum(said == truth for said, truth in plain) / count,
        "contains": sum(truth in said for said, truth in plain) / count,
        **bleu(found, expected),
        **({} if synonyms is None else {"METEOR": synonyms}),
        "ROUGE-L": rouge_l(found, expected),
    }


def _plain(words: str) -> str:
    return " ".join(words.lower().split()).strip(" .")
