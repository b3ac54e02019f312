"""Sizes of a published checkpoint, from its tensors and ``config.json``.

What a shape tells is taken from the tensors. What no shape tells (attention heads, windows, tiles)
comes from ``config.json`` and, for the SAM2 trunk, from the configurations that sam2 ships.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from sam2.modeling.backbones.hieradet import Hiera

from inference.architecture import (
    GroundingConfig,
    LanguageConfig,
    MemoryConfig,
    ModelConfig,
    TilingConfig,
    VisionConfig,
)
from inference.errors import CheckpointError
from inference.tensor_sources import TensorSource

CONFIG_FILE = "config.json"
_HEAD_WIDTH = 64
"""Channels of one attention head in InternViT-300M and Qwen2.5-0.5B, where nothing else is said."""

_SAM = "grounding_encoder.sam2_model."
_TRUNK = _SAM + "image_encoder.trunk."
_SUPPORTED: Mapping[tuple[str, ...], tuple[Any, ...]] = {
    ("select_layer",): (-1,),
    ("ps_version",): ("v2",),
    ("llm_config", "hidden_act"): ("silu",),
    ("llm_config", "use_sliding_window"): (False,),
    ("llm_config", "tie_word_embeddings"): (False,),
    ("vision_config", "norm_type"): ("layer_norm",),
    ("vision_config", "qk_normalization"): (False,),
    ("vision_config", "qkv_bias"): (True,),
    ("vision_config", "hidden_act"): ("gelu",),
}
"""Settings that change the arithmetic, and the values that the architecture computes."""


def read_config_json(folder: Path, *, damaged: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read ``config.json``; a folder without one gives an empty dictionary.

    Parameters
    ----------
    damaged
        Returned for a file that cannot be read; an error where it is ``None``.

    Raises
    ------
    CheckpointError
        When the file is no JSON object.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        if damaged is not None:
            return damaged
        raise CheckpointError(f"{path} does not describe a model: {error}") from error
    return data


def derive_config(
    source: TensorSource, config_json: Mapping[str, Any], image_token_id: int
) -> ModelConfig:
    """Work out the configuration.

    Parameters
    ----------
    source
        Tensors under published names; only their shapes are looked at.
    config_json
        The published ``config.json``, empty where there is none.
    image_token_id
        Of ``<IMG_CONTEXT>``, from the tokenizer.

    Raises
    ------
    CheckpointError
        When a tensor that tells a size is missing, ``config.json`` contradicts the tensors, or it
        asks for arithmetic that the architecture does not do.
    """
    facts = _Facts(source, config_json)
    facts.check_supported()
    vision = _vision(facts)
    language = _language(facts, image_token_id)
    return ModelConfig(
        vision=vision, language=language, grounding=_grounding(facts), tiling=_tiling(facts)
    )


class _Facts:
    """Shapes and settings, with errors that say where something is missing."""

    def __init__(self, source: TensorSource, settings: Mapping[str, Any]) -> None:
        self.place = source.place
        self._shapes = source.shapes
        self._settings = settings

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        found = self._shapes.get(name)
        if found is None or len(found) != axes:
            what = "is missing" if found is None else f"has shape {found}, not {axes} axes"
            raise CheckpointError(f"{self.place} is no UniBiomed checkpoint: tensor {name} {what}")
        return found

    def has(self, name: str) -> bool:
        return name in self._shapes

    def numbers(self, pattern: str) -> list[int]:
        """Sorted numbers at the group of a pattern that tensor names match."""
        matches = (re.match(pattern, name) for name in self._shapes)
        return sorted({int(match[1]) for match in matches if match})

    def count(self, pattern: str) -> int:
        found = self.numbers(pattern)
        if not found:
            raise CheckpointError(
                f"{self.place} is no UniBiomed checkpoint: no tensor is named like {pattern}"
            )
        return found[-1] + 1

    def setting(self, *path: str) -> Any:
        """Return a value of ``config.json``, or ``None``."""
        value: Any = self._settings
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def whole(self, default: int, *path: str) -> int:
        """Return a positive whole number of ``config.json``, or the default where it is silent."""
        value = self.setting(*path)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"{self.place}: config.json says {'.'.join(path)} = {value!r}, not a number above 0"
            )
        return value

    def heads(self, width: int, part: str) -> int:
        """Return the attention heads of a part, into which its width must divide."""
        heads = self.whole(max(1, width // _HEAD_WIDTH), part, "num_attention_heads")
        if width % heads:
            raise CheckpointError(
                f"{self.place}: config.json says {part}.num_attention_heads = {heads!r}, "
                f"which does not divide the width of {width} that its tensors say"
            )
        return heads

    def agree(self, measured: int, *path: str) -> int:
        """Return what the tensors say; ``config.json`` may be silent but not of another mind."""
        value = self.setting(*path)
        if value is not None and value != measured:
            raise CheckpointError(
                f"{self.place}: config.json says {'.'.join(path)} = {value!r}, "
                f"its tensors say {measured}: they belong to two models"
            )
        return measured

    def check_supported(self) -> None:
        for path, known in _SUPPORTED.items():
            value = self.setting(*path)
            if value is not None and value not in known:
                raise CheckpointError(
                    f"{self.place}: config.json says {'.'.join(path)} = {value!r}; "
                    f"this version computes {known[0]!r} only"
                )


def _vision(facts: _Facts) -> VisionConfig:
    hidden = facts.shape("vision_model.embeddings.class_embedding", 3)[2]
    patch = facts.shape("vision_model.embeddings.patch_embedding.weight", 4)[3]
    positions = facts.shape("vision_model.embeddings.position_embedding", 3)[1]
    side = math.isqrt(max(0, positions - 1)) * patch
    folded = facts.shape("mlp1.0.weight", 1)[0]
    return VisionConfig(
        image_size=facts.agree(side, "vision_config", "image_size"),
        patch_size=facts.agree(patch, "vision_config", "patch_size"),
        hidden=facts.agree(hidden, "vision_config", "hidden_size"),
        layers=facts.agree(
            facts.count(r"vision_model\.encoder\.layers\.(\d+)\."),
            "vision_config",
            "num_hidden_layers",
        ),
        heads=facts.heads(hidden, "vision_config"),
        mlp=facts.shape("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        downsample_ratio=math.sqrt(hidden / folded),
    )


def _language(facts: _Facts, image_token_id: int) -> LanguageConfig:
    layer = "language_model.model.layers.0."
    vocabulary, hidden = facts.shape("language_model.model.embed_tokens.weight", 2)
    queries = facts.shape(layer + "self_attn.q_proj.weight", 2)[0]
    keys = facts.shape(layer + "self_attn.k_proj.weight", 2)[0]
    heads = facts.heads(queries, "llm_config")
    theta = facts.setting("llm_config", "rope_theta")
    return LanguageConfig(
        vocabulary=facts.agree(vocabulary, "llm_config", "vocab_size"),
        hidden=facts.agree(hidden, "llm_config", "hidden_size"),
        layers=facts.agree(
            facts.count(r"language_model\.model\.layers\.(\d+)\."),
            "llm_config",
            "num_hidden_layers",
        ),
        heads=heads,
        key_value_heads=facts.agree(
            max(1, keys // (queries // heads)), "llm_config", "num_key_value_heads"
        ),
        mlp=facts.shape(layer + "mlp.gate_proj.weight", 2)[0],
        image_token_id=image_token_id,
        positions=facts.whole(32768, "llm_config", "max_position_embeddings"),
        rope_theta=1e6 if theta is None else float(theta),
    )


def _grounding(facts: _Facts) -> GroundingConfig:
    embed_dim = facts.shape(_TRUNK + "patch_embed.proj.weight", 4)[0]
    blocks = facts.count(re.escape(_TRUNK) + r"blocks\.(\d+)\.")
    # A block with a projection of its own widens the features: a new stage begins there.
    starts = [0, *facts.numbers(re.escape(_TRUNK) + r"blocks\.(\d+)\.proj\."), blocks]
    stages = tuple(end - start for start, end in pairwise(starts))
    model = _shipped_layout(facts.place, embed_dim, stages)
    encoder = model["image_encoder"]
    trunk = {
        name: parameter.default for name, parameter in inspect.signature(Hiera).parameters.items()
    } | encoder["trunk"]
    decoder = _SAM + "sam_mask_decoder."
    return GroundingConfig(
        image_size=int(model["image_size"]),
        embed_dim=embed_dim,
        heads=int(trunk["num_heads"]),
        stages=stages,
        global_attention=tuple(trunk["global_att_blocks"]),
        windows=tuple(trunk["window_spec"]),
        d_model=facts.shape(_SAM + "image_encoder.neck.convs.0.conv.weight", 4)[0],
        top_down_levels=tuple(encoder["neck"]["fpn_top_down_levels"]),
        decoder_mlp=facts.shape(decoder + "transformer.layers.0.mlp.layers.0.weight", 2)[0],
        iou_hidden=facts.shape(decoder + "iou_prediction_head.layers.0.weight", 2)[0],
        multimask_outputs=facts.shape(decoder + "mask_tokens.weight", 2)[0] - 1,
        memory=_memory(facts),
    )


def _memory(facts: _Facts) -> MemoryConfig:
    slots, _, _, channels = facts.shape(_SAM + "maskmem_tpos_enc", 4)
    attention = _SAM + "memory_attention.layers."
    return MemoryConfig(
        slots=slots,
        channels=channels,
        attention_layers=facts.count(re.escape(attention) + r"(\d+)\."),
        attention_mlp=facts.shape(attention + "0.linear1.weight", 2)[0],
        fuser_layers=facts.count(re.escape(_SAM + "memory_encoder.fuser.layers.") + r"(\d+)\."),
    )


def _shipped_layout(place: str, embed_dim: int, stages: tuple[int, ...]) -> dict[str, Any]:
    """Find the configuration of sam2 whose trunk has this width and these stages."""
    folder = resources.files("sam2") / "configs" / "sam2"
    for path in sorted(folder.iterdir(), key=lambda item: item.name):
        if not path.name.endswith(".yaml"):
            continue
        model: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
        trunk = model["image_encoder"]["trunk"]
        # The base-plus file leaves the stages to Hiera's default.
        default = inspect.signature(Hiera).parameters["stages"].default
        if trunk["embed_dim"] == embed_dim and tuple(trunk.get("stages", default)) == stages:
            return model
    raise CheckpointError(
        f"{place}: a SAM2 trunk of width {embed_dim} with stages {stages} is none of SAM 2's sizes"
    )


def _tiling(facts: _Facts) -> TilingConfig:
    if facts.setting("dynamic_image_size") is False:
        return TilingConfig(fewest=1, most=1, thumbnail=False)
    return TilingConfig(
        fewest=facts.whole(1, "min_dynamic_patch"),
        most=facts.whole(12, "max_dynamic_patch"),
        thumbnail=facts.setting("use_thumbnail") is not False,
    )
