"""The gate: what every result object is held to before it is sent.

Acceptance by a PACS proves nothing: most objects in the field are accepted, and wrong. So each
object meets the rules of IHE AI Results (``AIR-01`` to ``AIR-43``), those of the viewers, dciodvfy
(what the standard needs) and, together with its sources, dcentvfy. An object with an error is never
sent.

The rules stand in a registry, `rules`: each has an id, a text and a source. They judge objects of
other makers too (`examine` with ``foreign``): ``unibiomed-node lint``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.objects import (
    conformance_delivery,
    conformance_equipment,
    conformance_fallbacks,
    conformance_groups,
    conformance_header,
    conformance_report,
    conformance_segmentation,
    conformance_segments,
    conformance_tools,
)
from dicom_node.objects.conformance_header import source_uids
from dicom_node.objects.conformance_rules import (
    Delivery,
    Kind,
    Problem,
    Rule,
    Severity,
    Subject,
    kind_of,
)
from dicom_node.objects.encoding import encode
from dicom_node.objects.headers import quiet_pydicom
from dicom_node.objects.provenance import COPIED_KEYWORDS, copied

# So many frames with the same fault say no more than a few.
MOST_PROBLEMS_PER_RULE = 5

# What a rule raises on an object that lacks what the rule builds on; nothing else is caught.
MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)

_ENTITY_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "FrameOfReferenceUID",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of one object.

    Attributes
    ----------
    object
        Name of its file, or its SOP Instance UID.
    kind
        What it is; ``None`` for an object that is no result.
    problems
        What is wrong.
    held
        Ids of the rules that it was held to.
    unchecked
        Ids of the rules that could not be checked, with what was missing.
    """

    object: str
    kind: Kind | None
    problems: tuple[Problem, ...] = ()
    held: tuple[str, ...] = ()
    unchecked: Mapping[str, str] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether no error was found."""
        return passes(self.problems)


def rules() -> tuple[Rule, ...]:
    """Return all rules, in the order of their ids."""
    found = (
        *conformance_header.RULES,
        *conformance_equipment.RULES,
        *conformance_segmentation.RULES,
        *conformance_segments.RULES,
        *conformance_report.RULES,
        *conformance_groups.RULES,
        *conformance_fallbacks.RULES,
        *conformance_delivery.RULES,
        *conformance_tools.RULES,
    )
    return tuple(sorted(found, key=lambda rule: rule.id))


def check(
    objects: Sequence[Dataset | Path],
    sources: Sequence[Dataset],
    *,
    tools: bool = True,
    missing_tools: Severity = "warning",
    predecessors: Sequence[tuple[str, str]] = (),
    delivery: Delivery | None = None,
) -> list[Problem]:
    """Hold the result objects of one job of this node to all rules.

    Parameters
    ----------
    objects
        All objects that go out together: references between them are followed. Data sets, or the
        files as they will be sent.
    sources
        Headers of the source images; without any, the rules that compare with them say nothing.
    tools
        Whether dciodvfy and dcentvfy are run as well.
    missing_tools
        What it is where one of them is not installed.
    predecessors
        Kind of result and SOP Instance UID of each report that these replace.
    delivery
        How the objects fared on their way, where that is known already.

    Returns
    -------
    list of Problem
        Empty when nothing is wrong. `passes` says whether the objects may be sent.
    """
    verdicts = examine(
        objects,
        sources,
        tools=tools,
        missing_tools=missing_tools,
        predecessors=predecessors,
        delivery=delivery,
    )
    return [problem for verdict in verdicts for problem in verdict.problems]


def examine(
    objects: Sequence[Dataset | Path],
    sources: Sequence[Dataset],
    *,
    tools: bool = True,
    missing_tools: Severity = "warning",
    templates: bool = False,
    foreign: Collection[str] = (),
    predecessors: Sequence[tuple[str, str]] = (),
    delivery: Delivery | None = None,
) -> list[Verdict]:
    """Hold result objects to all rules, and say of each which rules it was held to.

    Parameters and what is not explained here are those of `check`.

    Parameters
    ----------
    templates
        Whether PixelMed's validator of SR templates is run: Java, seconds for each report.
    foreign
        SOP Instance UIDs of the objects that somebody else wrote: they need not hold what this node
        promises of itself.

    Returns
    -------
    list of Verdict
        One for each object; where dcentvfy found that they disagree, or a validator is missing,
        one more for all of them.
    """
    headers = {str(source.SOPInstanceUID): source for source in sources}
    verdicts: list[Verdict] = []
    with quiet_pydicom():
        datasets = tuple(_read(item) for item in objects)
        outside = _Outside(
            objects,
            datasets,
            headers,
            tools=tools,
            templates=templates,
            elsewhere=[uid for _, uid in predecessors],
        )
        with outside:
            for number, (dataset, item) in enumerate(zip(datasets, objects, strict=True)):
                label = item.name if isinstance(item, Path) else _uid(dataset)
                kind = kind_of(dataset)
                if kind is None:
                    verdicts.append(_no_result(dataset, label))
                    continue
                subject = Subject(
                    dataset,
                    kind,
                    datasets,
                    headers,
                    str(dataset.get("SOPInstanceUID", "")) not in foreign,
                    _predecessors_of(kind, predecessors),
                    delivery or Delivery(),
                )
                verdicts.append(_judge(subject, label, outside.of(number, label, kind)))
            together = outside.together()
    if tools:
        together += conformance_tools.missing(missing_tools)
    if together:
        held = tuple({problem.rule for problem in together} & {conformance_tools.DCENTVFY})
        verdicts.append(Verdict(together[0].object, None, tuple(together), held))
    return verdicts


def passes(problems: Sequence[Problem]) -> bool:
    """Return whether objects with these problems may be sent."""
    return not any(problem.severity == "error" for problem in problems)


def _read(item: Dataset | Path) -> Dataset:
    return dcmread(item, force=True) if isinstance(item, Path) else item


_REPORT_KINDS = {
    Kind.MEASUREMENT_REPORT: "measurement_report",
    Kind.TEXT_REPORT: "grounded_report",
}


def _predecessors_of(kind: Kind, known: Sequence[tuple[str, str]]) -> frozenset[str]:
    """Return the UIDs of the documents that one of this kind replaces."""
    return frozenset(uid for name, uid in known if name == _REPORT_KINDS.get(kind))


def _uid(dataset: Dataset) -> str:
    return str(dataset.get("SOPInstanceUID", "an object without SOP Instance UID"))


def _no_result(dataset: Dataset, label: str) -> Verdict:
    text = f"not a result object: {dataset.get('SOPClassUID', 'no SOP class')}"
    return Verdict(label, None, (Problem("header.kind", "error", text, label),))


def _judge(subject: Subject, label: str, outside: _Answer) -> Verdict:
    problems: list[Problem] = []
    held: list[str] = []
    unchecked: dict[str, str] = dict(outside.unchecked)
    for rule in rules():
        severity = rule.severity_for(subject)
        if severity is None:
            continue
        if rule.check is None:
            if rule.id in outside.held:
                held.append(rule.id)
        elif rule.needs is not None and not subject.has(rule.needs):
            unchecked[rule.id] = f"needs {rule.needs}"
        else:
            held.append(rule.id)
            problems += _broken(rule, severity, subject, label)
    return Verdict(
        label, subject.kind, (*problems, *outside.problems), tuple(held), dict(unchecked)
    )


def _broken(rule: Rule, severity: Severity, subject: Subject, label: str) -> Iterator[Problem]:
    assert rule.check is not None  # noqa: S101 - the caller has looked
    try:
        texts = list(dict.fromkeys(rule.check(subject)))
    except MALFORMED as error:
        text = f"the object is too malformed for this rule: {type(error).__name__}"
        yield Problem(rule.id, severity, text, label)
        return
    for text in texts[:MOST_PROBLEMS_PER_RULE]:
        yield Problem(rule.id, severity, text, label)
    more = len(texts) - MOST_PROBLEMS_PER_RULE
    if more > 0:
        yield Problem(rule.id, severity, f"... and {more} more of this kind", label)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the outside validators say of one object."""

    problems: tuple[Problem, ...] = ()
    held: frozenset[str] = frozenset()
    unchecked: Mapping[str, str] = field(default_factory=dict)


class _Outside:
    """The outside validators over the objects as files, in a temporary folder."""

    def __init__(
        self,
        objects: Sequence[Dataset | Path],
        datasets: Sequence[Dataset],
        sources: Mapping[str, Dataset],
        *,
        tools: bool,
        templates: bool,
        elsewhere: Sequence[str],
    ) -> None:
        self._objects, self._datasets, self._sources = objects, datasets, sources
        self._tools, self._templates = tools, templates
        self._given = source_uids(sources)
        # Structure sets refer to the study as to an instance (PS3.3 C.8.8.5): no file has it.
        studies = {str(one.get("StudyInstanceUID")) for one in datasets}
        self._elsewhere = {*elsewhere, *studies}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._paths: list[Path] = []

    def __enter__(self) -> None:
        if not (self._tools or self._templates):
            return
        self._folder = tempfile.TemporaryDirectory(prefix="conformance-")
        for number, (item, dataset) in enumerate(zip(self._objects, self._datasets, strict=True)):
            path = item if isinstance(item, Path) else self._place(f"object{number}", dataset)
            self._paths.append(path)

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _place(self, name: str, dataset: Dataset) -> Path:
        assert self._folder is not None  # noqa: S101 - made on entering
        path = Path(self._folder.name) / f"{name}.dcm"
        path.write_bytes(encode(dataset))
        return path

    def of(self, number: int, label: str, kind: Kind) -> _Answer:
        """Return what dciodvfy, and PixelMed where it is asked, say of an object."""
        problems: list[Problem] = []
        held, unchecked = set(), {}
        if not self._tools:
            unchecked[conformance_tools.DCIODVFY] = "dciodvfy was not asked for"
        elif conformance_tools.program("dciodvfy") is None:
            unchecked[conformance_tools.DCIODVFY] = "dciodvfy is not installed"
        else:
            problems += conformance_tools.validate(self._paths[number], label, self._given)
            held.add(conformance_tools.DCIODVFY)
        if kind in conformance_tools.TEMPLATE_KINDS:
            if self._templates:
                problems += conformance_tools.validate_template(self._paths[number], label)
                held.add(conformance_tools.PIXELMED)
            else:
                unchecked[conformance_tools.PIXELMED] = "PixelMed's validator was not asked for"
        return _Answer(tuple(problems), frozenset(held), unchecked)

    def together(self) -> list[Problem]:
        """Run dcentvfy over all, and leave out in what the sources do not agree already."""
        if not (self._tools and self._sources):
            return []
        if conformance_tools.program("dcentvfy") is None:
            return []
        images = [
            self._place(f"source{number}", _entities(source))
            for number, source in enumerate(self._sources.values())
        ]
        label = "all objects together"
        found = conformance_tools.validate_together([*self._paths, *images], label)
        if not found:
            return []
        known = {problem.text for problem in conformance_tools.validate_together(images, label)}
        return [
            problem
            for problem in found
            if problem.text not in known and not any(uid in problem.text for uid in self._elsewhere)
        ]


def _entities(source: Dataset) -> Dataset:
    """Return what of a source says which patient, study, series and frame of reference it is of."""
    kept = Dataset()
    for keyword in (*COPIED_KEYWORDS, *_ENTITY_KEYWORDS):
        if keyword in source:
            kept.add(copied(source[keyword]))
    kept.SpecificCharacterSet = "ISO_IR 192"
    return kept


__all__ = [
    "Delivery",
    "Kind",
    "Problem",
    "Rule",
    "Severity",
    "Verdict",
    "check",
    "examine",
    "passes",
    "rules",
]
