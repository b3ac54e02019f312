"""What the model can be asked: one request type for all tasks. Imports no torch.

Every task is answered in findings (`inference.findings`). A target is asked for by its name on the
model card; what the card does not list is not covered, and never gets a mask.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inference.prompts import clean_question, clean_target
from inference.regions import Region


class TaskKind(enum.StrEnum):
    """The kinds of questions."""

    SEGMENTATION = "segmentation"
    """Targets by name; one finding for each."""
    RECOGNITION = "recognition"
    """Everything that the card lists for the modality and body part, in one call."""
    DISEASE_RECOGNITION = "disease_recognition"
    """Every abnormality that the card lists, with its mask."""
    REGION_CLASSIFICATION = "region_classification"
    """A box or mask in, the name of what is in it out."""
    REGION_REPORT = "region_report"
    """A box or mask in, a description of what is in it out."""
    QUESTION = "question"
    """A question in words, answered in words."""
    GROUNDED_QUESTION = "grounded_question"
    """A question in words, answered in words and a mask of what they speak of."""
    GROUNDED_REPORT = "grounded_report"
    """A report of all that is seen, each sentence with its mask."""


class Sort(enum.StrEnum):
    """What a closed question asks for."""

    MODALITY = "modality"
    ORGAN = "organ"
    COUNT = "count"
    SIZE = "size"
    SIDE = "side"
    WHERE = "where"
    PRESENCE = "presence"
    WHAT = "what"


REGION_TASKS: Final = frozenset({TaskKind.REGION_CLASSIFICATION, TaskKind.REGION_REPORT})
QUESTION_TASKS: Final = frozenset({TaskKind.QUESTION, TaskKind.GROUNDED_QUESTION})
STUDY_TASKS: Final = (
    TaskKind.SEGMENTATION,
    TaskKind.DISEASE_RECOGNITION,
    TaskKind.GROUNDED_REPORT,
)
"""Tasks that make sense for every series without a person who asks."""

MAX_NEW_TOKENS: Final[Mapping[TaskKind, int]] = {
    TaskKind.SEGMENTATION: 32,
    TaskKind.RECOGNITION: 32,
    TaskKind.DISEASE_RECOGNITION: 64,
    TaskKind.REGION_CLASSIFICATION: 32,
    TaskKind.REGION_REPORT: 256,
    TaskKind.QUESTION: 128,
    TaskKind.GROUNDED_QUESTION: 128,
    TaskKind.GROUNDED_REPORT: 512,
}
"""Where a model's own words are cut at the latest; a card may say otherwise."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question to the model.

    Attributes
    ----------
    kind
        What sort of question.
    targets
        Names of the card, for ``segmentation``; for the tasks that look for everything they narrow
        what is looked for, and empty means all.
    region
        For the region tasks.
    question
        For the question tasks, in plain words.
    body_part
        Body Part Examined (0018,0015), where it is known: targets that belong elsewhere are left
        out by the tasks that look for everything.
    probabilities
        Whether findings with a mask carry the probability of each pixel, too.

    Raises
    ------
    ValueError
        When something is missing that the kind needs, is there but means nothing to it, or is not
        plain words.
    """

    kind: TaskKind
    targets: tuple[str, ...] = ()
    region: Region | None = None
    question: str = ""
    body_part: str = field(default="", compare=True)
    probabilities: bool = False

    def __post_init__(self) -> None:
        """Normalise words, and refuse a task that cannot be asked."""
        object.__setattr__(self, "kind", TaskKind(self.kind))
        object.__setattr__(self, "targets", tuple(clean_target(name) for name in self.targets))
        if self.kind is TaskKind.SEGMENTATION and not self.targets:
            raise ValueError("segmentation needs the name of a target")
        if (self.region is not None) != (self.kind in REGION_TASKS):
            needs = "needs a region" if self.kind in REGION_TASKS else "takes no region"
            raise ValueError(f"{self.kind} {needs}")
        if self.kind in QUESTION_TASKS:
            object.__setattr__(self, "question", clean_question(self.question))
        elif self.question:
            raise ValueError(f"{self.kind} takes no question")

    @classmethod
    def segment(cls, *targets: str) -> Task:
        """Ask for targets by name."""
        return cls(TaskKind.SEGMENTATION, targets)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a message or a database; empty parts are left out.

        Raises
        ------
        ValueError
            When the region is a mask: only boxes are written down.
        """
        data: dict[str, Any] = {"kind": self.kind.value}
        if self.targets:
            data["targets"] = list(self.targets)
        if self.region is not None:
            data["region"] = self.region.to_json()
        if self.question:
            data["question"] = self.question
        if self.body_part:
            data["body_part"] = self.body_part
        if self.probabilities:
            data["probabilities"] = True
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            When it is no task; the message says what is wrong with it.
        """
        unknown = sorted(
            set(data) - {"kind", "targets", "region", "question", "body_part", "probabilities"}
        )
        if unknown:
            raise ValueError(f"a task has no {', '.join(unknown)}")
        if "kind" not in data:
            raise ValueError(f"a task needs a kind: {', '.join(TaskKind)}")
        region = data.get("region")
        return cls(
            kind=TaskKind(data["kind"]),
            targets=tuple(str(name) for name in data.get("targets", ())),
            region=None if region is None else Region.from_json(region),
            question=str(data.get("question", "")),
            body_part=str(data.get("body_part", "")),
            probabilities=bool(data.get("probabilities", False)),
        )
