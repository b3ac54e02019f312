"""The UniBiomed architecture, built from one configuration.

A vision tower, a pixel shuffle and a projector hand image tokens to a Qwen2 language model
(``InternVLForConditionalGeneration`` of transformers). The hidden state at the ``[SEG]`` token of
the answer goes through a two-layer bridge and becomes the third sparse prompt token of a SAM2 mask
decoder. The 1 B published model and the shipped ``nano`` are the same code with other numbers.

Sub-modules carry the published names (``text_hidden_fcs``, ``grounding_encoder.sam2_model``) or
those that transformers gives them, so that a published checkpoint needs renaming only.

References
----------
Wu et al., "UniBiomed", arXiv 2504.21336; Ravi et al., "SAM 2", arXiv 2408.00714.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig

from inference.grounding import (
    Decoded,
    Grounding,
    GroundingConfig,
    ImageFeatures,
    ImagePath,
    MemoryConfig,
)
from inference.memory import MemoryGrounding

__all__ = [
    "Decoded",
    "Grounding",
    "GroundingConfig",
    "ImageFeatures",
    "ImagePath",
    "LanguageConfig",
    "MemoryConfig",
    "ModelConfig",
    "TilingConfig",
    "UniBiomed",
    "VisionConfig",
    "build_mllm",
]


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower: sizes in pixels, widths in channels."""

    image_size: int
    patch_size: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    downsample_ratio: float = 0.5


@dataclass(frozen=True, slots=True)
class LanguageConfig:
    """The Qwen2 language model."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    mlp: int
    image_token_id: int
    positions: int = 32768
    rope_theta: float = 1e6


@dataclass(frozen=True, slots=True)
class TilingConfig:
    """How the published model cuts an image for its language side.

    Attributes
    ----------
    fewest, most
        Tiles, without the thumbnail.
    thumbnail
        The whole image is added as one more tile where there are several.
    """

    fewest: int = 1
    most: int = 12
    thumbnail: bool = True


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that decides the shape of a model, and of what it is fed.

    ``tiling`` is ``None`` where both parts see the whole image resized in one way, as in ``nano``;
    otherwise images are prepared as the published model has them.
    """

    vision: VisionConfig
    language: LanguageConfig
    grounding: GroundingConfig
    tiling: TilingConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``config.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Build from plain data.

        Raises
        ------
        KeyError, TypeError
            When a part is missing or has a field that the architecture does not know.
        """
        grounding: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in data["grounding"].items()
        }
        memory, tiling = grounding.pop("memory", None), data.get("tiling")
        return cls(
            vision=VisionConfig(**data["vision"]),
            language=LanguageConfig(**data["language"]),
            grounding=GroundingConfig(
                **grounding, memory=None if memory is None else MemoryConfig(**memory)
            ),
            tiling=None if tiling is None else TilingConfig(**tiling),
        )

    @property
    def image_tokens(self) -> int:
        """Language tokens that one image tile takes."""
        side = self.vision.image_size // self.vision.patch_size
        return int(side * self.vision.downsample_ratio) ** 2


def build_mllm(config: ModelConfig) -> InternVLForConditionalGeneration:
    """Build vision tower, projector and language model with transformers' classes."""
    vision, language = config.vision, config.language
    vision_config = InternVLVisionConfig(
        hidden_size=vision.hidden,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        intermediate_size=vision.mlp,
        image_size=[vision.image_size, vision.image_size],
        patch_size=[vision.patch_size, vision.patch_size],
        attention_bias=True,
        use_qk_norm=False,
        norm_type="layer_norm",
    )
    text_config = Qwen2Config(
        vocab_size=language.vocabulary,
        hidden_size=language.hidden,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
        num_key_value_heads=language.key_value_heads,
        intermediate_size=language.mlp,
        max_position_embeddings=language.positions,
        rope_parameters={"rope_type": "default", "rope_theta": language.rope_theta},
        tie_word_embeddings=False,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=vision_config,
            text_config=text_config,
            image_token_id=language.image_token_id,
            image_seq_length=config.image_tokens,
            downsample_ratio=vision.downsample_ratio,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
    )


class GroundingEncoder(nn.Module):
    """Holds the SAM2 part under its published name ``grounding_encoder.sam2_model``."""

    def __init__(self, config: GroundingConfig) -> None:
        super().__init__()
        self.sam2_model: ImagePath = (
            Grounding(config) if config.memory is None else MemoryGrounding(config, config.memory)
        )


class UniBiomed(nn.Module):
    """The grounded model: image and prompt in, ``[SEG]`` vectors and masks out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, d_model = config.language.hidden, config.grounding.d_model
        self.mllm = build_mllm(config)
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, d_model), nn.Dropout(0.0)
        )
        self.grounding_encoder = GroundingEncoder(config.grounding)

    @property
    def grounding(self) -> ImagePath:
        """The SAM2 part."""
        return self.grounding_encoder.sam2_model

    def image_tokens(self, tiles: Tensor) -> Tensor:
        """Image tokens ``(T, n, hidden)`` of normalised tiles ``(T, 3, v, v)``."""
        output = self.mllm.model.get_image_features(
            pixel_values=tiles,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            return_dict=True,
        )
        tokens: Tensor = output.pooler_output
        return tokens

    def embed(self, image_tokens: Tensor, ids: Tensor) -> Tensor:
        """Input embeddings ``(P, L, hidden)`` of P rows of ids, image tokens put in their places.

        Parameters
        ----------
        image_tokens
            ``(P, n, hidden)``: the tokens of each row's image.
        ids
            ``(P, L)`` token ids with n image tokens in each row.
        """
        embedded = self.mllm.get_input_embeddings()(ids)
        place = ids == self.config.language.image_token_id
        # The n-th image token of a row, by a gather: its shapes do not depend on values, so that a
        # training step can be recorded as a CUDA graph.
        order = (place.cumsum(1) - 1).clamp(min=0, max=image_tokens.shape[1] - 1)
        tokens = image_tokens.to(embedded.dtype)
        chosen = tokens.gather(1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
        return torch.where(place.unsqueeze(-1), chosen, embedded)

    def states(self, image_tokens: Tensor, ids: Tensor) -> Tensor:
        """Hidden states ``(P, L, hidden)`` after the final norm; arguments as for `embed`."""
        output = self.mllm.model.language_model(
            inputs_embeds=self.embed(image_tokens, ids), use_cache=False
        )
        states: Tensor = output.last_hidden_state
        return states

    def seg_vectors(self, image_tokens: Tensor, ids: Tensor, seg_position: Tensor) -> Tensor:
        """Bridge outputs ``(P, d)`` of P forced answers.

        Parameters
        ----------
        image_tokens, ids
            As for `embed`. Rows are padded on the right; the causal mask keeps padding from what
            comes before it.
        seg_position
            ``(P,)`` where ``[SEG]`` is the input token in each row. The hidden state there, after
            the final norm, is what the mask is decoded from.
        """
        row = torch.arange(ids.shape[0], device=ids.device)
        vectors: Tensor = self.text_hidden_fcs(self.states(image_tokens, ids)[row, seg_position])
        return vectors
