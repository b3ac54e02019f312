"""Look at a study that waits: whether it is complete, and what it becomes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session

from db.announcements import announced_of
from db.catalog import associations_of, instances_of
from db.jobs import (
    JobState,
    Lease,
    enqueue,
    finish,
    note_event,
    pairing_key,
    postpone,
    queued_priorities,
)
from db.jobs import Pair as JobPair
from db.models import Instance, Job, Series, Study, StudyAssociation
from db.waiting import digests_of, hold_study, own_series_of, series_of, waiting_job_of
from dicom_node.errors import RetriableError
from dicom_node.objects.series import SetAside, Source, read_sources
from dicom_node.objects.stacks import patients_in
from dicom_node.peers import Peers
from workflows.archive_count import missing_here
from workflows.boundary import attend
from workflows.completion import AssociationEvidence, Decision, Ending, Evidence, Timing, weigh
from workflows.dispatch import Dispatch
from workflows.identity import own_devices, own_equipment, uid_root
from workflows.lease_keeper import LeaseKeeper
from workflows.network import peers_of
from workflows.node import Node
from workflows.rules import Pair, Plan, StudyFacts, plan, series_words
from workflows.settings import NodeSettings

_LOG = logging.getLogger(__name__)
_ENDINGS: Final[Mapping[str, Ending]] = {"released": "released", "aborted": "aborted"}
_NOTED_REASONS: Final = 50


def consider_study(node: Node, study_id: int) -> list[Dispatch]:
    """Decide whether a study is complete; if it is, let the rules make its jobs.

    Returns
    -------
    list of Dispatch
        The new jobs, or the same study again at the time when the decision may change.
    """
    with node.database.reading() as session:
        job = waiting_job_of(session, study_id)
        job_id = None if job is None else job.id
    if job_id is None:
        return []

    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        elsewhere = missing_here(node, study_id) if _seems_complete(node, lease.job_id) else 0
        with node.database.session() as session:
            study = session.get_one(Study, study_id)
            evidence = evidence_of(
                session, session.get_one(Job, lease.job_id), node.settings, elsewhere=elsewhere
            )
            decision = weigh(evidence, timing_of(node.settings), node.now())
            if not decision.complete:
                return [_wait(session, node, lease, study_id, decision)]
            arrivals = study.arrivals
            instances = instances_of(session, study_id)
            facts = _facts(session, node, study)
            patient_id = study.patient_id
        files = {node.archive.absolute(instance.path): instance for instance in instances}
        missing = _missing_files(files)
        sources, set_aside = read_sources([path for path in files if path not in missing])
        warnings = _contradictions(patient_id, sources)
        keeper.check()
        chosen = plan(
            facts,
            sources,
            [*set_aside, *_set_aside(missing, files)],
            node.configuration.rules,
            node.model,
            destinations=node.configuration.destination_names,
        )
        return _settle(node, lease, study_id, arrivals, chosen, files, decision, warnings)

    return attend(node, job_id, JobState.WAITING, work)


def _seems_complete(node: Node, job_id: int) -> bool:
    """Whether the study is complete by all that is known without asking anyone."""
    with node.database.reading() as session:
        evidence = evidence_of(session, session.get_one(Job, job_id), node.settings)
    return weigh(evidence, timing_of(node.settings), node.now()).complete


def _missing_files(files: Mapping[Path, Instance]) -> frozenset[Path]:
    """Return the files that the archive lost: one of them must not hold up the others.

    Raises
    ------
    RetriableError
        None is there: rather the disk is away than every file.
    """
    missing = frozenset(path for path in files if not path.exists())
    if files and len(missing) == len(files):
        raise RetriableError(
            f"none of the study's {len(files)} files is in the archive; is its disk mounted? If "
            "they were deleted, send the study again"
        )
    return missing


def _set_aside(missing: Collection[Path], files: Mapping[Path, Instance]) -> list[SetAside]:
    if not missing:
        return []
    paths = tuple(sorted(missing))
    uids = tuple(files[path].sop_instance_uid for path in paths)
    return [SetAside(uids, "missing from the archive; send them again", paths)]


def _contradictions(patient_id: str, sources: Sequence[Source]) -> list[str]:
    """Say what should not be in one study; ``patient_id`` is that of its first instance."""
    patients = patients_in(header for source in sources for header in source.headers)
    if patient_id.strip():
        patients.add(patient_id.strip())
    if len(patients) < 2:
        return []
    return [
        "This study came in under more than one Patient ID (0010,0020): two patients may have got "
        "one Study Instance UID. Each result carries the patient of its own series; find out which "
        "is right before using them."
    ]


def timing_of(settings: NodeSettings) -> Timing:
    """Return the node's times for `weigh`."""
    completion = settings.completion
    return Timing(
        completion.quiet_seconds,
        completion.after_release_seconds,
        completion.open_association_seconds,
        completion.expected_seconds,
    )


def evidence_of(
    session: Session, job: Job, settings: NodeSettings, *, elsewhere: int = 0
) -> Evidence:
    """Collect what is known of a study since its job began to wait.

    ``elsewhere`` is how many instances an archive has that never came here.
    """
    study = job.study
    peers = peers_of(settings)
    associations = [
        _association_evidence(one, peers)
        for one in associations_of(session, study.id)
        if one.last_received_at >= job.received_at
    ]
    announced = announced_of(session, study)
    expected = expected_instances(series_of(session, study.id))
    missing = max(announced.missing, elsewhere)
    if announced.told or missing:
        expected = max(expected or 0, study.number_of_instances + missing)
    return Evidence(
        instances=study.number_of_instances,
        last_received_at=study.last_received_at,
        associations=associations,
        expected=expected,
        in_progress=announced.in_progress,
        complete_by=job.complete_by,
    )


def expected_instances(series: Iterable[Series]) -> int | None:
    """Return how many instances the study should have, where its images say so.

    Number of Study Related Instances (0020,1208) is meant for query answers, but some senders
    put it into the images too. The largest number counts: it is raised as a study grows.
    """
    numbers = [
        int(text)
        for one in series
        if (text := one.attributes.get("NumberOfStudyRelatedInstances", "").strip()).isdecimal()
        and len(text) <= 6
    ]
    return max(numbers, default=None)


def _association_evidence(association: StudyAssociation, peers: Peers) -> AssociationEvidence:
    peer = peers.find(association.calling_ae_title, association.peer_host)
    ending: Ending = "open"
    if association.ended_at is not None:
        ending = _ENDINGS.get(association.outcome, "lost")
    return AssociationEvidence(
        calling_ae_title=association.calling_ae_title,
        ending=ending,
        last_received_at=association.last_received_at,
        ended_at=association.ended_at,
        quiet_seconds=None if peer is None else peer.quiet_seconds,
        release_completes=True if peer is None else peer.release_completes,
    )


def _wait(
    session: Session, node: Node, lease: Lease, study_id: int, decision: Decision
) -> Dispatch:
    now = node.now()
    again = decision.look_again_at
    postpone(session, lease, JobState.WAITING, decision.reason, again, now=now)
    # A little late rather than a little early: a message that comes early finds nothing to do.
    seconds = max(0.0, (again - now).total_seconds()) + 0.05
    return Dispatch(lease.job_id, JobState.WAITING, study_id, after_seconds=seconds)


def _facts(session: Session, node: Node, study: Study) -> StudyFacts:
    return StudyFacts(
        study.study_instance_uid,
        own_series_of(session, study.id),
        own_equipment(node.settings),
        {one.called_ae_title for one in associations_of(session, study.id)},
        own_devices({node.model.digest, *digests_of(session, study.id)}),
        # Under 2.25 everybody's UIDs may lie.
        uid_root(node.settings) if node.settings.results.uid_root else "",
    )


def _settle(
    node: Node,
    lease: Lease,
    study_id: int,
    arrivals: int,
    chosen: Plan,
    files: Mapping[Path, Instance],
    decision: Decision,
    warnings: Sequence[str],
) -> list[Dispatch]:
    """Make the jobs, unless more of the study came in while its files were read."""
    with node.database.session() as session:
        study = hold_study(session, study_id)
        now = node.now()
        if study.arrivals != arrivals:
            again = now + timedelta(seconds=node.settings.completion.after_release_seconds)
            reason = "more instances came in while the study was looked at"
            return [_wait(session, node, lease, study_id, Decision(False, reason, again))]
        for left_out in chosen.reasons[:_NOTED_REASONS]:
            note_event(session, lease.job_id, f"left out: {left_out}", now)
        for warning in warnings:
            note_event(session, lease.job_id, warning, now, level="warning")
        if not chosen.pairs:
            finish(session, lease, JobState.NOT_APPLICABLE, chosen.sentence, now=now)
            return []
        pairs = [_job_pair(pair, files, node.model.digest, warnings) for pair in chosen.pairs]
        made = enqueue(session, lease, pairs, now, decision.reason)
        priorities = queued_priorities(session, study_id)
        return [Dispatch(job_id, JobState.QUEUED, study_id, priorities[job_id]) for job_id in made]


def _job_pair(
    pair: Pair, files: Mapping[Path, Instance], digest: str, warnings: Sequence[str]
) -> JobPair:
    source = pair.source
    instances = [files[path] for path in source.paths]
    key = pairing_key(
        pair.rule.name,
        digest,
        pair.targets,
        ((instance.sop_instance_uid, instance.sha256) for instance in instances),
        pair.rule.task,
        frame_numbers=source.frame_numbers,
    )
    return JobPair(
        key=key,
        rule=pair.rule.name,
        instance_ids=[instance.id for instance in instances],
        series_instance_uid=source.series_instance_uid,
        modality=source.modality,
        source_kind=source.kind,
        description=series_words(source),
        targets=pair.targets,
        task=pair.rule.task,
        destinations=pair.destinations,
        priority=pair.priority,
        notes=(*source.notes, *warnings),
        frame_numbers=source.frame_numbers,
    )
