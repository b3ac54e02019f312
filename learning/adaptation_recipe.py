"""The configuration of a fine-tuning run: the published recipe, with its numbers as defaults.

Wu et al., "UniBiomed", arXiv 2504.21336, and the training code of its repository: LoRA on the
language model, frozen image encoders, everything between and after them trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from learning.examples import Format


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraSettings(_Strict):
    """Low-rank adaptation of the language model's linear layers."""

    rank: int = Field(default=128, ge=1)
    alpha: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    layers: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


Part = Literal[
    "projector", "bridge", "prompt_encoder", "mask_decoder", "token_embeddings", "language_head"
]


class LossSettings(_Strict):
    """Weights of the losses, and the points at which masks are compared."""

    mask: float = Field(default=2.0, ge=0)
    dice: float = Field(default=0.5, ge=0)
    presence: float = Field(default=0.0, ge=0)
    """Of the object score; the published training leaves it out, as it had no negatives."""

    points: int = Field(default=12_544, ge=1)
    oversample: float = Field(default=3.0, ge=1)
    uncertain: float = Field(default=0.75, ge=0, le=1)
    """Share of the points that are taken where the mask is least sure."""


class TrainingSet(_Strict):
    """One set: a file or folder under the data folder."""

    format: Format | Literal["dicom"]
    path: str
    names: dict[str, str] = Field(default_factory=dict)
    """For DICOM: label of a segment or ROI to the target that it is."""

    repeat: int = Field(default=1, ge=1)
    at_least: int = Field(default=0, ge=0)
    """A smaller set is repeated up to so many examples."""


class Adaptation(_Strict):
    """A whole fine-tuning run.

    Attributes
    ----------
    base
        Folder of the checkpoint to begin from, relative to the recipe.
    batch, accumulate
        Examples of a process at a time, and batches to a step.
    """

    base: Path
    sets: tuple[TrainingSet, ...] = Field(min_length=1)
    seed: int = 42
    lora: LoraSettings = LoraSettings()
    trained: tuple[Part, ...] = (
        "projector",
        "bridge",
        "prompt_encoder",
        "mask_decoder",
        "token_embeddings",
        "language_head",
    )
    losses: LossSettings = LossSettings()
    epochs: int = Field(default=10, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=4, ge=1)
    accumulate: int = Field(default=4, ge=1)
    lr: float = Field(default=4e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float = Field(default=1.0, gt=0)
    warm_up: float = Field(default=0.05, ge=0, lt=1)
    precision: Literal["bf16", "no"] = "bf16"
    max_length: int = Field(default=8192, ge=64)
    checkpoint_steps: int = Field(default=500, ge=1)
    keep: int = Field(default=3, ge=1)


def is_adaptation(path: Path) -> bool:
    """Whether a recipe fine-tunes a checkpoint, instead of training one from nothing.

    Raises
    ------
    OSError
        When the file cannot be read.
    """
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return isinstance(data, dict) and "base" in data


def load_adaptation(path: Path) -> Adaptation:
    """Read a recipe; ``base`` becomes a path from here.

    Raises
    ------
    pydantic.ValidationError
        When a field is missing, unknown or out of range; the message names it.
    """
    recipe = Adaptation.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    base = recipe.base if recipe.base.is_absolute() else path.parent / recipe.base
    return recipe.model_copy(update={"base": base})
