"""Choose what a model is let answer in its own words: what it was measured to say better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from inference.card import SpokenTask
from inference.tasks import Sort, TaskKind
from learning.evaluate_speech import WAYS

_TASKS: Final[dict[str, tuple[TaskKind, Sort | None]]] = {
    "region": (TaskKind.REGION_CLASSIFICATION, None),
    "disease": (TaskKind.DISEASE_RECOGNITION, None),
    "report": (TaskKind.GROUNDED_REPORT, None),
    **{
        sort.value: (TaskKind.QUESTION, sort)
        for sort in (Sort.MODALITY, Sort.ORGAN, Sort.PRESENCE, Sort.WHERE, Sort.SIZE, Sort.SIDE)
    },
}
_TOLERANCE: Final = 0.01
"""By which named regions may be worse where nothing is to be named."""


def name_of(item: SpokenTask) -> str:
    """Return the name that `learning.evaluate_speech` measured a task under."""
    return next(name for name, task in _TASKS.items() if task == (item.kind, item.sort))


def spoken_tasks(lines: Iterable[Mapping[str, Any]]) -> tuple[SpokenTask, ...]:
    """Choose what a model is let answer in its own words: what it says better than its masks do.

    Better is a higher accuracy than that of the composed answer and of the most frequent one. A
    report is held by its ROUGE-L; regions are not named where that names empty ones, too.
    """
    by_way = {(line["task"], line["way"]): line for line in lines if "accuracy" in line}
    chosen = []
    for name, (kind, sort) in _TASKS.items():
        own, composed = (by_way.get((name, way)) for way in WAYS)
        if own is None or composed is None:
            continue
        if name == "region":
            worse = [by_way["empty region", way]["accuracy"] for way in WAYS]
            if worse[0] < worse[1] - _TOLERANCE:
                continue
        metric = "ROUGE-L" if kind is TaskKind.GROUNDED_REPORT else "accuracy"
        baseline = own[f"{metric}_of_majority"]
        if own[metric] > max(composed[metric], baseline):
            chosen.append(
                SpokenTask(
                    kind=kind,
                    sort=sort,
                    metric=metric,
                    value=round(own[metric], 4),
                    baseline=round(baseline, 4),
                    items=own["items"],
                    groups=own["groups"],
                )
            )
    return tuple(chosen)
