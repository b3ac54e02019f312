"""A tiny checkpoint with random weights: enough to test structure, never an answer."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.architecture import (
    GroundingConfig,
    LanguageConfig,
    ModelConfig,
    UniBiomed,
    VisionConfig,
)
from inference.card import (
    CardModality,
    CardTarget,
    Interval,
    MeasuredScore,
    ModelCard,
    PresenceCalibration,
    write_card,
)
from inference.checkpoints import save_weights
from inference.decoding import token_id
from inference.intensity import IntensityPolicy
from inference.prompts import IMAGE_CONTEXT
from learning.recipe import load_recipe
from learning.vocabulary import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
RECIPE = load_recipe(ROOT / "configs" / "nano.yaml")
TOKENIZER = train_tokenizer(RECIPE)


def tiny_config(multimask_outputs: int = 0) -> ModelConfig:
    """Return the smallest model that has every part."""
    return ModelConfig(
        vision=VisionConfig(image_size=64, patch_size=16, hidden=32, layers=1, heads=2, mlp=32),
        language=LanguageConfig(
            vocabulary=TOKENIZER.get_vocab_size(),
            hidden=32,
            layers=1,
            heads=2,
            key_value_heads=1,
            mlp=32,
            image_token_id=token_id(TOKENIZER, IMAGE_CONTEXT),
            positions=128,
        ),
        grounding=GroundingConfig(
            image_size=64,
            embed_dim=8,
            heads=1,
            stages=(1, 1, 2, 1),
            global_attention=(3,),
            windows=(4, 2, 4, 2),
            d_model=32,
            top_down_levels=(0, 1, 2, 3),
            decoder_mlp=32,
            iou_hidden=16,
            multimask_outputs=multimask_outputs,
        ),
    )


def tiny_model(multimask_outputs: int = 0) -> UniBiomed:
    """Return a seeded random model in evaluation mode, whose masks are neither empty nor full."""
    torch.manual_seed(3)
    model = UniBiomed(tiny_config(multimask_outputs))
    return model.eval().requires_grad_(False)


def card_target(name: str, modality: str, absent_below: float = 1e-6) -> CardTarget:
    """Return a card entry whose figures are made up; by default everything is present."""
    score = MeasuredScore(
        dice=0.8,
        dice_interval=Interval(low=0.7, high=0.9),
        images=10,
        groups=5,
        floor=0.4,
        dice_shifted=0.8,
        floor_shifted=0.2,
        presence_auc=0.9,
        negatives=10,
        negatives_own=0,
        sensitivity=0.9,
        specificity=0.9,
    )
    presence = PresenceCalibration(
        slope=1.0, offset=0.0, absent_below=absent_below, present_from=max(absent_below, 0.001)
    )
    return CardTarget(name=name, modality=modality, score=score, presence=presence)


def tiny_card() -> ModelCard:
    """Return a card of three modalities."""
    return ModelCard(
        name="tiny",
        version="0",
        licence="Apache-2.0",
        intended_use="tests",
        modalities=(
            CardModality(
                name="MRI",
                dicom=("MR",),
                kind="volume",
                intensity=IntensityPolicy(kind="percentile", lower=1, upper=99.5),
            ),
            CardModality(
                name="CT",
                dicom=("CT",),
                kind="volume",
                intensity=IntensityPolicy(kind="window", lower=-160, upper=240, unit="HU"),
            ),
            CardModality(
                name="endoscopy",
                dicom=("ES",),
                kind="images",
                intensity=IntensityPolicy(kind="eight_bit"),
            ),
        ),
        targets=(
            card_target("hippocampus", "MRI"),
            card_target("left ventricle", "MRI"),
            card_target("phantom insert", "CT"),
            card_target("polyp", "endoscopy"),
        ),
    )


def save_tiny(folder: Path, card: ModelCard | None = None) -> Path:
    """Write a tiny checkpoint folder, under its own card or another one."""
    save_weights(tiny_model(), TOKENIZER, folder, torch.float32)
    write_card(card or tiny_card(), folder)
    return folder
