"""Judging files from anywhere: which are results, which are their sources, and what is wrong.

For ``unibiomed-node lint``: the rules of the gate over anybody's segmentations and reports. Objects
that this node wrote are held to all rules, those of others to what IHE AI Results, the standard and
viewers ask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.objects.conformance import Delivery, Problem, Verdict, examine
from dicom_node.objects.conformance_rules import Kind, elements, kind_of, text_of
from dicom_node.objects.headers import UnreadableError, quiet_pydicom, read_header
from dicom_node.objects.provenance import NODE_MANUFACTURER

# Of other makers these are images and plans like any other, not AI results.
_RESULTS_OF_OTHERS = frozenset(
    {Kind.SEGMENTATION, Kind.MEASUREMENT_REPORT, Kind.TEXT_REPORT, Kind.KEY_OBJECTS}
)


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """What the rules say of one file.

    Attributes
    ----------
    path
        The file; of a problem between objects, the folder.
    maker
        Manufacturer, as the file has it: hostile text.
    verdict
        What is wrong, and what was looked at.
    """

    path: Path
    maker: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Lint:
    """What was found in a file or folder.

    Attributes
    ----------
    verdicts
        One for each result object, and for what disagrees between them.
    sources
        How many images were there that the results refer to.
    others
        How many DICOM files were neither.
    unreadable
        Files that are no DICOM, with the reason.
    """

    verdicts: tuple[FileVerdict, ...] = ()
    sources: int = 0
    others: int = 0
    unreadable: Mapping[Path, str] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether no object has an error."""
        return all(one.verdict.passes for one in self.verdicts)


def lint(
    paths: Sequence[Path],
    *,
    tools: bool = True,
    templates: bool = False,
    returned: Sequence[Path] = (),
) -> Lint:
    """Hold all result objects among some files to the rules.

    Parameters
    ----------
    paths
        Files in any order, of any studies; images among them serve as the sources of the results
        that refer to them.
    tools, templates
        Whether dciodvfy and dcentvfy, and PixelMed's validator, are run as well.
    returned
        The same objects, as an archive gave them back: AIR-14 compares.

    Raises
    ------
    dicom_node.errors.RetriableError
        A file could not be read for a reason of this machine, or a validator gave no answer.
    """
    headers: dict[Path, Dataset] = {}
    unreadable: dict[Path, str] = {}
    for path in paths:
        try:
            headers[path] = read_header(path).dataset
        except UnreadableError as error:
            unreadable[path] = str(error)
    results = [path for path, header in headers.items() if _is_result(header)]
    studies: dict[str, list[Path]] = defaultdict(list)
    for path in results:
        studies[text_of(headers[path], "StudyInstanceUID")].append(path)
    delivery = Delivery(returned=dict(_returned(returned)) if returned else None)
    verdicts: list[FileVerdict] = []
    used: set[Path] = set()
    for study in studies.values():
        sources = _sources_of(study, headers)
        used |= set(sources)
        verdicts += _of_study(study, headers, sources, tools, templates, delivery)
    others = len(headers) - len(results) - len(used)
    return Lint(tuple(verdicts), len(used), others, unreadable)


def is_ours(dataset: Dataset) -> bool:
    """Return whether a node of this software wrote an object."""
    return text_of(dataset, "Manufacturer") == NODE_MANUFACTURER


def _is_result(header: Dataset) -> bool:
    kind = kind_of(header)
    return kind is not None and (kind in _RESULTS_OF_OTHERS or is_ours(header))


def _of_study(
    paths: Sequence[Path],
    headers: Mapping[Path, Dataset],
    sources: Mapping[Path, Dataset],
    tools: bool,
    templates: bool,
    delivery: Delivery,
) -> Iterator[FileVerdict]:
    foreign = {
        text_of(headers[path], "SOPInstanceUID") for path in paths if not is_ours(headers[path])
    }
    verdicts = examine(
        paths,
        list(sources.values()),
        tools=tools,
        templates=templates,
        foreign=foreign,
        delivery=delivery,
    )
    for path, verdict in zip(paths, verdicts, strict=False):
        yield FileVerdict(path, text_of(headers[path], "Manufacturer"), verdict)
    for verdict in verdicts[len(paths) :]:
        yield FileVerdict(paths[0].parent, "", verdict)


def _sources_of(results: Iterable[Path], headers: Mapping[Path, Dataset]) -> dict[Path, Dataset]:
    """Return the images among the files that the results refer to."""
    wanted = {
        str(element.value)
        for path in results
        for _, element in elements(headers[path])
        if element.keyword == "ReferencedSOPInstanceUID"
    }
    return {
        path: header
        for path, header in headers.items()
        if "Rows" in header
        and not _is_result(header)
        and text_of(header, "SOPInstanceUID") in wanted
    }


def _returned(paths: Sequence[Path]) -> Iterator[tuple[str, Dataset]]:
    with quiet_pydicom():
        for path in paths:
            dataset = dcmread(path, force=True)
            yield text_of(dataset, "SOPInstanceUID"), dataset


__all__ = ["FileVerdict", "Lint", "Problem", "is_ours", "lint"]
