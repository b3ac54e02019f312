"""Choose what a model is let answer in its own words: what it says better than its masks do.

Chosen on calibration groups, so that what the report and the card then say of the chosen way, on
test groups, was not picked for being high there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, Literal

from inference.card import SpokenTask
from inference.tasks import Sort, TaskKind
from learning.evaluate_speech import WAYS, Answered, Heard
from learning.metrics import Comparison, compare
from learning.wording import exact, rouge_l

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

Metric = Literal["accuracy", "ROUGE-L"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One task, answered both ways on calibration groups.

    Attributes
    ----------
    metric
        Which decides: the ROUGE-L of a report, the accuracy of all else.
    own, composed, majority
        It, of the model's own words, of the composed answer, and of the most frequent one.
    gain
        Own words above composed.
    groups
        Number of patients or clusters.
    spoken
        Whether the model is let answer in its own words.
    """

    task: str
    metric: Metric
    own: float
    composed: float
    majority: float
    gain: Comparison
    groups: int
    spoken: bool


def choices(heard: Heard) -> tuple[Choice, ...]:
    """Choose, task by task, from what calibration groups were answered.

    Own words are chosen where they are better than the composed answer and than the most frequent
    one. Regions are not named where that names empty ones, too.
    """
    empty = heard.tasks.get("empty region")
    return tuple(
        _choice(name, answered, empty)
        for name in _TASKS
        if (answered := heard.tasks.get(name)) is not None
    )


def spoken_tasks(
    chosen: Iterable[Choice], tested: Sequence[Mapping[str, Any]]
) -> tuple[SpokenTask, ...]:
    """Put what was chosen on the card, with the figures of the test groups.

    Parameters
    ----------
    tested
        From `learning.evaluate_speech.summarise_speech`.
    """
    own = {line["task"]: line for line in tested if line["way"] == "own words"}
    result = []
    for choice in chosen:
        if not choice.spoken or choice.task not in own:
            continue
        line, (kind, sort) = own[choice.task], _TASKS[choice.task]
        result.append(
            SpokenTask(
                kind=kind,
                sort=sort,
                metric=choice.metric,
                value=round(line[choice.metric], 4),
                baseline=round(line[f"{choice.metric}_of_majority"], 4),
                items=line["items"],
                groups=line["groups"],
            )
        )
    return tuple(result)


def _choice(name: str, answered: Answered, empty: Answered | None) -> Choice:
    metric: Metric = "ROUGE-L" if name == "report" else "accuracy"
    score = rouge_l if metric == "ROUGE-L" else exact
    own, composed, majority = (
        score(said, answered.expected)
        for said in (answered.said["own words"], answered.said["composed"], answered.majority)
    )
    spoken = fmean(own) > max(fmean(composed), fmean(majority))
    if name == "region" and empty is not None:
        spoken = spoken and _leaves_empty_alone(empty)
    return Choice(
        task=name,
        metric=metric,
        own=fmean(own),
        composed=fmean(composed),
        majority=fmean(majority),
        gain=compare(composed, own, answered.groups),
        groups=len(set(answered.groups)),
        spoken=spoken,
    )


def _leaves_empty_alone(empty: Answered) -> bool:
    """Whether own words name regions that show nothing hardly more often than masks do."""
    own, composed = (fmean(exact(empty.said[way], empty.expected)) for way in WAYS)
    return own >= composed - _TOLERANCE
