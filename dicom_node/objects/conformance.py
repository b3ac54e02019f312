"""The gate: what every result object is held to before it is sent.

Acceptance by a PACS proves nothing: most objects in the field are accepted, and wrong. So each
object meets our own rules (what viewers and IHE AI Results need), dciodvfy (what the standard
needs) and, together with its sources, dcentvfy. An object with an error is never sent.

The rules stand in a registry, `rules`: each has an id, a text and a source.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.objects import (
    conformance_header,
    conformance_report,
    conformance_segmentation,
    conformance_tools,
)
from dicom_node.objects.conformance_header import source_uids
from dicom_node.objects.conformance_rules import Kind, Problem, Rule, Severity, Subject, kind_of
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


def rules() -> tuple[Rule, ...]:
    """Return all rules of our own, in the order in which they are checked."""
    return (
        *conformance_header.RULES,
        *conformance_segmentation.RULES,
        *conformance_report.RULES,
    )


def check(
    objects: Sequence[Dataset | Path], sources: Sequence[Dataset], *, tools: bool = True
) -> list[Problem]:
    """Hold the result objects of one job to all rules.

    Parameters
    ----------
    objects
        All objects that go out together: references between them are followed. Data sets, or the
        files as they will be sent.
    sources
        Headers of the source images; without any, the rules that compare with them say nothing.
    tools
        Whether dciodvfy and dcentvfy are run as well.

    Returns
    -------
    list of Problem
        Empty when nothing is wrong. `passes` says whether the objects may be sent.
    """
    headers = {str(source.SOPInstanceUID): source for source in sources}
    problems: list[Problem] = []
    with quiet_pydicom():
        datasets = tuple(_read(item) for item in objects)
        for dataset, item in zip(datasets, objects, strict=True):
            label = item.name if isinstance(item, Path) else str(dataset.SOPInstanceUID)
            subject = Subject(dataset, kind_of(dataset), datasets, headers)
            problems += _own(subject, label)
        if tools:
            problems += _outside(objects, datasets, headers)
    return problems


def passes(problems: Sequence[Problem]) -> bool:
    """Return whether objects with these problems may be sent."""
    return not any(problem.severity == "error" for problem in problems)


def _read(item: Dataset | Path) -> Dataset:
    return dcmread(item) if isinstance(item, Path) else item


def _own(subject: Subject, label: str) -> Iterator[Problem]:
    if subject.kind is None:
        text = f"not an object of ours: {subject.dataset.get('SOPClassUID', 'no SOP class')}"
        yield Problem("header.kind", "error", text, label)
        return
    for rule in rules():
        if subject.kind not in rule.kinds:
            continue
        try:
            texts = list(dict.fromkeys(rule.check(subject)))
        except MALFORMED as error:
            text = f"the object is too malformed for this rule: {type(error).__name__}"
            yield Problem(rule.id, "error", text, label)
            continue
        for text in texts[:MOST_PROBLEMS_PER_RULE]:
            yield Problem(rule.id, rule.severity, text, label)
        more = len(texts) - MOST_PROBLEMS_PER_RULE
        if more > 0:
            yield Problem(rule.id, rule.severity, f"... and {more} more of this kind", label)


def _outside(
    objects: Sequence[Dataset | Path], datasets: Sequence[Dataset], sources: Mapping[str, Dataset]
) -> list[Problem]:
    """Run the outside validators over the objects as files."""
    problems: list[Problem] = []
    given = source_uids(sources)
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        paths = []
        for number, (item, dataset) in enumerate(zip(objects, datasets, strict=True)):
            if isinstance(item, Path):
                path, label = item, item.name
            else:
                path, label = Path(folder) / f"object{number}.dcm", str(dataset.SOPInstanceUID)
                path.write_bytes(encode(dataset))
            paths.append(path)
            problems += conformance_tools.validate(path, label, given)
        if sources and conformance_tools.program("dcentvfy") is not None:
            images = []
            for number, source in enumerate(sources.values()):
                path = Path(folder) / f"source{number}.dcm"
                path.write_bytes(encode(_entities(source)))
                images.append(path)
            problems += _new_disagreements(paths, images)
    return problems


def _entities(source: Dataset) -> Dataset:
    """Return what of a source says which patient, study, series and frame of reference it is of."""
    kept = Dataset()
    for keyword in (*COPIED_KEYWORDS, *_ENTITY_KEYWORDS):
        if keyword in source:
            kept.add(copied(source[keyword]))
    kept.SpecificCharacterSet = "ISO_IR 192"
    return kept


def _new_disagreements(results: list[Path], images: list[Path]) -> list[Problem]:
    """Run dcentvfy over all, and leave out in what the sources do not agree among themselves."""
    label = "all objects together"
    found = conformance_tools.validate_together([*results, *images], label)
    if not found:
        return []
    known = {problem.text for problem in conformance_tools.validate_together(images, label)}
    return [problem for problem in found if problem.text not in known]


__all__ = ["Kind", "Problem", "Rule", "Severity", "check", "passes", "rules"]
