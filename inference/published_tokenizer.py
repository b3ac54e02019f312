"""The tokenizer as published: Qwen2's byte-level BPE with the tokens that were added to it."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from inference.errors import CheckpointError
from inference.prompts import IMAGE_CONTEXT, IMAGE_END, IMAGE_START, SEG

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""The tokenizer's files as Hugging Face ships them; ``tokenizer.json`` may stand for the others."""

NEEDED_TOKENS = (IMAGE_START, IMAGE_CONTEXT, IMAGE_END, SEG)


def read_published_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a Hugging Face folder, from whichever of its files are there.

    Raises
    ------
    CheckpointError
        When files are missing or damaged, or it lacks a token that the model is asked with.
    """
    tokenizer = open_tokenizer(folder)
    absent = [token for token in NEEDED_TOKENS if tokenizer.token_to_id(token) is None]
    if absent:
        raise CheckpointError(
            f"{folder}: the tokenizer has no token {', '.join(absent)}: "
            "its files are another model's"
        )
    return tokenizer


def open_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer from whichever of its files are there, whatever tokens it has.

    Raises
    ------
    CheckpointError
        When files are missing or damaged.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        absent = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
        if absent:
            raise CheckpointError(
                f"{folder} has no tokenizer: neither {TOKENIZER_FILE} nor {' and '.join(absent)}"
            )
    # Both libraries raise whatever their parsers do, bare Exception among it.
    try:
        if path.is_file():
            return Tokenizer.from_str(path.read_text(encoding="utf-8"))
        # The class is named, not looked up: no file of the folder can choose code to run.
        slow = Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)
        tokenizer: Tokenizer = slow.backend_tokenizer
    except Exception as error:
        place = path if path.is_file() else folder
        raise CheckpointError(f"{place} is not a tokenizer: {error}") from error
    return tokenizer
