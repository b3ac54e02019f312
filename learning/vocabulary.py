"""The small model's tokenizer: a byte-level BPE learned from the prompts it will see."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from inference import prompts
from learning.recipe import Recipe


def train_tokenizer(recipe: Recipe) -> Tokenizer:
    """Learn merges from every wording of every concept; any other text falls back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.architecture.bpe_vocabulary,
        special_tokens=list(prompts.SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [
        wording.format(phrase=f"{concept.target} in {concept.modality}") + "\nIt is "
        for concept in recipe.concepts
        for wording in prompts.WORDINGS
    ]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
