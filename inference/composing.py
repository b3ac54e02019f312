"""Answers put together from masks and measurements, in sentences of our own.

The tasks that end in words need a language model that was taught to speak. Where the card lists a
task as spoken, the model's words are used (`inference.speaking`); for all others the answer is
composed here of what was segmented: what, where, how large, how sure. Nothing is said that no mask
or probability stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference import location
from inference.card import CardTarget
from inference.closed_questions import ClosedQuestion
from inference.findings import Finding, Mask, Presence
from inference.regions import Region
from inference.series import Series
from inference.tasks import Sort, TaskKind
from inference.volumes import Assembled

LEAST_OVERLAP: Final = 0.1
"""Dice of a target's mask and a region below which the region does not show the target."""
SURE_OVERLAP: Final = 0.3
"""The same, from which on the region is named without a doubt on its account."""


_LISTING: Final = (Sort.WHAT, Sort.ORGAN)
"""Questions that are answered by what is seen; masks know no organs but these."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A target and what was found of it in a series."""

    target: CardTarget
    result: Assembled


def segmentation(answered: Answered, series: Series, kind: TaskKind) -> Finding:
    """State whether a target is there, with its mask."""
    target, result = answered.target, answered.result
    text, phrase = _sentence(target, result, series)
    return _finding(answered, series, kind, text, phrase)


def report_sentence(answered: Answered, series: Series) -> Finding:
    """State what was found, where, how large and how surely; absent targets as such."""
    target, result = answered.target, answered.result
    text, phrase = _sentence(target, result, series)
    if result.mask is not None:
        place = location.where(result.mask, series)
        size = location.how_large(result.mask, series)
        text = f"{text.rstrip('.')}, {place}; {size}; {_how_sure(result)}."
    return _finding(answered, series, TaskKind.GROUNDED_REPORT, text, phrase)


def region_finding(
    answered: Sequence[Answered],
    series: Series,
    region: Region,
    kind: TaskKind,
    named: Finding | None = None,
) -> Finding:
    """Name, or describe, what a region shows.

    The target whose mask agrees best with the region, weighed by the probability that it is there
    at all; or the one that the language model named, if its mask reaches the region.

    Parameters
    ----------
    answered
        Every target of the modality, each answered on the region's frame alone.
    series
        The whole series; the mask of the finding lies on it.
    named
        What the language model said.
    """
    rows, columns = series.grid
    pixels = region.on(series.frames, rows, columns)
    described = _values(series, region.frame, pixels) if kind is TaskKind.REGION_REPORT else ""
    best, overlap = _best(answered, pixels, "" if named is None else named.target)
    prompt = _prompts(answered, series)
    if named is not None:
        prompt = f"{named.prompt} {prompt}"
    if best is None:
        names = ", ".join(item.target.name for item in answered)
        return Finding(
            target="region",
            text=f"The marked region shows none of what the model card lists ({names}).{described}",
            phrase="marked region",
            prompt=prompt,
            presence=Presence.ABSENT,
            confidence=0.0,
            task=kind.value,
        )
    result, name = best.result, best.target.name
    unsure = result.presence is Presence.UNCERTAIN or overlap < SURE_OVERLAP
    mask = _on_series(result.mask, series, region.frame)
    text = f"The marked region {'possibly shows' if unsure else 'shows'} {name}"
    if named is not None and named.target == name:
        text += ", named by the language model and reached by the mask of that name"
    if kind is TaskKind.REGION_REPORT and mask is not None:
        inside = float((mask[region.frame] & pixels).sum() / pixels.sum())
        one = series.only(region.frame)
        place = location.where(mask[region.frame][None], one)
        size = location.how_large(mask[region.frame][None], one)
        text += f", which fills {100 * inside:.0f} % of it, {place}; {size}; {_how_sure(result)}"
    return Finding(
        target=name,
        text=f"{text}.{described}",
        phrase=name,
        prompt=prompt,
        presence=Presence.UNCERTAIN if unsure else Presence.PRESENT,
        confidence=result.confidence,
        mask=mask,
        key_frame=region.frame,
        predicted_iou=result.predicted_iou,
        task=kind.value,
    )


def closed_answer(
    question: ClosedQuestion, answered: Sequence[Answered], series: Series, kind: TaskKind
) -> list[Finding]:
    """Answer a question whose answer follows from masks, and from what the series is.

    Parameters
    ----------
    answered
        The targets that the question is about.
    """
    if question.sort is Sort.MODALITY:
        # Known from the header of the images, not from the model.
        return [
            Finding(
                target="imaging modality",
                text=f"This is {_article(series.modality.name)} {series.noun}.",
                phrase=series.modality.name,
                prompt=question.words,
                presence=Presence.PRESENT,
                confidence=1.0,
                task=kind.value,
            )
        ]
    findings = [_closed(question, item, series, kind) for item in answered]
    if question.sort in _LISTING:
        seen = [one for one in findings if one.presence is not Presence.ABSENT]
        findings = seen or findings
    return findings


def _closed(
    question: ClosedQuestion, answered: Answered, series: Series, kind: TaskKind
) -> Finding:
    target, result = answered.target, answered.result
    name, mask = target.name, result.mask
    if mask is None or question.sort in (Sort.PRESENCE, *_LISTING):
        text = _yes_or_no(question, target, result, series)
    else:
        text = f"{_capital(name)}: {_measured(question.sort, mask, series)}"
        text += f" ({_how_sure(result)})."
    phrase = name if name in text else _capital(name)
    finding = _finding(answered, series, kind, text, phrase)
    return finding if kind is TaskKind.GROUNDED_QUESTION else _without_mask(finding)


def _yes_or_no(
    question: ClosedQuestion, target: CardTarget, result: Assembled, series: Series
) -> str:
    text, _ = _sentence(target, result, series)
    if question.sort is not Sort.PRESENCE:
        return text
    begin = {Presence.PRESENT: "Yes", Presence.ABSENT: "No", Presence.UNCERTAIN: "Uncertain"}
    sure = f" ({_how_sure(result)})" if result.presence is not Presence.ABSENT else ""
    return f"{begin[result.presence]}: {text[:1].lower()}{text[1:].rstrip('.')}{sure}."


def _measured(sort: Sort, mask: Mask, series: Series) -> str:
    if sort is Sort.WHERE:
        return location.where(mask, series)
    if sort is Sort.SIDE:
        found = location.side(mask, series)
        if series.axes is None:
            return "the side is unknown, because the images do not say how the patient lies"
        if found is None:
            return "in the middle of the imaged field, on neither side"
        return f"on the patient's {found} side of the imaged field"
    if sort is Sort.COUNT:
        count = location.parts(mask, whole=series.kind == "volume")
        return f"{count} separate {'part' if count == 1 else 'parts'}"
    return location.how_large(mask, series)


def _finding(answered: Answered, series: Series, kind: TaskKind, text: str, phrase: str) -> Finding:
    result = answered.result
    return Finding(
        target=answered.target.name,
        text=text,
        phrase=phrase,
        prompt=series.question(answered.target),
        presence=result.presence,
        confidence=result.confidence,
        mask=result.mask,
        key_frame=result.key_frame,
        predicted_iou=result.predicted_iou,
        task=kind.value,
        probabilities=result.probabilities,
    )


def _without_mask(finding: Finding) -> Finding:
    return Finding(
        target=finding.target,
        text=finding.text,
        phrase=finding.phrase,
        prompt=finding.prompt,
        presence=finding.presence,
        confidence=finding.confidence,
        task=finding.task,
    )


def _best(
    answered: Sequence[Answered], pixels: NDArray[np.bool_], named: str = ""
) -> tuple[Answered | None, float]:
    """Find the target that a region shows, and how well its mask agrees with the region."""
    best: Answered | None = None
    most = overlap_of_best = 0.0
    for item in answered:
        mask = item.result.mask
        if mask is None:
            continue
        found = mask[0]
        overlap = 2.0 * float((found & pixels).sum()) / float(found.sum() + pixels.sum())
        if overlap >= LEAST_OVERLAP and item.target.name == named:
            return item, overlap
        if overlap >= LEAST_OVERLAP and overlap * item.result.confidence > most:
            best, most, overlap_of_best = item, overlap * item.result.confidence, overlap
    return best, overlap_of_best


def _on_series(mask: Mask | None, series: Series, frame: int) -> Mask | None:
    """Put the mask of one frame in its place among all."""
    if mask is None:
        return None
    whole = np.zeros((series.frames, *series.grid), np.bool_)
    whole[frame] = mask[0]
    return whole


def _values(series: Series, frame: int, pixels: NDArray[np.bool_]) -> str:
    words = location.mean_value(series, frame, pixels)
    return f" In the region: {words}." if words else ""


def _prompts(answered: Sequence[Answered], series: Series) -> str:
    return " ".join(series.question(item.target) for item in answered)


def _sentence(target: CardTarget, result: Assembled, series: Series) -> tuple[str, str]:
    """State a finding in a sentence, and name the words in it that the mask speaks of."""
    name, where = target.name, f"{target.modality} {series.noun}"
    if result.presence is Presence.ABSENT:
        return f"No {name} seen in this {series.noun}.", name
    if result.presence is Presence.UNCERTAIN:
        return f"Possible {name} in this {where}; to be confirmed by a reader.", name
    text = f"{_capital(name)} seen in this {where}."
    return text, text[: len(name)]


def _how_sure(result: Assembled) -> str:
    return f"probability {min(result.confidence, 0.99):.2f}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _article(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" or word == "MRI" else f"a {word}"
