"""Which series of a study become jobs: the typed form of ``rules.yaml``, and the plan.

A job is one *source* (a volume or a single image) under one *rule*. `plan` is a pure function:
it never looks at files, database or network, and says in words why each pair that it did not
choose was left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import BeforeValidator, Field
from pydicom import Dataset

from dicom_node.objects.series import SetAside, Source
from dicom_node.plain_text import one_line
from workflows.conditions import AnyCondition, Keyword, matches, shown, values_of
from workflows.hours import Hours
from workflows.rules_checks import problems_of
from workflows.setting_values import AeTitle, Flag, Name, Settings
from workflows.settings import NodeSettings
from workflows.yaml_positions import (
    ConfigurationError,
    MarkedYaml,
    validate,
)

Priority = Literal["stat", "urgent", "routine"]
QUEUE_PRIORITIES: Final[dict[Priority, int]] = {"stat": 0, "urgent": 3, "routine": 6}
"""Priority steps of the queue, 0 first (kombu's Redis transport with ``priority_steps``)."""

_NOT_AS_ACQUIRED: Final = frozenset(
    {
        "PROJECTION IMAGE",
        "SCREEN SAVE",
        "MIP",
        "MAX_IP",
        "MIN_IP",
        "MINIP",
        "VOLUME_RENDER",
        "SURFACE_RENDER",
        "VRT",
        "SSD",
    }
)
"""Values 3 and 4 of Image Type that say that the pixels are a rendering (PS3.3 C.8.16.1)."""


class NamedTarget(Protocol):
    """A target of the model card."""

    @property
    def name(self) -> str:
        """What the target is called in the card and in rules."""
        ...

    @property
    def category(self) -> str:
        """``anatomy`` or ``lesion``."""
        ...


class Card(Protocol):
    """What the plan asks of the model card; `inference.card` answers it without torch."""

    def targets_for(self, dicom_modality: str, body_part: str = "") -> Sequence[NamedTarget]:
        """Return the targets that the model knows in a series.

        With a value of Body Part Examined (0018,0015), those that belong elsewhere are left out.
        """
        ...


def _all_or_list(what: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str) and value != "all":
            return [value]
        return value

    return BeforeValidator(check)


Names = Annotated[
    Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)], _all_or_list("names")
]
AeTitles = Annotated[
    Literal["any"] | Annotated[tuple[AeTitle, ...], Field(min_length=1)],
    BeforeValidator(lambda value: [value] if isinstance(value, str) and value != "any" else value),
]
StudyTask = Literal["segmentation", "disease_recognition", "grounded_report"]
"""Values of `inference.tasks.TaskKind` that need nobody who asks."""
Patterns = Annotated[tuple[str, ...], _all_or_list("patterns")]


class SeriesSelection(Settings):
    """``series``: which series of the study a rule looks at."""

    modality: Names = "all"
    original_only: Flag = True
    description: Patterns = ()
    not_description: Patterns = ()


class Rule(Settings):
    """One entry of ``rules``."""

    name: Name
    called: AeTitles = "any"
    when: dict[Keyword, AnyCondition] = Field(default_factory=dict)
    minimum_instances: Annotated[int, Field(strict=True, ge=1)] = 1
    series: SeriesSelection = SeriesSelection()
    task: StudyTask = "segmentation"
    targets: Names = "all"
    critical: Names | tuple[()] = ()
    priority: Priority = "routine"
    hours: Hours | None = None
    destinations: Names = "all"

    def critical_of(self, found: Iterable[str]) -> tuple[str, ...]:
        """Return those of the targets found present that this rule calls critical."""
        named = None if self.critical == "all" else {name.casefold() for name in self.critical}
        return tuple(name for name in found if named is None or name.casefold() in named)


class Rules(Settings):
    """All of ``rules.yaml``."""

    rules: tuple[Rule, ...] = (Rule(name="everything"),)

    def rule(self, name: str) -> Rule | None:
        """Return the rule of this name, or None when there is none."""
        return next((rule for rule in self.rules if rule.name == name), None)

    @property
    def called_ae_titles(self) -> frozenset[str]:
        """AE titles by which callers choose a rule; the node answers to each."""
        return frozenset(
            title for rule in self.rules if rule.called != "any" for title in rule.called
        )


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What the plan must know of the study beside its sources.

    Attributes
    ----------
    study_instance_uid
        The study.
    own_series
        Series Instance UIDs of results that this node wrote: they never trigger it again.
    own_equipment
        Manufacturer and Manufacturer's Model Name of the node's own objects.
    own_devices
        Device UIDs of the algorithms that this node wrote results by.
    own_root
        What the UIDs of this node's objects begin with, where nobody else's do; else empty.
    called_ae_titles
        What the node was called when the study was sent to it.
    """

    study_instance_uid: str
    own_series: Collection[str] = frozenset()
    own_equipment: tuple[str, str] = ("", "")
    called_ae_titles: Collection[str] = frozenset()
    own_devices: Collection[str] = frozenset()
    own_root: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A source that a rule chose: one job to be.

    Attributes
    ----------
    rule, source
        The two.
    targets
        What the model is asked for, in the order of the card.
    destinations
        Names of the destinations.
    """

    rule: Rule
    source: Source
    targets: tuple[str, ...]
    destinations: tuple[str, ...]

    @property
    def priority(self) -> int:
        """Step in the queue, 0 first."""
        return QUEUE_PRIORITIES[self.rule.priority]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something did not become a job.

    Attributes
    ----------
    subject
        The series, in the words an administrator knows it by.
    rule
        Name of the rule that left it out; empty when no rule was asked.
    text
        The reason.
    """

    subject: str
    rule: str
    text: str

    def __str__(self) -> str:
        rule = f" (rule '{self.rule}')" if self.rule else ""
        return f"{self.subject}{rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs that a study becomes, and why it does not become others."""

    pairs: tuple[Pair, ...]
    reasons: tuple[Reason, ...] = field(default=())

    @property
    def sentence(self) -> str:
        """Why there is no job at all, in one text; empty when there is one."""
        if self.pairs:
            return ""
        if not self.reasons:
            return "The study holds no images that this node reads."
        lines = list(dict.fromkeys(str(reason) for reason in self.reasons))
        more = f" (and {len(lines) - 10} more)" if len(lines) > 10 else ""
        return "No rule and model fit this study. " + "; ".join(lines[:10]) + more + "."


def plan(
    study: StudyFacts,
    sources: Sequence[Source],
    set_aside: Sequence[SetAside],
    rules: Rules,
    card: Card,
    *,
    destinations: Sequence[str] = (),
) -> Plan:
    """Choose the pairs of rule and source that become jobs.

    Parameters
    ----------
    study
        The study's own facts.
    sources, set_aside
        What `dicom_node.objects.series.read_sources` made of its files.
    rules
        The rules, in the order of the file.
    card
        What the model knows.
    destinations
        Names of all destinations, which ``destinations: all`` stands for.

    Returns
    -------
    Plan
        Pairs in the order of rules, then sources; a reason for all that was left out.
    """
    pairs: list[Pair] = []
    reasons = [
        Reason(_images(len(entry.sop_instance_uids)), "", entry.reason) for entry in set_aside
    ]
    for rule in rules.rules:
        for source in sources:
            text = objection(rule, source, study)
            targets: tuple[str, ...] = ()
            if not text:
                targets, text = choose_targets(rule, source, card)
            if text:
                reasons.append(Reason(series_words(source), rule.name, text))
                continue
            chosen = tuple(destinations) if rule.destinations == "all" else rule.destinations
            pairs.append(Pair(rule, source, targets, chosen))
    return Plan(tuple(pairs), tuple(reasons))


def objection(rule: Rule, source: Source, study: StudyFacts) -> str:
    """Return why a rule does not take a source, or an empty text when it does."""
    header = source.headers[0]
    if _is_own(source, study):
        return "was written by this node, which does not interpret its own results"
    if rule.called != "any" and not set(rule.called).intersection(study.called_ae_titles):
        called = " and ".join(sorted(study.called_ae_titles)) or "no AE title"
        return f"was sent to {called}, asked for is {' or '.join(rule.called)}"
    if rule.series.modality != "all" and not _one_fits([source.modality], rule.series.modality):
        return f"modality is {source.modality}, asked for is {' or '.join(rule.series.modality)}"
    image_type = [value.upper() for value in values_of(header, "ImageType")]
    rendered = sorted(_NOT_AS_ACQUIRED.intersection(image_type))
    if rule.series.original_only and rendered:
        return f"is not an original image (Image Type says {rendered[0]})"
    count = source.shape[0]
    if count < rule.minimum_instances:
        return f"has {_images(count)}, asked for are at least {rule.minimum_instances}"
    return _description_objection(rule, source) or _condition_objection(rule, source)


def _description_objection(rule: Rule, source: Source) -> str:
    description = values_of(source.headers[0], "SeriesDescription")
    text = f"Series Description is {shown(description)}"
    if rule.series.description and not _one_fits(description, rule.series.description):
        return f"{text}, asked for is {' or '.join(rule.series.description)}"
    if _one_fits(description, rule.series.not_description):
        return f"{text}, which the rule leaves out"
    return ""


def _condition_objection(rule: Rule, source: Source) -> str:
    for keyword, condition in rule.when.items():
        values = values_of(source.headers[0], keyword)
        if not condition.fits(values):
            return f"{keyword} is {shown(values)}, asked for is {condition.words()}"
    return ""


def choose_targets(rule: Rule, source: Source, card: Card) -> tuple[tuple[str, ...], str]:
    """Return the targets of a pair, and why there is none where there is none."""
    known = _of_task(rule, card.targets_for(source.modality))
    if not card.targets_for(source.modality):
        return (), f"the model was not made for images of modality {source.modality}"
    if not known:
        return (), f"the model knows no disease in images of modality {source.modality}"
    if rule.targets == "all":
        body_part = "".join(values_of(source.headers[0], "BodyPartExamined")[:1])
        belonging = _of_task(rule, card.targets_for(source.modality, body_part))
        if not belonging:
            what = "disease" if rule.task == "disease_recognition" else "target"
            return (), f"the model knows no {what} in {source.modality} images of {body_part}"
        return belonging, ""
    wanted = {target.casefold() for target in rule.targets}
    chosen = tuple(target for target in known if target.casefold() in wanted)
    if chosen:
        return chosen, ""
    asked = ", ".join(rule.targets)
    return (), f"the model knows none of {asked} in images of modality {source.modality}"


def _of_task(rule: Rule, targets: Sequence[NamedTarget]) -> tuple[str, ...]:
    """Return the names of the targets that the rule's task looks for."""
    only_lesions = rule.task == "disease_recognition"
    return tuple(
        target.name for target in targets if not only_lesions or target.category == "lesion"
    )


def series_words(source: Source) -> str:
    """Return what a series is called in sentences: number, description, else its UID."""
    header = source.headers[0]
    number = values_of(header, "SeriesNumber")
    description = values_of(header, "SeriesDescription")
    words = [one_line(number[0])] if number else []
    words += [f"'{one_line(description[0])}'"] if description else []
    return f"series {' '.join(words) or source.series_instance_uid}"


def _is_own(source: Source, study: StudyFacts) -> bool:
    """Recognize the node's own objects: by their series, UIDs, equipment, or algorithm.

    The second and third way also catch results that were written before the database was set up
    anew, the third those that were sent back under new UIDs; the fourth what others made of them,
    such as a rendering that keeps who contributed (PS3.3 C.12.1.1.5).
    """
    if source.series_instance_uid in study.own_series:
        return True
    uids = (source.series_instance_uid, *source.sop_instance_uids)
    if study.own_root and any(uid.startswith(study.own_root) for uid in uids):
        return True
    header = source.headers[0]
    if study.own_devices and not _devices(header).isdisjoint(study.own_devices):
        return True
    equipment = tuple(str(header.get(k, "")) for k in ("Manufacturer", "ManufacturerModelName"))
    return all(study.own_equipment) and equipment == tuple(study.own_equipment)


def _devices(header: Dataset) -> set[str]:
    """Return the Device UIDs of an object and of all that contributed to it."""
    items = [header, *(header.get("ContributingEquipmentSequence") or ())]
    return {str(item.get("DeviceUID") or "") for item in items} - {""}


def _one_fits(values: Iterable[str], patterns: Iterable[str]) -> bool:
    patterns = tuple(patterns)
    return any(matches(value, pattern) for value in values for pattern in patterns)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def rules_of(marked: MarkedYaml, settings: NodeSettings) -> Rules:
    """Build the rules from ``rules.yaml``, held against the destinations of ``node.yaml``.

    Raises
    ------
    ConfigurationError
        With file, line and mend of every mistake.
    """
    rules = validate(Rules, marked)
    problems = list(problems_of(rules, marked, settings))
    if problems:
        raise ConfigurationError(problems)
    return rules
