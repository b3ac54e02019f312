"""The training configuration: what ``configs/nano.yaml`` may say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from inference.intensity import IntensityPolicy


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Concept(_Strict):
    """A target in a modality, both in the words of the prompt."""

    target: str
    modality: str
    weight: float = Field(default=1.0, gt=0)
    """Factor on the square root of the number of images, in the draw of training targets."""

    single_component: bool = False
    min_mm3: float = Field(default=50.0, ge=0)
    min_pixels: int = Field(default=9, ge=1)
    smoothing_mm: float = Field(default=1.0, ge=0)
    solid: bool = True
    body_parts: tuple[str, ...] = ()
    category: Literal["anatomy", "lesion"] = "anatomy"
    mask_threshold: float | None = None
    """Logit at which masks are cut; ``None``: chosen on the calibration images, slice by slice,
    which is wrong where whole volumes have to come out right."""

    least_dice: float = Field(default=0.4, ge=0, le=1)
    """On test images that show it, for the card to list it."""

    @property
    def key(self) -> str:
        """Name in logs and tables."""
        return f"{self.target}, {self.modality}"


class Modality(_Strict):
    """What DICOM calls a modality, and whether its frames are slices of one body."""

    dicom: tuple[str, ...]
    kind: Literal["volume", "images"]


class Source(_Strict):
    """One folder of images with masks, and what its masks say about the concepts.

    Attributes
    ----------
    folder
        Under the data folder; ``phantom`` is drawn instead.
    targets
        Concept key to the mask values that belong to it. A concept that is not named here counts
        as absent from every image, unless ``unknown`` names it.
    unknown
        Concept keys about which the masks say nothing.
    stretch
        Apply the modality's intensity policy to each image (for sources that were not prepared
        by the policy).
    any_angle
        The images have no upright direction.
    centred
        The images are crops around the target, so that its place is given away.
    organ
        What the images show, in the words of an answer; empty: it is not asked for.
    """

    folder: str
    modality: str
    targets: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    stretch: bool = False
    any_angle: bool = False
    centred: bool = False
    organ: str = ""


class PhantomDraws(_Strict):
    """How many phantoms are drawn and which slices of them are used."""

    train: int = Field(gt=0)
    calibration: int = Field(gt=0)
    test: int = Field(gt=0)
    slices: int = Field(gt=0)
    first_seed: int = 10_000
    radius: tuple[float, float]
    length: tuple[float, float]
    density: tuple[float, float]


class Stage(_Strict):
    """One stage of training; its schedule runs by wall-clock time.

    ``kind``: ``vectors`` trains the SAM2 part with one learned vector per concept in place of the
    language model's; ``language`` teaches the language model to say those vectors; ``joint``
    trains all together; ``spoken`` goes on with that, and teaches the language model to answer in
    words beside it.
    """

    kind: Literal["vectors", "language", "joint", "spoken"]
    minutes: float = Field(gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    lr: float = Field(gt=0)
    language_lr_factor: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)


class Baseline(_Strict):
    """A U-Net that is told its target by FiLM, trained on the same batches to be held against.

    ``width`` is that of its first level; each of the four further ones is as much wider again.
    """

    width: int = Field(gt=0)
    minutes: float = Field(gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0)


class Architecture(_Strict):
    """Sizes of the model; the vocabulary and token ids follow from the tokenizer."""

    vision: dict[str, int | float]
    language: dict[str, int | float]
    grounding: dict[str, int | tuple[int, ...]]
    bpe_vocabulary: int = Field(gt=256)


class CardText(_Strict):
    """What only a person can say on the model card; every figure is measured."""

    name: str
    version: str
    licence: str
    intended_use: str
    limitations: tuple[str, ...] = ()


class Recipe(_Strict):
    """A whole training run."""

    seed: int
    batch_images: int = Field(gt=0)
    prompts_per_image: int = Field(gt=0)
    workers: int = Field(default=1, gt=0)
    """Processes that share each batch: on few cores faster than threads in one process."""

    threads: int = Field(default=1, gt=0)
    """Threads of each process."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it is trained; ``auto`` takes a GPU where there is one and one worker is asked for."""

    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Chance that an image goes around the last block of the trunk; less in earlier ones."""

    checkpoint_minutes: float = Field(default=4.0, gt=0)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Of the groups: what figures are measured on."""

    calibration_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Of the groups: what thresholds and probabilities are fitted on."""

    held_out_groups: tuple[str, ...] = ()
    architecture: Architecture
    intensity: dict[str, IntensityPolicy]
    modalities: dict[str, Modality]
    concepts: tuple[Concept, ...]
    sources: tuple[Source, ...]
    phantom: PhantomDraws | None = None
    stages: tuple[Stage, ...]
    baseline: Baseline | None = None
    card: CardText

    @model_validator(mode="after")
    def _names_agree(self) -> Recipe:
        keys = [concept.key for concept in self.concepts]
        for source in self.sources:
            for key in (*source.targets, *source.unknown):
                if key not in keys:
                    raise ValueError(f"source {source.folder} names {key!r}, which is no concept")
            if source.modality not in self.intensity:
                raise ValueError(f"modality {source.modality!r} has no intensity policy")
        for concept in self.concepts:
            if concept.modality not in self.modalities:
                raise ValueError(f"modality {concept.modality!r} has no DICOM names")
        if len(set(keys)) != len(keys):
            raise ValueError("a concept is listed twice")
        return self

    def index(self, key: str) -> int:
        """Place of a concept in the list."""
        return [concept.key for concept in self.concepts].index(key)

    def centred(self, key: str) -> bool:
        """Tell whether all images of a concept are crops around it."""
        return all(source.centred for source in self.sources if key in source.targets)


def load_recipe(path: Path) -> Recipe:
    """Read a YAML recipe.

    Raises
    ------
    pydantic.ValidationError
        When a field is missing, unknown or out of range; the message names it.
    """
    return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
