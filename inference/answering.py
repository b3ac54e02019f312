"""From a task to its findings: what the card covers, and which way it is answered."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from inference import closed_questions, composing
from inference.card import CardTarget, ModelCard, SpokenTask
from inference.checkpoints import Checkpoint
from inference.closed_questions import ClosedQuestion
from inference.composing import Answered
from inference.errors import FinalInferenceError, NotCoveredError
from inference.findings import Finding, Presence
from inference.prompts import NONE_LISTED
from inference.segmenting import Segmenter
from inference.series import Series
from inference.speaking import speak
from inference.tasks import QUESTION_TASKS, Task, TaskKind
from inference.volumes import Assembled, assemble

Key = tuple[int | None, str, bool]
"""What was looked for where: the frame of a region (``None``: all frames), the target's name, and
whether the probability of each pixel is wanted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A task that the card covers.

    Attributes
    ----------
    task
        As asked.
    targets
        What is segmented for it.
    question
        What a question in words was understood as; ``None`` for other tasks, and where the
        language model answers.
    spoken
        How the language model answers it; ``None`` where the answer is composed from masks. What it
        names a region is confirmed by masks where they can tell.
    """

    task: Task
    targets: tuple[CardTarget, ...]
    question: ClosedQuestion | None = None
    spoken: SpokenTask | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """What has to be found for it, one for each target."""
        frame = None if self.task.region is None else self.task.region.frame
        return tuple((frame, target.name, self.task.probabilities) for target in self.targets)


def plan(task: Task, card: ModelCard, series: Series) -> Plan:
    """Look a task up on the card.

    Raises
    ------
    NotCoveredError
        When the card does not list what is asked for.
    FinalInferenceError
        When the region does not lie on the images.
    """
    modality = series.modality.name
    if task.region is not None:
        try:
            task.region.on(series.frames, *series.grid)
        except ValueError as error:
            raise FinalInferenceError(str(error)) from error
    named = tuple(_listed(card, modality, name) for name in task.targets)
    if task.kind is TaskKind.SEGMENTATION:
        return Plan(task, named)
    spoken = card.spoken_task(task.kind)
    if spoken is not None and task.kind is not TaskKind.RECOGNITION:
        confirming = task.kind is TaskKind.REGION_CLASSIFICATION and not named
        targets = _belonging(card, modality, task.body_part) if confirming else named
        return Plan(task, targets, spoken=spoken)
    if task.kind in QUESTION_TASKS:
        question = closed_questions.understand(task.question, card, modality)
        spoken = card.spoken_task(task.kind, question.sort)
        if spoken is not None:
            return Plan(task, (), spoken=spoken)
        return Plan(task, question.targets, question)
    targets = named or _belonging(card, modality, task.body_part)
    if task.kind is TaskKind.DISEASE_RECOGNITION:
        targets = tuple(target for target in targets if target.category == "lesion")
    if not targets:
        what = "abnormality" if task.kind is TaskKind.DISEASE_RECOGNITION else "target"
        where = f"{modality} images" + (f" of {task.body_part}" if task.body_part else "")
        raise NotCoveredError(f"The model card of {card.name} lists no {what} in {where}.")
    return Plan(task, targets)


def answer(
    planned: Plan,
    checkpoint: Checkpoint,
    segmenter: Segmenter,
    series: Series,
    known: dict[Key, Assembled],
) -> Generator[float, None, list[Finding]]:
    """Answer a planned task.

    Parameters
    ----------
    known
        What earlier tasks found in this series: it is not looked for again. Filled further.

    Yields
    ------
    float
        The fraction that is done, after each batch of slices.
    """
    task = planned.task
    named: Finding | None = None
    if planned.spoken is not None:
        said = yield from speak(checkpoint, segmenter, series, task, planned.spoken)
        named = _to_confirm(task, said, planned.targets)
        if named is None:
            return said
    seen = series.only(task.region.frame) if task.region is not None else series
    looked_for = list(zip(planned.keys, planned.targets, strict=True))
    unknown = {key: target for key, target in looked_for if key not in known}
    if unknown:
        slices = yield from segmenter.segment(seen, tuple(unknown.values()))
        for (key, target), one in zip(unknown.items(), slices, strict=True):
            known[key] = assemble(
                one,
                target,
                kind=seen.kind,
                grid=seen.grid,
                spacing=seen.spacing,
                probabilities=task.probabilities,
            )
    answered = [Answered(target, known[key]) for key, target in looked_for]
    if planned.question is not None:
        return composing.closed_answer(planned.question, answered, series, task.kind)
    if task.region is not None:
        return [composing.region_finding(answered, series, task.region, task.kind, named)]
    if task.kind is TaskKind.GROUNDED_REPORT:
        return [composing.report_sentence(item, series) for item in answered]
    return [composing.segmentation(item, series, task.kind) for item in answered]


def _to_confirm(
    task: Task, said: Sequence[Finding], targets: Sequence[CardTarget]
) -> Finding | None:
    """Return the name of a region, if masks can tell whether what it names is there.

    A model that is shown a box hardly ever says that nothing is in it.
    """
    if task.kind is not TaskKind.REGION_CLASSIFICATION or not targets or len(said) != 1:
        return None
    one = said[0]
    listed = one.target in {target.name for target in targets}
    in_words = one.mask is None and one.presence is Presence.UNCERTAIN
    return one if in_words and (listed or one.text == NONE_LISTED) else None


def _listed(card: ModelCard, modality: str, name: str) -> CardTarget:
    target = card.target(modality, name)
    if target is None:
        raise NotCoveredError(card.covers(modality, name) or f"{name} is not covered")
    return target


def _belonging(card: ModelCard, modality: str, body_part: str) -> tuple[CardTarget, ...]:
    """Targets of a modality, without those that belong to other parts of the body."""
    part = body_part.strip().upper()
    return tuple(
        item
        for item in card.targets
        if item.modality == modality
        and (not part or not item.body_parts or part in item.body_parts)
    )
