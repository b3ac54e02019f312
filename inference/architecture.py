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
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig

STRIDE = 16
"""Pixels of the grounding image to one cell of its lowest feature map."""


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
class GroundingConfig:
    """The SAM2 part: Hiera trunk, feature pyramid, mask decoder.

    ``multimask_outputs`` is 3 in the published model, which keeps the mask with the highest
    predicted overlap, and 0 where one mask is decoded.
    """

    image_size: int
    embed_dim: int
    heads: int
    stages: tuple[int, ...]
    global_attention: tuple[int, ...]
    windows: tuple[int, ...]
    d_model: int
    top_down_levels: tuple[int, ...]
    decoder_mlp: int
    iou_hidden: int
    multimask_outputs: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that decides the shape of a model."""

    vision: VisionConfig
    language: LanguageConfig
    grounding: GroundingConfig

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
        return cls(
            vision=VisionConfig(**data["vision"]),
            language=LanguageConfig(**data["language"]),
            grounding=GroundingConfig(**grounding),
        )

    @property
    def image_tokens(self) -> int:
        """Language tokens that one image tile takes."""
        side = self.vision.image_size // self.vision.patch_size
        return int(side * self.vision.downsample_ratio) ** 2


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the grounding part keeps of a batch of B images, computed once for all prompts.

    Attributes
    ----------
    embedding
        ``(B, d, s / 16, s / 16)``, with the "no memory" embedding added.
    high_resolution
        The stride-4 and stride-8 maps, reduced to the channels that the decoder adds.
    pyramid
        The stride-4, -8 and -16 maps before that; training hangs its auxiliary heads here.
    """

    embedding: Tensor
    high_resolution: tuple[Tensor, Tensor]
    pyramid: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """The mask decoder's answer to P prompts.

    Attributes
    ----------
    logits
        ``(P, s / 4, s / 4)`` mask logits; above 0 is inside.
    object_score
        ``(P,)`` logit that the object is in the image.
    predicted_iou
        ``(P,)`` the decoder's estimate of its own overlap, 0..1.
    """

    logits: Tensor
    object_score: Tensor
    predicted_iou: Tensor


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


def build_image_encoder(config: GroundingConfig) -> ImageEncoder:
    """Build Hiera and its feature pyramid with sam2's classes."""
    trunk = Hiera(
        embed_dim=config.embed_dim,
        num_heads=config.heads,
        stages=config.stages,
        global_att_blocks=config.global_attention,
        window_pos_embed_bkg_spatial_size=(7, 7),
        window_spec=config.windows,
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(
            num_pos_feats=config.d_model, normalize=True, scale=None, temperature=10000
        ),
        d_model=config.d_model,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=list(config.top_down_levels),
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=1)


class Grounding(nn.Module):
    """SAM2's image path: encode an image once, decode any number of prompt vectors.

    The memory path of SAM2 (attention over earlier frames) is not part of it: single images never
    use it, since a first frame only has ``no_mem_embed`` added.
    """

    def __init__(self, config: GroundingConfig) -> None:
        super().__init__()
        self.config = config
        side = config.image_size // STRIDE
        self.image_encoder = build_image_encoder(config)
        self.sam_prompt_encoder = PromptEncoder(
            embed_dim=config.d_model,
            image_embedding_size=(side, side),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=16,
        )
        self.sam_mask_decoder = MaskDecoder(
            num_multimask_outputs=config.multimask_outputs,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=config.d_model, mlp_dim=config.decoder_mlp, num_heads=8
            ),
            transformer_dim=config.d_model,
            iou_head_depth=3,
            iou_head_hidden_dim=config.iou_hidden,
            use_high_res_features=True,
            iou_prediction_use_sigmoid=True,
            pred_obj_scores=True,
            pred_obj_scores_mlp=True,
            use_multimask_token_for_obj_ptr=True,
        )
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, config.d_model))

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised images ``(B, 3, s, s)``."""
        pyramid = tuple(self.image_encoder(pixels)["backbone_fpn"])
        decoder = self.sam_mask_decoder
        embedding = pyramid[2] + self.no_mem_embed.reshape(1, -1, 1, 1)
        high = (decoder.conv_s0(pyramid[0]), decoder.conv_s1(pyramid[1]))
        return ImageFeatures(embedding=embedding, high_resolution=high, pyramid=pyramid)

    def decode(self, features: ImageFeatures, vectors: Tensor, image_index: Tensor) -> Decoded:
        """Decode prompt vectors ``(P, d)``, prompt p on image ``image_index[p]``, in one call."""
        count = vectors.shape[0]
        device = vectors.device
        # One point labelled -1; the encoder pads a second: two "not a point" tokens, then ours.
        points = torch.zeros(count, 1, 2, device=device)
        labels = -torch.ones(count, 1, dtype=torch.int32, device=device)
        sparse, dense = self.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
        sparse = torch.cat([sparse, vectors.unsqueeze(1).to(sparse.dtype)], dim=1)
        masks, ious, _, score = self.sam_mask_decoder(
            image_embeddings=features.embedding.index_select(0, image_index),
            image_pe=self.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.config.multimask_outputs > 0,
            repeat_image=False,
            high_res_features=[
                level.index_select(0, image_index) for level in features.high_resolution
            ],
        )
        best = ious.argmax(dim=1)
        row = torch.arange(count, device=device)
        return Decoded(
            logits=masks[row, best],
            object_score=score[:, 0],
            predicted_iou=ious[row, best],
        )


class GroundingEncoder(nn.Module):
    """Holds the SAM2 part under its published name ``grounding_encoder.sam2_model``."""

    def __init__(self, config: GroundingConfig) -> None:
        super().__init__()
        self.sam2_model = Grounding(config)


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
    def grounding(self) -> Grounding:
        """The SAM2 part."""
        part: Grounding = self.grounding_encoder.sam2_model
        return part

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

    def seg_vectors(self, image_tokens: Tensor, ids: Tensor, seg_position: Tensor) -> Tensor:
        """Bridge outputs ``(P, d)`` of P forced answers.

        Parameters
        ----------
        image_tokens
            ``(P, n, hidden)``: the tokens of each prompt's image.
        ids
            ``(P, L)`` token ids with n image tokens in each row, padded on the right; the causal
            mask keeps padding from what comes before it.
        seg_position
            ``(P,)`` where ``[SEG]`` is the input token in each row. The hidden state there, after
            the final norm, is what the mask is decoded from.
        """
        embedded = self.mllm.get_input_embeddings()(ids)
        place = (ids == self.config.language.image_token_id).unsqueeze(-1)
        embedded = embedded.masked_scatter(place, image_tokens.to(embedded.dtype))
        states = self.mllm.model.language_model(inputs_embeds=embedded, use_cache=False)
        row = torch.arange(ids.shape[0], device=ids.device)
        vectors: Tensor = self.text_hidden_fcs(states.last_hidden_state[row, seg_position])
        return vectors
