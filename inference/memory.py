"""SAM2 with its memory: what the published checkpoint holds beyond single images.

Memory attention, memory encoder and object pointers carry a mask from slice to slice. The image
path of `inference.grounding` works on it unchanged, and so do the methods of ``SAM2Base``.

References
----------
Ravi et al., "SAM 2", arXiv 2408.00714, section 4; sam2's ``configs/sam2/sam2_hiera_l.yaml``.
"""

from __future__ import annotations

import torch
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base

from inference.grounding import (
    STRIDE,
    GroundingConfig,
    ImagePath,
    MemoryConfig,
    build_image_encoder,
    build_mask_decoder,
)


def build_memory_attention(config: MemoryConfig, d_model: int, side: int) -> MemoryAttention:
    """Build the attention of a frame to itself and to what is remembered.

    Parameters
    ----------
    d_model
        Width of the image features.
    side
        Of the lowest feature map, in cells.
    """
    rotary = {
        "rope_theta": 10000.0,
        "feat_sizes": (side, side),
        "embedding_dim": d_model,
        "num_heads": 1,
        "downsample_rate": 1,
        "dropout": 0.1,
    }
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=config.attention_mlp,
        dropout=0.1,
        pos_enc_at_attn=False,
        self_attention=RoPEAttention(**rotary),
        d_model=d_model,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=RoPEAttention(**rotary, rope_k_repeat=True, kv_in_dim=config.channels),
    )
    return MemoryAttention(
        d_model=d_model, pos_enc_at_input=True, layer=layer, num_layers=config.attention_layers
    )


def build_memory_encoder(config: MemoryConfig, d_model: int) -> MemoryEncoder:
    """Build what turns a frame's features and mask into a memory."""
    block = CXBlock(
        dim=d_model, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True
    )
    return MemoryEncoder(
        out_dim=config.channels,
        mask_downsampler=MaskDownSampler(
            embed_dim=d_model, kernel_size=3, stride=2, padding=1, total_stride=STRIDE
        ),
        fuser=Fuser(layer=block, num_layers=config.fuser_layers),
        position_encoding=PositionEmbeddingSine(
            num_pos_feats=config.channels, normalize=True, scale=None, temperature=10000
        ),
        in_dim=d_model,
    )


class MemoryGrounding(SAM2Base, ImagePath):  # type: ignore[misc]
    """SAM2 as published: the image path, and the memory of a video or volume."""

    def __init__(self, config: GroundingConfig, memory: MemoryConfig) -> None:
        side = config.image_size // STRIDE
        # The rotary tables are plain attributes, which no checkpoint fills: they are made for
        # real even where the model around them is built without memory (the meta device).
        with torch.device("cpu"):
            attention = build_memory_attention(memory, config.d_model, side)
        super().__init__(
            image_encoder=build_image_encoder(config),
            memory_attention=attention,
            memory_encoder=build_memory_encoder(memory, config.d_model),
            num_maskmem=memory.slots,
            image_size=config.image_size,
            backbone_stride=STRIDE,
            sigmoid_scale_for_mem_enc=20.0,
            sigmoid_bias_for_mem_enc=-10.0,
            use_mask_input_as_output_without_sam=True,
            directly_add_no_mem_embed=True,
            use_high_res_features_in_sam=True,
            multimask_output_in_sam=True,
            multimask_min_pt_num=0,
            multimask_max_pt_num=1,
            multimask_output_for_tracking=True,
            use_multimask_token_for_obj_ptr=True,
            iou_prediction_use_sigmoid=True,
            use_obj_ptrs_in_encoder=True,
            add_tpos_enc_to_obj_ptrs=False,
            only_obj_ptrs_in_the_past_for_eval=True,
            pred_obj_scores=True,
            pred_obj_scores_mlp=True,
            fixed_no_obj_ptr=True,
            use_mlp_for_obj_ptr_proj=True,
        )
        self.config = config
        # SAM2Base builds a decoder of fixed sizes; ours has those of the configuration.
        self.sam_mask_decoder = build_mask_decoder(config)
