"""SAM2's image path: encode an image once, decode any number of prompt vectors.

References
----------
Ravi et al., "SAM 2", arXiv 2408.00714.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from torch.overrides import TorchFunctionMode

STRIDE = 16
"""Pixels of the grounding image to one cell of its lowest feature map."""


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """What SAM2 carries from slice to slice: memory attention and memory encoder.

    Attributes
    ----------
    slots
        Earlier frames that are remembered, with the prompted one.
    channels
        Width of a memory.
    attention_layers, attention_mlp
        Of the memory attention.
    fuser_layers
        Of the memory encoder.
    """

    slots: int
    channels: int
    attention_layers: int
    attention_mlp: int
    fuser_layers: int


@dataclass(frozen=True, slots=True)
class GroundingConfig:
    """The SAM2 part: Hiera trunk, feature pyramid, mask decoder.

    ``multimask_outputs`` is 3 in the published model, which keeps the mask with the highest
    predicted overlap, and 0 where one mask is decoded. ``memory`` is ``None`` where the model
    looks at single images only.
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
    memory: MemoryConfig | None = None


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


class _RealRanges(TorchFunctionMode):
    """Makes ``torch.linspace`` hold numbers also where the model is built on the meta device.

    Hiera reads its drop-path rates out of one while it is built.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.linspace:
            named["device"] = "cpu"
        return func(*args, **named)


def build_image_encoder(config: GroundingConfig) -> ImageEncoder:
    """Build Hiera and its feature pyramid with sam2's classes."""
    with _RealRanges():
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


def build_mask_decoder(config: GroundingConfig) -> MaskDecoder:
    """Build SAM2's mask decoder with sam2's classes."""
    return MaskDecoder(
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


class ImagePath(nn.Module):
    """SAM2's image path, whatever else the module holds; its sub-classes build the parts.

    An initial frame never looks at the memory: it only has ``no_mem_embed`` added.
    """

    config: GroundingConfig
    image_encoder: nn.Module
    sam_prompt_encoder: PromptEncoder
    sam_mask_decoder: MaskDecoder
    no_mem_embed: nn.Parameter

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


class Grounding(ImagePath):
    """The parts that single images need; SAM2's memory is left out."""

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
        self.sam_mask_decoder = build_mask_decoder(config)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, config.d_model))
