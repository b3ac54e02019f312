"""Try rules before they are saved: on a dropped file, and on the studies that came in lately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from db.past import PastSeries, past_series
from dicom_node.errors import FinalError
from dicom_node.objects.series import SetAside, Source, read_sources
from workflows.identity import own_equipment
from workflows.node import Node
from workflows.rules import Plan, Rules, StudyFacts, plan

MOST_STUDIES: Final = 500


@dataclass(slots=True)
class PastTrial:
    """What rules would have taken.

    Attributes
    ----------
    since
        Studies from this time on were looked at, the newest first.
    studies, taken
        How many there were, and how many would have become jobs.
    jobs
        Rule -> jobs.
    capped
        Whether there were more than are looked at.
    unread
        Series whose files are gone or cannot be read; they count as not taken.
    examples
        Study Instance UID -> why it was left out, of the first few.
    """

    since: datetime
    studies: int = 0
    taken: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    capped: bool = False
    unread: int = 0
    examples: dict[str, str] = field(default_factory=dict)


def try_file(node: Node, rules: Rules, path: Path) -> Plan:
    """Say which jobs one file would become, and why not others.

    Raises
    ------
    FinalError
        The file is no DICOM.
    """
    try:
        header = dcmread(path, stop_before_pixels=True, force=False)
    except (InvalidDicomError, OSError, ValueError, EOFError) as error:
        raise FinalError("This is no DICOM file (PS3.10): it has no preamble with DICM") from error
    sources, set_aside = read_sources([path])
    facts = StudyFacts(
        str(header.get("StudyInstanceUID", "")),
        frozenset(),
        own_equipment(node.settings),
        frozenset({node.settings.node.ae_title}),
    )
    return _plan(node, rules, facts, sources, set_aside)


def try_past(node: Node, rules: Rules, since: datetime) -> PastTrial:
    """Say what the rules would have made of the studies that came in since then.

    One file of each series is read, so that a rule sees every attribute it may ask for; a series
    counts as one source, also where the node would part it into phases.
    """
    trial = PastTrial(since)
    with node.database.reading() as session:
        studies = past_series(session, since, MOST_STUDIES + 1)
    trial.capped = len(studies) > MOST_STUDIES
    for study_uid, series in list(studies.items())[:MOST_STUDIES]:
        sources = _sources(node, series, trial)
        own = frozenset(one.series_instance_uid for one in series if one.is_own)
        called = frozenset(title for one in series for title in one.called_ae_titles)
        facts = StudyFacts(study_uid, own, own_equipment(node.settings), called)
        made = _plan(node, rules, facts, sources, ())
        trial.studies += 1
        trial.taken += bool(made.pairs)
        for pair in made.pairs:
            trial.jobs[pair.rule.name] = trial.jobs.get(pair.rule.name, 0) + 1
        if not made.pairs and len(trial.examples) < 5:
            trial.examples[study_uid] = made.sentence
    return trial


def _sources(node: Node, series: Sequence[PastSeries], trial: PastTrial) -> list[Source]:
    """Read one file of each series; the number of its instances is the catalog's."""
    found = []
    for one in series:
        if one.path is None:
            trial.unread += 1
            continue
        try:
            read, _ = read_sources([node.archive.absolute(one.path)])
        except (FinalError, OSError):
            trial.unread += 1
            continue
        found += [
            replace(
                source,
                paths=source.paths * one.instances,
                headers=source.headers * one.instances,
                pixel_elements=source.pixel_elements * one.instances,
                geometry=None,
            )
            for source in read[:1]
        ]
    return found


def _plan(
    node: Node,
    rules: Rules,
    facts: StudyFacts,
    sources: Sequence[Source],
    set_aside: Sequence[SetAside],
) -> Plan:
    names = node.configuration.destination_names
    return plan(facts, sources, set_aside, rules, node.model, destinations=names)
