"""Questions and answers in words, made from labels and measured masks: what a model learns to say.

Answers keep to the published form: ``[SEG]`` before the name of a disease, ``<p>..</p> [SEG]`` in a
report, a bare name for a marked region. The rules that put them together also make the truth that
spoken answers are held against (`learning.evaluate_words`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from inference import prompts
from inference.prompts import MASKS_PLEASE, NONE_LISTED, PHRASE_END, PHRASE_START, SEG
from inference.tasks import Sort, TaskKind

T = TypeVar("T")

QUESTIONS: Final[dict[Sort, tuple[str, ...]]] = {
    Sort.MODALITY: (
        "Which modality is this?",
        "What imaging modality is this?",
        "What kind of image is this?",
    ),
    Sort.ORGAN: (
        "Which organ is shown?",
        "What organ is this?",
        "Which part of the body is shown?",
        "Which body part is this?",
    ),
    Sort.PRESENCE: (
        "Is there {article} {target}?",
        "Is {article} {target} present?",
        "Can {article} {target} be seen?",
        "Does the image show {article} {target}?",
    ),
    Sort.WHERE: ("Where is the {target}?", "Where is the {target} located?"),
    Sort.SIZE: (
        "How large is the {target}?",
        "What size is the {target}?",
        "How big is the {target}?",
    ),
    Sort.SIDE: (
        "Which side of the picture is the {target} on?",
        "Is the {target} on the left or the right?",
    ),
}
"""Ways to ask each sort of question; the first is the one that is measured."""
DISEASE_QUESTIONS: Final = (
    prompts.DISEASE_QUESTION,
    f"Can we see abnormality? {MASKS_PLEASE}",
    f"Are there any visible indications of abnormality? {MASKS_PLEASE}",
)
REPORT_QUESTIONS: Final = (
    prompts.REPORT_QUESTION,
    f"Could you describe the abnormality in this image? {MASKS_PLEASE}",
    f"Can you generate a brief report for this image? {MASKS_PLEASE}",
)
REGION_QUESTIONS: Final = (
    prompts.REGION_QUESTION,
    f"Can you identify the {prompts.REGION} in the image?",
)
NOTHING: Final = "Nothing that is looked for is seen."

SIZES: Final = ("very small", "small", "medium-sized", "large")
_SIZE_FROM: Final = (0.01, 0.04, 0.15)
"""Parts of the picture from which on a target is small, medium-sized, large."""
_OFF_CENTRE: Final = 0.1
"""As in `inference.location`: where a centre of gravity is off the middle."""

_CHANCES: Final[dict[TaskKind | Sort, float]] = {
    TaskKind.REGION_CLASSIFICATION: 0.22,
    TaskKind.DISEASE_RECOGNITION: 0.18,
    TaskKind.GROUNDED_REPORT: 0.20,
    TaskKind.GROUNDED_QUESTION: 0.06,
    Sort.PRESENCE: 0.12,
    Sort.WHERE: 0.04,
    Sort.SIZE: 0.06,
    Sort.SIDE: 0.03,
    Sort.ORGAN: 0.06,
    Sort.MODALITY: 0.03,
}
"""How often each task is drawn."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A target in a picture, measured.

    Attributes
    ----------
    name, modality
        In the words of the prompt.
    lesion
        Whether finding it is finding a disease.
    part
        Of the picture that it covers, 0..1; 0 where it is not there.
    down, right
        Centre of gravity from the middle of the picture, in parts of its height and width.
    column
        Which of the batch's masks is its own.
    values
        Mask values that make it up; those of a part of it are fewer.
    """

    name: str
    modality: str
    lesion: bool
    part: float
    down: float = 0.0
    right: float = 0.0
    column: int = 0
    values: frozenset[int] = frozenset()

    @property
    def phrase(self) -> str:
        """As in the segmentation prompt."""
        return prompts.TargetPrompt(self.name, self.modality).phrase


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of one picture as it is shown.

    Attributes
    ----------
    modality, organ
        In words; the organ is empty where the source does not say.
    seen
        Targets that are there, from `distinct`.
    asked
        Targets that may be asked for, with ``part`` 0 where they are absent.
    sure
        Whether ``seen`` is all there is of what the model knows: nothing hardly shows.
    """

    modality: str
    organ: str
    seen: tuple[Seen, ...]
    asked: tuple[Seen, ...]
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One question with its answer.

    Attributes
    ----------
    task
        What sort it is.
    masks
        For each ``[SEG]`` of the answer, the mask that it speaks of.
    region
        The mask whose box is drawn on the picture; ``None`` draws none, and -1 a box anywhere.
    """

    task: TaskKind | Sort
    question: str
    answer: str
    masks: tuple[int, ...] = ()
    region: int | None = None


def distinct(seen: Sequence[Seen], within: float = 0.98) -> tuple[Seen, ...]:
    """Drop what is wholly made up by one of its own kinds or parts, which says more.

    "Breast tumour" goes beside "benign breast tumour"; the hippocampus stays beside its parts
    where both are in the picture.

    Parameters
    ----------
    within
        Part of the area of the whole from which on a kind or part counts as all of it.
    """
    return tuple(
        one
        for one in seen
        if not any(other.values < one.values and other.part >= one.part * within for other in seen)
    )


def centre_of(marginal: NDArray[np.floating | np.integer]) -> float:
    """Return where a marginal's centre of gravity lies, from its middle, in parts of its length."""
    place = float((marginal * np.arange(marginal.size)).sum() / marginal.sum())
    return (place - (marginal.size - 1) / 2) / marginal.size


def size_word(part: float) -> str:
    """Name the size class of a part of the picture."""
    return SIZES[int(np.searchsorted(_SIZE_FROM, part, side="right"))]


def place_words(seen: Seen) -> str:
    """Say in which part of the picture a target lies: ``"upper left"``, or ``"middle"``."""
    names = [
        pair[int(value > 0)]
        for value, pair in ((seen.down, ("upper", "lower")), (seen.right, ("left", "right")))
        if abs(value) > _OFF_CENTRE
    ]
    return " ".join(names) or "middle"


def _place(seen: Seen) -> str:
    words = place_words(seen)
    return "middle of the picture" if words == "middle" else f"{words} part of the picture"


def ask(wording: str, target: str) -> str:
    """Put a target into the wording of a question."""
    article = "an" if target[:1].lower() in "aeiou" else "a"
    return wording.format(target=target, article=article)


def disease_answer(seen: Sequence[Seen]) -> str:
    """Name the lesions, each after its ``[SEG]``."""
    lesions = [one for one in seen if one.lesion]
    return " ".join(f"It is {SEG}. {one.phrase}." for one in lesions) or NOTHING


def report_answer(seen: Sequence[Seen]) -> str:
    """Say what is seen, how large and where, a phrase with a ``[SEG]`` each."""
    sentences = [
        f"{PHRASE_START} {size_word(one.part)} {one.name} in the {_place(one)} {PHRASE_END} {SEG}."
        for one in seen
    ]
    return " ".join(sentences) or NOTHING


def presence_answer(name: str, *, there: bool) -> str:
    """Say yes or no."""
    return f"Yes, {name} is seen." if there else f"No, {name} is not seen."


def closed_answer(sort: Sort, asked: Seen) -> str:
    """Answer what is asked of one target."""
    if sort is Sort.PRESENCE or not asked.part:
        return presence_answer(asked.name, there=bool(asked.part))
    if sort is Sort.WHERE:
        return f"In the {_place(asked)}."
    if sort is Sort.SIZE:
        return f"It is {size_word(asked.part)}."
    words = [word for word in place_words(asked).split() if word in ("left", "right")]
    return f"On the {words[0]} side of the picture." if words else "In the middle of the picture."


def draw_dialogue(scene: Scene, draw: np.random.Generator) -> Dialogue:
    """Draw a task that the picture allows, its wording and its answer."""
    kinds = list(_CHANCES)
    weights = np.array([_CHANCES[kind] if _possible(kind, scene) else 0.0 for kind in kinds])
    kind = kinds[int(draw.choice(len(kinds), p=weights / weights.sum()))]
    if isinstance(kind, Sort):
        return _closed(kind, scene, draw)
    if kind is TaskKind.REGION_CLASSIFICATION:
        question = _any(draw, REGION_QUESTIONS)
        if not scene.seen:
            return Dialogue(kind, question, NONE_LISTED, region=-1)
        one = _any(draw, scene.seen)
        return Dialogue(kind, question, one.phrase, region=one.column)
    if kind is TaskKind.GROUNDED_QUESTION:
        one = _any(draw, scene.asked)
        question = f"{ask(_any(draw, QUESTIONS[Sort.PRESENCE]), one.name)} {MASKS_PLEASE}"
        if not one.part:
            return Dialogue(kind, question, presence_answer(one.name, there=False))
        answer = f"Yes, {PHRASE_START} {one.name} {PHRASE_END} {SEG}."
        return Dialogue(kind, question, answer, (one.column,))
    if kind is TaskKind.DISEASE_RECOGNITION:
        masks = tuple(one.column for one in scene.seen if one.lesion)
        return Dialogue(kind, _any(draw, DISEASE_QUESTIONS), disease_answer(scene.seen), masks)
    masks = tuple(one.column for one in scene.seen)
    return Dialogue(kind, _any(draw, REPORT_QUESTIONS), report_answer(scene.seen), masks)


def _possible(kind: TaskKind | Sort, scene: Scene) -> bool:
    if kind is Sort.ORGAN:
        return bool(scene.organ)
    if kind is Sort.MODALITY:
        return True
    if kind in (
        TaskKind.DISEASE_RECOGNITION,
        TaskKind.GROUNDED_REPORT,
        TaskKind.REGION_CLASSIFICATION,
    ):
        return scene.sure
    return bool(scene.asked)


def _closed(sort: Sort, scene: Scene, draw: np.random.Generator) -> Dialogue:
    question = _any(draw, QUESTIONS[sort])
    if sort is Sort.MODALITY:
        return Dialogue(sort, question, f"This is {scene.modality}.")
    if sort is Sort.ORGAN:
        return Dialogue(sort, question, f"The {scene.organ}.")
    there = [one for one in scene.asked if one.part]
    # How large, where: mostly of what is there.
    chosen = there if sort is not Sort.PRESENCE and there and draw.random() < 0.85 else scene.asked
    one = _any(draw, chosen)
    return Dialogue(sort, ask(question, one.name), closed_answer(sort, one))


def _any(draw: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(draw.integers(len(items)))]
