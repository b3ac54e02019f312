"""Measure answers in a model's own words beside those composed from its masks, on one scale.

Both ways answer the same questions about the same pictures; composed answers are put into the
words that the model was taught (`learning.dialogues`), so that both are held against the same
truth, which is made of the true masks. Of a volume its middle slice is asked about.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from inference import answers
from inference.card import ModelCard, SpokenTask
from inference.engine import Engine
from inference.findings import Finding, Presence
from inference.prompts import NONE_LISTED
from inference.regions import Region
from inference.tasks import Sort, Task, TaskKind
from learning.cases import Case
from learning.dialogues import (
    QUESTIONS,
    Seen,
    ask,
    centre_of,
    closed_answer,
    disease_answer,
    distinct,
    presence_answer,
    report_answer,
)
from learning.metrics import bootstrap_mean, dice
from learning.recipe import Recipe
from learning.wording import beside_majority, exact

Way = Literal["own words", "composed"]
WAYS: Final[tuple[Way, Way]] = ("own words", "composed")
TAUGHT: Final = (
    TaskKind.REGION_CLASSIFICATION,
    TaskKind.DISEASE_RECOGNITION,
    TaskKind.QUESTION,
    TaskKind.GROUNDED_REPORT,
)
_OF_TARGETS: Final = (Sort.PRESENCE, Sort.WHERE, Sort.SIZE, Sort.SIDE)
_TRIES: Final = 40
_WITHIN: Final = 0.7
"""Of a found mask that one of its kinds must cover to stand for it: the two were drawn apart."""

Mask = NDArray[np.bool_]


@dataclass
class Answered:
    """Answers to one sort of question, both ways, beside the expected ones.

    Attributes
    ----------
    choices
        For each item the answers that may be given most often, by their class: for "is it there"
        yes and no, which name the target that is asked for; otherwise the expected answer itself.
    classes
        The class of each expected answer.
    groups
        Patient or cluster of each item.
    """

    expected: list[str] = field(default_factory=list)
    choices: list[Mapping[str, str]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    said: dict[Way, list[str]] = field(default_factory=lambda: defaultdict(list))
    groups: list[str] = field(default_factory=list)

    @property
    def majority(self) -> list[str]:
        """The answer that is right most often, for each item."""
        most, _ = Counter(self.classes).most_common(1)[0]
        return [choices.get(most, most) for choices in self.choices]


@dataclass
class Heard:
    """All answers, and the Dice of the masks of reports."""

    tasks: dict[str, Answered] = field(default_factory=lambda: defaultdict(Answered))
    masks: dict[Way, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class _Question:
    name: str
    task: Task
    expected: str
    choices: Mapping[str, str] = field(default_factory=dict)


def hear(engine: Engine, cases: Iterable[Case], recipe: Recipe) -> Heard:
    """Ask every case both ways.

    Parameters
    ----------
    recipe
        Of the model: which targets are kinds or parts of others, and which organ a set shows.
    """
    heard = Heard()
    spoken = tuple(
        SpokenTask(kind=kind, metric="accuracy", value=0, baseline=0, items=1, groups=1)
        for kind in TAUGHT
    )
    engines: dict[Way, Engine] = {
        "own words": engine.with_card(engine.card.model_copy(update={"spoken": spoken})),
        "composed": engine.with_card(engine.card.model_copy(update={"spoken": ()})),
    }
    sources = {source.folder: source for source in recipe.sources}
    for case in cases:
        picture = _picture(case)
        source = sources[case.source]
        values = {key: frozenset(value) for key, value in source.targets.items()}
        truths = _seen(picture.truths, picture.modality, engine.card, values)
        if truths:
            _ask(engines, picture, truths, values, source.organ, heard)
    return heard


def summarise_speech(heard: Heard) -> list[dict[str, Any]]:
    """Sum the answers up, one line for each task and way.

    Returns
    -------
    list of dict
        ``task``, ``way``, ``items``, ``groups``, what `learning.wording.beside_majority` gives,
        and ``low`` and ``high``: 95 % interval of the accuracy, drawn by group. The last lines have
        the mean Dice of the masks that reports speak of.
    """
    lines = [_line(name, way, answered) for name, answered in heard.tasks.items() for way in WAYS]
    return lines + [
        {"task": "masks of reports", "way": way, "items": len(found), "dice": float(np.mean(found))}
        for way, found in heard.masks.items()
    ]


def _picture(case: Case) -> Case:
    """Return one picture of a case: the middle slice of a volume."""
    middle = slice(case.images.shape[0] // 2, case.images.shape[0] // 2 + 1)
    return dataclasses.replace(
        case,
        images=case.images[middle],
        kind="images",
        spacing=None,
        truths={name: mask[middle] for name, mask in case.truths.items()},
    )


def _seen(
    masks: Mapping[str, Mask], modality: str, card: ModelCard, values: Mapping[str, frozenset[int]]
) -> dict[str, Seen]:
    """Measure the masks of listed targets on one picture."""
    seen = {}
    for name, mask in masks.items():
        target = card.target(modality, name)
        if target is not None:
            seen[name] = measured(
                mask[0],
                Seen(
                    name=name,
                    modality=modality,
                    lesion=target.category == "lesion",
                    part=0.0,
                    values=values.get(f"{name}, {modality}", frozenset()),
                ),
            )
    return seen


def measured(mask: Mask, target: Seen) -> Seen:
    """Fill in what a mask ``(rows, columns)`` says of a target."""
    if not mask.any():
        return target
    down, right = (centre_of(mask.sum(axis=axis)) for axis in (1, 0))
    return dataclasses.replace(target, part=float(mask.mean()), down=down, right=right)


def _ask(
    engines: Mapping[Way, Engine],
    case: Case,
    truths: Mapping[str, Seen],
    values: Mapping[str, frozenset[int]],
    organ: str,
    heard: Heard,
) -> None:
    shown = distinct([one for one in truths.values() if one.part])
    questions = list(_closed(case.modality, organ, truths, shown))
    for one in shown:
        region = Region(Region.of_mask(case.truths[one.name][0]).box)
        task = Task(TaskKind.REGION_CLASSIFICATION, region=region)
        questions.append(_Question("region", task, one.name))
    empty = _empty_box(case)
    if empty is not None:
        task = Task(TaskKind.REGION_CLASSIFICATION, region=empty)
        questions.append(_Question("empty region", task, NONE_LISTED))
    questions.append(
        _Question("disease", Task(TaskKind.DISEASE_RECOGNITION), _plain(disease_answer(shown)))
    )
    report = _Question("report", Task(TaskKind.GROUNDED_REPORT), _plain(report_answer(shown)))
    questions.append(report)
    for question in questions:
        answered = heard.tasks[question.name]
        answered.expected.append(question.expected)
        answered.choices.append(question.choices or {question.expected: question.expected})
        answered.classes.append(
            next(name for name, text in answered.choices[-1].items() if text == question.expected)
        )
        answered.groups.append(case.group)
    spoken = [_answer(engines["own words"], case, [question.task]) for question in questions]
    for question, findings in zip(questions, spoken, strict=True):
        words = " ".join(_own_words(question, one) for one in findings)
        heard.tasks[question.name].said["own words"].append(words)
    _keep_masks(heard, "own words", case, shown, spoken[-1])
    regions = [
        question.task
        for question in questions
        if question.task.kind is TaskKind.REGION_CLASSIFICATION
    ]
    names = Task(TaskKind.SEGMENTATION, tuple(truths))
    # Asked together, regions share what is found in the picture; each has one finding.
    found = _answer(engines["composed"], case, [names, *regions])
    found, marked = found[: len(truths)], found[len(truths) :]
    for question, words in zip(
        questions, _composed(questions, case, found, marked, engines["composed"].card, values),
        strict=True,
    ):  # fmt: skip
        heard.tasks[question.name].said["composed"].append(words)
    _keep_masks(heard, "composed", case, shown, found)


def _empty_box(case: Case) -> Region | None:
    """Draw a box that holds nothing of any target, the same in every evaluation."""
    draw = np.random.default_rng(zlib.crc32(case.name.encode()))
    grid = case.images.shape[1:3]
    anything = np.any([mask[0] for mask in case.truths.values()], axis=0)
    for _ in range(_TRIES):
        sides = [max(4, int(side * draw.uniform(0.12, 0.3))) for side in grid]
        top, left = (
            int(draw.integers(max(1, side - own))) for side, own in zip(grid, sides, strict=True)
        )
        region = Region.of_box(top, left, top + sides[0], left + sides[1])
        if min(grid) > 4 and not (region.on(1, *grid) & anything).any():
            return region
    return None


def _closed(
    modality: str, organ: str, truths: Mapping[str, Seen], shown: Sequence[Seen]
) -> Iterable[_Question]:
    """List closed questions with their answers, in the first wording of each sort."""

    def asked(sort: Sort, target: str = "") -> Task:
        return Task(TaskKind.QUESTION, question=ask(QUESTIONS[sort][0], target))

    yield _Question("modality", asked(Sort.MODALITY), f"This is {modality}.")
    if organ:
        yield _Question("organ", asked(Sort.ORGAN), f"The {organ}.")
    for one in truths.values():
        choices = {
            "yes": presence_answer(one.name, there=True),
            "no": presence_answer(one.name, there=False),
        }
        expected = choices["yes" if one.part else "no"]
        yield _Question("presence", asked(Sort.PRESENCE, one.name), expected, choices)
    for sort in _OF_TARGETS[1:]:
        for one in shown:
            yield _Question(sort.value, asked(sort, one.name), closed_answer(sort, one))


def _answer(engine: Engine, case: Case, tasks: Sequence[Task]) -> list[Finding]:
    return list(
        engine.answer(
            case.images, modality=case.modality, kind="images", tasks=tasks, rendered=case.rendered
        ).findings
    )


def _own_words(question: _Question, finding: Finding) -> str:
    if question.task.kind is not TaskKind.REGION_CLASSIFICATION:
        return finding.text
    return finding.target if finding.target not in ("model's answer", "region") else NONE_LISTED


def _composed(
    questions: Sequence[_Question],
    case: Case,
    found: Sequence[Finding],
    marked: Sequence[Finding],
    card: ModelCard,
    values: Mapping[str, frozenset[int]],
) -> list[str]:
    """Put what the masks say into the words of the same answers."""
    masks = {
        one.target: one.mask if one.mask is not None else np.zeros_like(case.truths[one.target])
        for one in found
    }
    seen = _seen(masks, case.modality, card, values)
    sure = {one.target: one.confidence for one in found if one.mask is not None}
    shown = _without_rivals(distinct([one for one in seen.values() if one.part], _WITHIN), sure)
    present = {one.target for one in found if one.presence is Presence.PRESENT}
    regions = iter(marked)
    asked = iter(seen.values())
    result = []
    for question in questions:
        if question.name == "modality":
            result.append(f"This is {case.modality}.")
        elif question.name == "organ":
            # Masks know no organs: the names of what is seen are all there is to say.
            result.append(", ".join(one.name for one in shown))
        elif question.name == "presence":
            one = next(asked)
            result.append(presence_answer(one.name, there=one.name in present))
        elif question.task.kind is TaskKind.REGION_CLASSIFICATION:
            target = next(regions).target
            result.append(target if target != "region" else NONE_LISTED)
        elif question.name == "disease":
            result.append(_plain(disease_answer(shown)))
        elif question.name == "report":
            result.append(_plain(report_answer(shown)))
        else:
            name = max((name for name in seen if name in question.task.question), key=len)
            result.append(closed_answer(Sort(question.name), seen[name]))
    return result


def _without_rivals(seen: Sequence[Seen], sure: Mapping[str, float]) -> tuple[Seen, ...]:
    """Of kinds that exclude each other, benign and malignant, keep the surer."""
    return tuple(
        one
        for one in seen
        if not any(
            other.lesion and one.lesion and sure[other.name] > sure[one.name] for other in seen
        )
    )


def _keep_masks(
    heard: Heard, way: Way, case: Case, shown: Sequence[Seen], findings: Sequence[Finding]
) -> None:
    """Dice of each target that is shown; 0 where the answer has no mask of it."""
    masks = {one.target: one.mask for one in findings if one.mask is not None}
    for one in shown:
        truth = case.truths[one.name]
        heard.masks[way].append(dice(masks.get(one.name, np.zeros_like(truth)), truth))


def _plain(answer: str) -> str:
    """Return the words of an answer as they are read by the node."""
    return " ".join(piece.sentence for piece in answers.parse(answer))


def _line(name: str, way: Way, answered: Answered) -> dict[str, Any]:
    said, expected = answered.said[way], answered.expected
    low, high = bootstrap_mean(exact(said, expected), answered.groups, seed=0)
    return {
        "task": name,
        "way": way,
        "items": len(expected),
        "groups": len(set(answered.groups)),
        **beside_majority(said, expected, answered.majority),
        "low": low,
        "high": high,
    }
