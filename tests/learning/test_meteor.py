"""METEOR: figures worked out by hand, and what is said where WordNet is not on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from learning import meteor as measured
from learning.meteor import meteor, wordnet_folder
from learning.wording import text_scores

needs_wordnet = pytest.mark.skipif(
    wordnet_folder() is None, reason="needs WordNet (Debian's package wordnet-base)"
)


@needs_wordnet
def test_one_stretch_of_equal_words_loses_only_its_fragmentation() -> None:
    # Three of three words, in one piece: precision and recall 1, penalty 0.5 * (1 / 3) ** 3.
    assert meteor(["a large polyp"], ["A large polyp"]) == pytest.approx(1 - 0.5 / 27)


@needs_wordnet
def test_stems_and_synonyms_count_as_met() -> None:
    assert meteor(["two polyps seen"], ["two polyp seen"]) == pytest.approx(1 - 0.5 / 27)
    # "tumor", "tumour" and "neoplasm" are one set of synonyms in WordNet.
    assert meteor(["a breast neoplasm"], ["a breast tumor"]) == pytest.approx(1 - 0.5 / 27)
    # Without the last word: two of three, in one piece, penalty 0.5 * (1 / 2) ** 3.
    assert meteor(["a breast cyst"], ["a breast tumor"]) == pytest.approx(2 / 3 * (1 - 0.5 / 8))


@needs_wordnet
def test_recall_weighs_nine_times_as_much_as_precision() -> None:
    # An example that is often worked out in print, with 0.9654: six words met in two pieces.
    mean = 10 * (6 / 7) * 1 / (1 + 9 * 6 / 7)
    found = meteor(["the cat was sat on the mat"], ["the cat sat on the mat"])
    assert found == pytest.approx(mean * (1 - 0.5 * (2 / 6) ** 3))
    assert found == pytest.approx(0.9654, abs=1e-4)


@needs_wordnet
def test_it_stands_among_the_other_measures_as_their_mean() -> None:
    scores = text_scores(["a large polyp", "nothing"], ["a large polyp", "some tumour"])
    assert scores["METEOR"] == pytest.approx((1 - 0.5 / 27) / 2)


def test_without_wordnet_it_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measured, "_folders", lambda: iter([tmp_path]))
    assert wordnet_folder() is None
    assert meteor(["a"], ["a"]) is None
    assert "METEOR" not in text_scores(["a"], ["a"])


def test_the_variable_of_wordnets_own_programs_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in measured._FILES:
        (tmp_path / name).write_text("")
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    assert wordnet_folder() == tmp_path
    (tmp_path / "data.noun").unlink()
    assert wordnet_folder() != tmp_path
