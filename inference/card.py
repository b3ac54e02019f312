"""The model card: what a checkpoint may be asked, and how well it was measured to answer.

``card.yaml`` lies beside the weights. ``learning.calibrate`` writes it from measured numbers; the
node refuses what it does not list. This file imports neither torch nor pydicom.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference.errors import CheckpointError
from inference.intensity import IntensityPolicy
from inference.prompts import Whitespace
from inference.tasks import MAX_NEW_TOKENS, QUESTION_TASKS, Sort, TaskKind

CARD_FILE = "card.yaml"
RESEARCH_USE = (
    "For research use only. Not a medical device; not for diagnosis or treatment decisions."
)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardModality(_Strict):
    """A modality in the words of the prompt, and what DICOM calls it.

    Attributes
    ----------
    name
        E.g. ``"MRI"``: the word that the model was trained with.
    dicom
        Values of Modality (0008,0060) that it stands for.
    kind
        ``volume``: slices of one body, in order. ``images``: pictures on their own.
    intensity
        How values become the model's 8-bit images.
    """

    name: str
    dicom: tuple[str, ...] = Field(min_length=1)
    kind: Literal["volume", "images"]
    intensity: IntensityPolicy


class Interval(_Strict):
    """A 95 % bootstrap interval, drawn by group."""

    low: float
    high: float


class MeasuredScore(_Strict):
    """What was measured on groups that were held out of training, at native image size.

    Attributes
    ----------
    dice
        Mean Dice over images that show the target, without the presence gate.
    dice_interval
        Its interval; groups are drawn, not images.
    images, groups
        Number of such images and of their patients or clusters.
    floor
        Mean Dice of the best constant mask (mean of the training masks): what position alone gives.
    presence_auc
        Area under the ROC curve of the object score, all negatives.
    presence_auc_own
        The same against empty images of the target's own source only; ``None`` where there are
        none, and then presence was never tested against the same kind of image.
    dice_shifted, floor_shifted
        Dice of model and constant mask on the same images moved by up to a quarter of the field:
        what is left of both where position gives nothing away.
    over_floor, over_floor_shifted
        95 % interval, drawn by group, of the Dice above the constant mask's, on images as they are
        and moved; ``None`` on cards from before these were measured.
    baseline
        Dice of a U-Net that is told its target by FiLM, trained on the same images and measured on
        the same ones; ``None`` where none was trained.
    negatives, negatives_own
        Number of negative images, and of those from the target's own source.
    sensitivity, specificity
        At ``present_from``.
    volume_dice, volumes
        Mean Dice over whole volumes through the engine, where volumes are at hand.
    """

    dice: float = Field(ge=0, le=1)
    dice_interval: Interval
    images: int = Field(ge=1)
    groups: int = Field(ge=1)
    floor: float = Field(ge=0, le=1)
    dice_shifted: float = Field(ge=0, le=1)
    floor_shifted: float = Field(ge=0, le=1)
    over_floor: Interval | None = None
    over_floor_shifted: Interval | None = None
    baseline: float | None = Field(default=None, ge=0, le=1)
    presence_auc: float = Field(ge=0, le=1)
    presence_auc_own: float | None = None
    negatives: int = Field(ge=0)
    negatives_own: int = Field(ge=0)
    sensitivity: float = Field(ge=0, le=1)
    specificity: float = Field(ge=0, le=1)
    volume_dice: float | None = None
    volumes: int = 0


Evidence = Literal["predicted_iou", "seg_log_odds", "mask_certainty", "mask_extent"]
"""What speaks for a target beside its object score; see `inference.presence.Evidence`."""


class PresenceCalibration(_Strict):
    """From what the model gives to a probability, by logistic regression.

    ``1 / (1 + exp(-(slope * score + sum of coefficient * value + offset)))``. Below
    ``absent_below`` the target counts as absent, from ``present_from`` as present, between them as
    uncertain.

    Attributes
    ----------
    slope, offset
        Of the object score (a logit), and the constant.
    coefficients
        Of further evidence, where it told more than the object score alone.
    """

    slope: float = Field(gt=0)
    offset: float
    coefficients: dict[Evidence, float] = Field(default_factory=dict)
    absent_below: float = Field(ge=0, le=1)
    present_from: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> PresenceCalibration:
        if self.absent_below > self.present_from:
            raise ValueError("absent_below is above present_from")
        return self


class VolumeRules(_Strict):
    """What a mask of the target can look like.

    Attributes
    ----------
    single_component
        Only the largest connected part is kept.
    min_mm3
        Smaller parts are dropped, where the spacing is known.
    min_pixels
        Smaller parts are dropped, where it is not.
    smoothing_mm
        Standard deviation of the smoothing of mask logits across slices.
    solid
        Holes within a slice are filled: the target is one mass, whatever it looks like inside.
    mask_threshold
        Logit above which a pixel is inside; chosen on held-out images so that areas are neither
        too large nor too small on the whole.
    """

    single_component: bool = False
    min_mm3: float = Field(default=50.0, ge=0)
    min_pixels: int = Field(default=9, ge=1)
    smoothing_mm: float = Field(default=1.0, ge=0)
    solid: bool = False
    mask_threshold: float = 0.0


class CardTarget(_Strict):
    """One target in one modality."""

    name: str
    modality: str
    body_parts: tuple[str, ...] = ()
    """Values of Body Part Examined (0018,0015) where it belongs; empty: anywhere."""

    score: MeasuredScore
    presence: PresenceCalibration
    rules: VolumeRules = VolumeRules()
    category: Literal["anatomy", "lesion"] = "anatomy"
    """Whether finding it is finding a disease."""

    intensity: IntensityPolicy | None = None
    """Its own way from values to 8 bit, where the modality's is not right for it (a lung window
    beside an abdominal one)."""


class SpokenTask(_Strict):
    """A task that the language model answers in its own words, and how well.

    Attributes
    ----------
    kind
        The task.
    metric, value
        Name of the measure, e.g. ``accuracy`` or ``ROUGE-L``, and the figure on held-out groups.
    baseline
        The same of the answer that is given most often.
    items, groups
        Number of questions and of patients or clusters.
    max_new_tokens
        Where an answer is cut at the latest.
    sort
        The one sort of question that is answered so; ``None`` is every question, and the only
        choice for other tasks.
    """

    kind: TaskKind
    sort: Sort | None = None
    metric: str
    value: float
    baseline: float
    items: int = Field(ge=1)
    groups: int = Field(ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _sorted(self) -> SpokenTask:
        if self.sort is not None and self.kind not in QUESTION_TASKS:
            raise ValueError(f"{self.kind} is no question, and has no sort")
        return self

    @property
    def limit(self) -> int:
        """The token limit: the card's, or the default of the kind."""
        return self.max_new_tokens or MAX_NEW_TOKENS[self.kind]

    @property
    def statement(self) -> str:
        """The task with its figures, for a page or a terminal."""
        name = self.kind.value.replace("_", " ") + (f" ({self.sort})" if self.sort else "")
        return (
            f"{name}: {self.metric} {self.value:.2f}, of the most frequent answer "
            f"{self.baseline:.2f}; {self.items} items of {self.groups} patients or clusters"
        )


class PromptSettings(_Strict):
    """How questions are put to the model; see `inference.prompts.Whitespace`.

    Attributes
    ----------
    newline_after_image, newline_before_answer
        Line breaks of the template.
    volume_slices
        Slices that a question about a volume is asked with, evenly spaced; 0 asks every slice on
        its own.
    spoken_slices
        Slices that the language model is shown for an answer in words; five in the published
        training, one where it was taught with single pictures.
    """

    newline_after_image: bool = False
    newline_before_answer: bool = True
    volume_slices: int = Field(default=0, ge=0, le=16)
    spoken_slices: int = Field(default=5, ge=1, le=16)

    @property
    def whitespace(self) -> Whitespace:
        """The line breaks, for the template."""
        return Whitespace(self.newline_after_image, self.newline_before_answer)


class NotListed(_Strict):
    """A target that was trained but is not offered, and why."""

    name: str
    modality: str
    reason: str


class ModelCard(_Strict):
    """A whole ``card.yaml``."""

    name: str
    version: str
    licence: str
    intended_use: str
    research_use: str = RESEARCH_USE
    limitations: tuple[str, ...] = ()
    training_data: tuple[str, ...] = ()
    modalities: tuple[CardModality, ...]
    targets: tuple[CardTarget, ...]
    not_listed: tuple[NotListed, ...] = ()
    spoken: tuple[SpokenTask, ...] = ()
    """Tasks that the language model answers; all others are composed from masks."""

    prompts: PromptSettings = PromptSettings()

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        names = {modality.name for modality in self.modalities}
        for target in self.targets:
            if target.modality not in names:
                raise ValueError(f"target {target.name!r}: modality {target.modality!r} is unknown")
        pairs = [(target.name, target.modality) for target in self.targets]
        if len(set(pairs)) != len(pairs):
            raise ValueError("a target is listed twice for one modality")
        kinds = [(item.kind, item.sort) for item in self.spoken]
        if len(set(kinds)) != len(kinds):
            raise ValueError("a spoken task is listed twice")
        return self

    def modality(self, name: str) -> CardModality | None:
        """Find a modality by its name, in the words of the card."""
        return next((item for item in self.modalities if item.name == name), None)

    def modality_for(self, dicom_modality: str) -> CardModality | None:
        """Find the modality that a value of Modality (0008,0060) stands for."""
        code = dicom_modality.strip().upper()
        return next((item for item in self.modalities if code in item.dicom), None)

    def target(self, modality: str, name: str) -> CardTarget | None:
        """Find a listed target, both names in the words of the card."""
        return next(
            (item for item in self.targets if (item.modality, item.name) == (modality, name)), None
        )

    def targets_for(self, dicom_modality: str, body_part: str = "") -> tuple[CardTarget, ...]:
        """Targets to ask by default in a series, in the order of the card.

        Parameters
        ----------
        dicom_modality
            Modality (0008,0060), e.g. ``"MR"``.
        body_part
            Body Part Examined (0018,0015). Where it is given, targets that belong to other parts
            are left out: nobody wants to read of a hippocampus in a knee. Not given, it changes
            nothing.
        """
        modality = self.modality_for(dicom_modality)
        if modality is None:
            return ()
        listed = tuple(item for item in self.targets if item.modality == modality.name)
        part = body_part.strip().upper()
        return tuple(
            item for item in listed if not part or not item.body_parts or part in item.body_parts
        )

    def spoken_task(self, kind: TaskKind, sort: Sort | None = None) -> SpokenTask | None:
        """Find the task among those that the language model answers in its own words.

        Parameters
        ----------
        sort
            Of a question; ``None`` finds only what answers questions of every sort.
        """
        listed = [item for item in self.spoken if item.kind is kind]
        return next((item for item in listed if item.sort in (None, sort)), None)

    def covers(self, modality: str, target: str) -> str | None:
        """Why a question is not covered, in a sentence; ``None`` where it is.

        Parameters
        ----------
        modality, target
            In the words of the card.
        """
        if self.modality(modality) is None:
            known = ", ".join(item.name for item in self.modalities)
            return f"The model card of {self.name} does not list {modality}; it lists {known}."
        if self.target(modality, target) is not None:
            return None
        for item in self.not_listed:
            if (item.name, item.modality) == (target, modality):
                return (
                    f"The model card of {self.name} does not offer {target} in {modality}: "
                    f"{item.reason}."
                )
        known = ", ".join(item.name for item in self.targets if item.modality == modality)
        return (
            f"The model card of {self.name} does not list {target} in {modality}; "
            f"for {modality} it lists {known or 'nothing'}."
        )


def read_card(folder: Path) -> ModelCard:
    """Read the card of a checkpoint folder.

    Raises
    ------
    CheckpointError
        When there is no card, or it says something that a card cannot say.
    """
    path = folder / CARD_FILE
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ModelCard.model_validate(data)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing: a model without a card is not loaded. "
            "Make one with the evaluation of the learning room."
        ) from error
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a valid model card: {error}") from error


def write_card(card: ModelCard, folder: Path) -> Path:
    """Write the card beside the weights."""
    path = folder / CARD_FILE
    text = yaml.safe_dump(
        card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )
    path.write_text(text, encoding="utf-8")
    return path
