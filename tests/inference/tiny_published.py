"""A Hugging Face folder in the published form, small enough to be written and loaded in a test.

The vision tower and the language model are tiny; the SAM2 part is SAM 2's own tiny size, since
windows and attention blocks come from the configurations that sam2 ships.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from inference.architecture import (
    GroundingConfig,
    LanguageConfig,
    MemoryConfig,
    ModelConfig,
    TilingConfig,
    VisionConfig,
)
from inference.decoding import token_id
from inference.prompts import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from inference.published import published_name, unfilled
from inference.published_folder import ADDED_TOKENS, write_shards
from tests.inference.published_weights import RecipeWeights

BASE_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", IMAGE_START, IMAGE_END, IMAGE_CONTEXT)


def make_tokenizer(tokens: tuple[str, ...] = (*BASE_TOKENS, *ADDED_TOKENS)) -> Tokenizer:
    """Return a byte-level BPE as Qwen2's, on a few sentences, with special tokens added last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Please segment liver in CT.", "It is", "assistant"], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    return tokenizer


def make_config(tokenizer: Tokenizer) -> ModelConfig:
    """Return what the loader should find in the folder."""
    return ModelConfig(
        vision=VisionConfig(image_size=56, patch_size=14, hidden=32, layers=2, heads=2, mlp=48),
        language=LanguageConfig(
            vocabulary=tokenizer.get_vocab_size(),
            hidden=32,
            layers=2,
            heads=4,
            key_value_heads=2,
            mlp=48,
            image_token_id=token_id(tokenizer, IMAGE_CONTEXT),
            positions=512,
            rope_theta=1e5,
        ),
        grounding=GroundingConfig(
            image_size=1024,
            embed_dim=96,
            heads=1,
            stages=(1, 2, 7, 2),
            global_attention=(5, 7, 9),
            windows=(8, 4, 14, 7),
            d_model=256,
            top_down_levels=(2, 3),
            decoder_mlp=2048,
            iou_hidden=256,
            multimask_outputs=3,
            memory=MemoryConfig(
                slots=7, channels=64, attention_layers=4, attention_mlp=2048, fuser_layers=2
            ),
        ),
        tiling=TilingConfig(fewest=1, most=6, thumbnail=True),
    )


def config_json(config: ModelConfig) -> dict[str, Any]:
    """Return ``config.json`` in the published form."""
    vision, language, tiling = config.vision, config.language, config.tiling
    assert tiling is not None
    return {
        "model_type": "sa2va_chat",
        "select_layer": -1,
        "ps_version": "v2",
        "dynamic_image_size": True,
        "use_thumbnail": tiling.thumbnail,
        "min_dynamic_patch": tiling.fewest,
        "max_dynamic_patch": tiling.most,
        "vision_config": {
            "hidden_size": vision.hidden,
            "image_size": vision.image_size,
            "num_attention_heads": vision.heads,
            "num_hidden_layers": vision.layers,
            "patch_size": vision.patch_size,
            "norm_type": "layer_norm",
            "qk_normalization": False,
        },
        "llm_config": {
            "hidden_size": language.hidden,
            "max_position_embeddings": language.positions,
            "num_attention_heads": language.heads,
            "num_hidden_layers": language.layers,
            "num_key_value_heads": language.key_value_heads,
            "rope_theta": language.rope_theta,
            "vocab_size": language.vocabulary,
        },
    }


def published_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return published names and shapes of a configuration."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, value in unfilled(config).state_dict().items():
        published, shape = published_name(name), tuple(value.shape)
        fused = ".attn.qkv." in published and published.startswith("vision_model.")
        shapes[published] = (3 * shape[0], *shape[1:]) if fused else shape
    return shapes


def save_published(
    folder: Path,
    *,
    shard_bytes: int = 2 * 1024**3,
    dtype: torch.dtype | None = torch.bfloat16,
) -> ModelConfig:
    """Write weights, ``config.json`` and the tokenizer's separate files; no card."""
    tokenizer = make_tokenizer()
    config = make_config(tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    write_shards(RecipeWeights(published_shapes(config)), folder, dtype, shard_bytes)
    (folder / "config.json").write_text(json.dumps(config_json(config)))
    save_tokenizer_files(tokenizer, folder)
    return config


def save_tokenizer_files(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``vocab.json``, ``merges.txt`` and what was added, as Qwen2's tokenizer is shipped."""
    data = json.loads(tokenizer.to_str())
    added = {item["content"]: item["id"] for item in data["added_tokens"]}
    (folder / "vocab.json").write_text(json.dumps(data["model"]["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in data["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "added_tokens.json").write_text(json.dumps(added))
    decoder = {
        str(number): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token, number in added.items()
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "Qwen2Tokenizer",
                "added_tokens_decoder": decoder,
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )
