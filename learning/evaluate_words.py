"""Measure the tasks that end in words: what a region shows, closed questions, reports.

Through the engine, of whole series, as a user gets them. The truth of each is composed from the
true masks, by the same rules as the answers; beside each figure stands what the most frequent
answer would have scored. Which way of answering is better is measured elsewhere, on single pictures
of a recipe's sets (`learning.evaluate_speech`): any data can be evaluated here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference import composing
from inference.card import CardTarget
from inference.engine import Engine
from inference.findings import Presence
from inference.regions import Region
from inference.series import Series
from inference.tasks import Task, TaskKind
from inference.volumes import Assembled
from learning.cases import Case
from learning.wording import beside_majority

_MODALITY_QUESTION: Final = "Which modality is this?"


@dataclass
class Said:
    """Answers of one task beside the expected ones."""

    found: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)

    def add(self, found: str, expected: str, group: str) -> None:
        """Keep one pair."""
        self.found.append(found)
        self.expected.append(expected)
        self.groups.add(group)


def measure_words(engine: Engine, cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Ask regions, questions and reports of cases; one line for each task.

    Returns
    -------
    list of dict
        ``task``, ``items``, ``groups``, and what `learning.wording.beside_majority` gives.
    """
    said = {name: Said() for name in ("region", "present or not", "modality", "size", "report")}
    for case in cases:
        targets = [
            target
            for name in case.truths
            if (target := engine.card.target(case.modality, name)) is not None
        ]
        if targets:
            _ask(engine, case, targets, said)
    return [_line(name, one) for name, one in said.items() if one.found]


def _ask(engine: Engine, case: Case, targets: Sequence[CardTarget], said: dict[str, Said]) -> None:
    modality = engine.card.modality(case.modality)
    if modality is None:
        return
    series = Series(case.images, modality, case.kind, case.spacing, rendered=case.rendered)
    names = tuple(target.name for target in targets)
    tasks = [
        Task(TaskKind.GROUNDED_REPORT, names),
        Task(TaskKind.QUESTION, question=_MODALITY_QUESTION),
        *(Task(TaskKind.QUESTION, question=f"Is there a {name}?") for name in names),
    ]
    shown = [name for name in names if case.truths[name].any()]
    tasks += [Task(TaskKind.QUESTION, question=f"How large is the {name}?") for name in shown]
    tasks += [
        Task(TaskKind.REGION_CLASSIFICATION, region=_region(case.truths[name])) for name in shown
    ]
    found = engine.answer(
        case.images,
        modality=case.modality,
        kind=case.kind,
        tasks=tasks,
        spacing=case.spacing,
        rendered=case.rendered,
    ).findings
    report = " ".join(one.text for one in found if one.task == TaskKind.GROUNDED_REPORT)
    truth = " ".join(_true_sentence(target, case, series) for target in targets)
    said["report"].add(report, truth, case.group)
    answers = iter([one for one in found if one.task == TaskKind.QUESTION])
    said["modality"].add(next(answers).phrase, case.modality, case.group)
    for name in names:
        yes = next(answers).presence is Presence.PRESENT
        truly = bool(case.truths[name].any())
        said["present or not"].add("yes" if yes else "no", "yes" if truly else "no", case.group)
    for name in shown:
        answer = next(answers)
        said["size"].add(
            _size_class(answer.text), _size_class(_size(case.truths[name], series)), case.group
        )
    regions = [one for one in found if one.task == TaskKind.REGION_CLASSIFICATION]
    for name, one in zip(shown, regions, strict=True):
        said["region"].add(one.target, name, case.group)


def _region(mask: NDArray[np.bool_]) -> Region:
    """Bounding box of a mask on the frame that shows most of it."""
    frame = int(mask.sum(axis=(1, 2)).argmax())
    return Region(Region.of_mask(mask[frame]).box, frame)


def _true_sentence(target: CardTarget, case: Case, series: Series) -> str:
    """Return the sentence of a report that knew the truth."""
    mask = case.truths[target.name]
    if mask.any():
        frame = int(mask.sum(axis=(1, 2)).argmax())
        result = Assembled(Presence.PRESENT, 1.0, mask, frame, 1.0)
    else:
        result = Assembled(Presence.ABSENT, 0.0, None, None, None)
    return composing.report_sentence(composing.Answered(target, result), series).text


def _size(mask: NDArray[np.bool_], series: Series) -> str:
    from inference.location import how_large

    return how_large(mask, series)


def _size_class(text: str) -> str:
    """Bring a stated size to a class: the power of two that its first number is nearest to."""
    numbers = [word for word in text.replace("(", " ").split() if _is_number(word)]
    if not numbers or float(numbers[0]) <= 0:
        return "none"
    return f"2^{round(float(np.log2(float(numbers[0]))))}"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _line(name: str, said: Said) -> dict[str, Any]:
    majority, _ = Counter(said.expected).most_common(1)[0]
    return {
        "task": name,
        "items": len(said.found),
        "groups": len(said.groups),
        **beside_majority(said.found, said.expected, [majority] * len(said.expected)),
    }
