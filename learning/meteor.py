"""METEOR: words count as met when they are equal, share a stem, or are synonyms in WordNet.

NLTK's implementation, with the weights of the first publication. It is not the Java program of
METEOR 1.5, which also knows paraphrases: their figures are not to be mixed. Of synonyms it looks up
the stems, so that "large" never meets "big" (stem "larg") while "tumor" meets "neoplasm". WordNet's
files are no part of a Python package: they are looked for where systems keep them, and never
downloaded.

References
----------
Banerjee and Lavie, "METEOR: An Automatic Metric for MT Evaluation with Improved Correlation with
Human Judgments", 2005. Fellbaum (ed.), "WordNet", 1998; its files: manual pages wndb and lexnames.
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

_FILES: Final = tuple(
    f"{kind}.{part}" for part in ("noun", "verb", "adj", "adv") for kind in ("data", "index")
)
_FILE_NAMES: Final = "".join(f"{number:02}\tfile.{number:02}\t0\n" for number in range(45))
"""What stands in for ``lexnames`` where a package leaves it out, as Debian's does: the names of the
45 files that WordNet was compiled from, which METEOR never looks at."""

LEFT_OUT: Final = (
    "METEOR is left out: it counts synonyms, and WordNet was not found. On Debian and Ubuntu: "
    "apt-get install wordnet-base; elsewhere set WNSEARCHDIR to the folder of WordNet's dictionary "
    "(data.noun, index.noun and so on)."
)


def wordnet_folder() -> Path | None:
    """Find WordNet's dictionary files; ``None`` where there are none.

    Looked for where the variables of WordNet's own programs point (``WNSEARCHDIR``, ``WNHOME``),
    then where Debian, Homebrew and NLTK put them.
    """
    return next((folder for folder in _folders() if _is_wordnet(folder)), None)


def _folders() -> Iterator[Path]:
    if named := os.environ.get("WNSEARCHDIR"):
        yield Path(named)
    if home := os.environ.get("WNHOME"):
        yield Path(home) / "dict"
    yield Path("/usr/share/wordnet")
    yield Path("/opt/homebrew/opt/wordnet/dict")
    import nltk

    yield from (Path(place) / "corpora" / "wordnet" for place in nltk.data.path)


def _is_wordnet(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def meteor(found: Sequence[str], expected: Sequence[str]) -> float | None:
    """Mean METEOR of answers, 0..1; ``None`` without WordNet or without answers.

    Alignment by equal words, Porter stems, then synonyms; recall weighs nine times as much as
    precision, and words that stand in many separate pieces cost up to a half. Tokens are those of
    BLEU (sacrebleu's ``13a``), in lower case.
    """
    folder = wordnet_folder()
    if folder is None or not found:
        return None
    from nltk.translate.meteor_score import single_meteor_score

    dictionary, split = _dictionary(folder), Tokenizer13a()
    scores = [
        single_meteor_score(split(truth).split(), split(said).split(), wordnet=dictionary)
        for said, truth in zip(found, expected, strict=True)
    ]
    return float(sum(scores) / len(scores))


@functools.cache
def _dictionary(folder: Path) -> Any:
    """Read WordNet's index: some seconds and 100 MB, once."""
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    # NLTK reads from the folders of this list alone.
    nltk.data.path.append(str(folder))

    class Dictionary(WordNetCorpusReader):  # type: ignore[misc]
        """WordNet in English, from whatever files a package has of it."""

        def open(self, file: str) -> Any:
            """Open a file of the dictionary."""
            if (folder / file).is_file():
                return super().open(file)
            return io.StringIO(_FILE_NAMES if file == "lexnames" else "")

        def map_wn(self, version: str = "wordnet") -> None:
            """Leave out the way to other versions of WordNet: no other is asked."""

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions")
        return Dictionary(str(folder), None)
