"""The steps of a job on the database: claim it, do the work, move it on.

Free of Celery: `workflows.tasks` wraps each function here in a task, and tests call them in a
row. Each returns which jobs should be looked at next.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session

from db.happenings import FOUND, note_happening
from db.jobs import JobState, Lease, advance, note_event, postpone, sources_of
from db.models import Job
from db.probes import accepted_by
from db.results import (
    FoundFinding,
    WrittenResult,
    draw_identifiers,
    record_findings,
    record_measurements,
    record_results,
    sent_before,
)
from dicom_node.errors import FinalError, RetriableError
from dicom_node.incoming import StoredFile
from dicom_node.objects.conformance import Problem
from dicom_node.objects.identifiers import Predecessor, ResultIdentifiers
from dicom_node.objects.series import Source
from dicom_node.objects.terminology import Codes
from dicom_node.services.header import attributes_of
from inference.findings import Interpretation, Presence
from inference.tasks import Task, TaskKind
from workflows import interpret, stored_interpretation
from workflows.boundary import attend
from workflows.destination_settings import DestinationSettings
from workflows.dispatch import ROUTINE, Dispatch
from workflows.engine_thread import EngineThread
from workflows.errors import NotApplicableError
from workflows.hours import opens_at
from workflows.identity import node_identity, uid_root
from workflows.lease_keeper import DeadlineError, LeaseKeeper
from workflows.node import Node
from workflows.priors import fetch_priors
from workflows.stored_interpretation import StoredInterpretation, StoredInterpretationError

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 0.5
REPORT_KINDS: Final = ("measurement_report", "grounded_report")


class InvalidResultError(FinalError):
    """The node's own objects break a rule: they are kept back."""


@dataclasses.dataclass(frozen=True, slots=True)
class _JobInput:
    """What a step must know of its job."""

    study_id: int
    priority: int
    rule: str
    modality: str
    task: Task
    destinations: tuple[str, ...]
    paths: tuple[Path, ...]
    sop_instance_uids: tuple[str, ...]
    frame_numbers: tuple[int, ...]


def interpret_job(
    node: Node,
    job_id: int,
    engine: EngineThread,
    *,
    abandon: Callable[[], None] | None = None,
) -> list[Dispatch]:
    """Do preparing and inferring: from the archive's files to findings, durable on disk."""

    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        given = _input_of(node, job_id)
        if _waits_for_its_hours(node, lease, given):
            return []
        _advance(node, lease, JobState.PREPARING)
        fetch_priors(node, job_id)
        keeper.check()
        source = interpret.one_source(given.paths, given.sop_instance_uids, given.frame_numbers)
        folder = node.home.work_folder(job_id)
        digest = node.model.digest
        found = stored_interpretation.read_if_same(
            folder, given.sop_instance_uids, given.task, digest
        )
        if found is None:
            reason = ""
            try:
                with engine.room.taken(interpret.bytes_of(source), keeper.check):
                    found = _ask(node, lease, keeper, engine, source, given)
            except NotApplicableError as error:
                if not node.settings.results.say_not_applicable:
                    raise
                found, reason = interpret.nothing_of(source, node.model), error.sentence
            stored = StoredInterpretation(found, given.sop_instance_uids, given.task, reason)
            stored_interpretation.write(folder, stored)
        else:
            _advance(node, lease, JobState.INFERRING, "findings of an earlier attempt are used")
        keeper.check()
        _finish_inferring(node, lease, found)
        return [Dispatch(job_id, JobState.ENCODING, given.study_id, given.priority)]

    return attend(node, job_id, JobState.QUEUED, work, abandon=abandon)


def _ask(
    node: Node,
    lease: Lease,
    keeper: LeaseKeeper,
    engine: EngineThread,
    source: Source,
    given: _JobInput,
) -> Interpretation:
    """Decode a source's pixels and have the model look at them."""
    prepared = interpret.prepare(source, node.home.work_folder(lease.job_id))
    keeper.check()
    _advance(node, lease, JobState.INFERRING)
    begun = threading.Event()

    def progress(fraction: float) -> None:
        keeper.report(fraction)
        begun.set()

    answer = engine.submit(
        interpret.question_of(prepared, [given.task], node.model.card),
        priority=given.priority,
        progress=progress,
    )
    return _wait(answer, keeper, begun)


def encode_job(node: Node, job_id: int) -> list[Dispatch]:
    """Do encoding and validating: from findings to objects in the archive that may be sent."""

    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        given = _input_of(node, job_id)
        identifiers, work_folder = _identifiers(node, lease), node.home.work_folder(job_id)
        try:
            stored = stored_interpretation.read(work_folder)
        except StoredInterpretationError as error:
            raise FinalError(
                f"what the model found is lost: {error}; retry the job from the start"
            ) from error
        source = interpret.one_source(given.paths, stored.sop_instance_uids, given.frame_numbers)
        encoded = _encode(node, work_folder, keeper, given, stored, source, identifiers)
        files = [
            node.archive.write_result(job_id, one.file_name, one.data) for one in encoded.objects
        ]
        _record_encoded(node, lease, encoded, identifiers, files)
        keeper.check()
        paths = [node.archive.absolute(file.path) for file in files]
        problems = interpret.validate(
            paths,
            source,
            identifiers.predecessors,
            without_validator=node.settings.results.without_validator,
        )
        _finish_validating(node, lease, encoded, files, problems)
        return [Dispatch(job_id, JobState.DELIVERING, given.study_id, given.priority)]

    return attend(node, job_id, JobState.ENCODING, work)


def _encode(
    node: Node,
    work_folder: Path,
    keeper: LeaseKeeper,
    given: _JobInput,
    stored: StoredInterpretation,
    source: Source,
    identifiers: ResultIdentifiers,
) -> interpret.Encoded:
    """Build the objects of what was found, or the reports that the model was not applicable."""
    identity, codes = node_identity(node.settings), Codes(node.settings.results.codes)
    if stored.not_applicable:
        return interpret.encode_not_applicable(source, stored, identifiers, identity, codes=codes)
    prepared = interpret.prepare(source, work_folder)
    keeper.check()
    with node.database.reading() as session:
        accepted = accepted_by(session, given.destinations)
    return interpret.encode(
        prepared,
        stored.interpretation,
        identifiers,
        identity,
        codes=codes,
        destinations=_destinations(node, given.destinations),
        accepted=accepted,
        progress=keeper.report,
    )


def _waits_for_its_hours(node: Node, lease: Lease, given: _JobInput) -> bool:
    """Put a routine job back until its rule's hours begin; who made it urgent cannot wait."""
    rule = node.configuration.rules.rule(given.rule)
    if rule is None or rule.hours is None or given.priority < ROUTINE:
        return False
    opens = opens_at(rule.hours, node.now(), node.settings.dashboard.time_zone)
    if opens is None:
        return False
    reason = f"waits for the hours of its rule, {rule.hours}; give it priority to start it now"
    with node.database.session() as session:
        postpone(session, lease, JobState.QUEUED, reason, opens, now=node.now())
    return True


def _input_of(node: Node, job_id: int) -> _JobInput:
    with node.database.reading() as session:
        job = session.get_one(Job, job_id)
        instances = sources_of(session, job_id)
        return _JobInput(
            study_id=job.study_id,
            priority=job.priority,
            rule=job.rule,
            modality=job.modality,
            task=Task(
                TaskKind(job.task),
                tuple(job.targets or ()),
                probabilities=interpret.wants_probabilities(_destinations(node, job.destinations)),
            ),
            destinations=tuple(job.destinations),
            paths=tuple(node.archive.absolute(instance.path) for instance in instances),
            sop_instance_uids=tuple(instance.sop_instance_uid for instance in instances),
            frame_numbers=tuple(job.frame_numbers),
        )


def _advance(node: Node, lease: Lease, to: JobState, note: str | None = None) -> None:
    with node.database.session() as session:
        advance(session, lease, to, node.now(), note)


def _wait(
    answer: Future[Interpretation], keeper: LeaseKeeper, begun: threading.Event
) -> Interpretation:
    """Wait for the engine; when the lease is lost meanwhile, take the question back.

    Raises
    ------
    RetriableError
        The deadline passed before the model began: others came first, this source is not too large.
    """
    try:
        while True:
            try:
                return answer.result(timeout=_LOOK_SECONDS)
            except StillRunning:
                # The engine may have ended just now with a TimeoutError of its own.
                if answer.done():
                    return answer.result()
            keeper.check()
    except DeadlineError as error:
        if begun.is_set():
            raise
        raise RetriableError(
            "its turn at the model did not come in time; other studies came first"
        ) from error
    finally:
        answer.cancel()


def _finish_inferring(node: Node, lease: Lease, found: Interpretation) -> None:
    """Record the findings and let the job rest before encoding, in one transaction."""
    findings = [
        FoundFinding(
            target=finding.target,
            text=finding.text,
            presence=finding.presence.value,
            confidence=float(finding.confidence),
            phrase=finding.phrase,
            prompt=finding.prompt,
            predicted_iou=None if finding.predicted_iou is None else float(finding.predicted_iou),
            key_frame=None if finding.key_frame is None else int(finding.key_frame),
        )
        for finding in found.findings
    ]
    with node.database.session() as session:
        record_findings(
            session,
            lease,
            findings,
            model_name=found.model_name,
            model_version=found.model_version,
            model_digest=found.model_digest,
            intensity=found.intensity,
        )
        if any(one.presence is Presence.PRESENT for one in found.findings):
            note_happening(session, lease.job_id, FOUND, node.now())
        advance(session, lease, JobState.ENCODING, node.now())


def _identifiers(node: Node, lease: Lease) -> ResultIdentifiers:
    """Return the job's UIDs: those in its record, or new ones that are there from now on."""
    with node.database.session() as session:
        drawn = ResultIdentifiers.draw(
            node.now(),
            [
                Predecessor(
                    one.kind, one.sop_class_uid, one.series_instance_uid, one.sop_instance_uid
                )
                for one in sent_before(session, lease.job_id, REPORT_KINDS)
            ],
            uid_root(node.settings),
        )
        kept = draw_identifiers(session, lease, drawn.as_json())
    return ResultIdentifiers.from_json(kept)


def _destinations(node: Node, names: Sequence[str]) -> list[DestinationSettings]:
    """Return the job's destinations that still exist; delivery complains about the others."""
    known = (node.settings.destination(name) for name in names)
    return [destination for destination in known if destination is not None]


def _record_encoded(
    node: Node,
    lease: Lease,
    encoded: interpret.Encoded,
    identifiers: ResultIdentifiers,
    files: Sequence[StoredFile],
) -> None:
    with node.database.session() as session:
        tracking = {index: identifiers.tracking_uid(index) for index in encoded.measurements}
        record_measurements(
            session,
            lease,
            {index: one.as_json() for index, one in encoded.measurements.items()},
            encoded.segment_numbers,
            tracking,
        )
        if encoded.encoding_note:
            note_event(session, lease.job_id, encoded.encoding_note, node.now())
        advance(session, lease, JobState.VALIDATING, node.now())


def _finish_validating(
    node: Node,
    lease: Lease,
    encoded: interpret.Encoded,
    files: Sequence[StoredFile],
    problems: Sequence[Problem],
) -> None:
    """Record the verdict; one object with an error keeps all of the job's objects back."""
    errors = [problem for problem in problems if problem.severity == "error"]
    with node.database.session() as session:
        results = [
            _written_result(one, file, problems, quarantined=bool(errors))
            for one, file in zip(encoded.objects, files, strict=True)
        ]
        record_results(session, lease, results, node.now())
        _note_warnings(session, lease, problems, node)
        if not errors:
            advance(session, lease, JobState.DELIVERING, node.now())
    if errors:
        first = errors[0]
        raise InvalidResultError(
            f"the results were kept back because the checks found {len(errors)} errors in them, "
            f"first {first.rule} in {first.object}: {first.text}"
        )


def _written_result(
    one: interpret.EncodedObject,
    file: StoredFile,
    problems: Sequence[Problem],
    *,
    quarantined: bool,
) -> WrittenResult:
    uid = str(one.dataset.SOPInstanceUID)
    return WrittenResult(
        kind=one.kind,
        sop_class_uid=str(one.dataset.SOPClassUID),
        sop_instance_uid=uid,
        series_instance_uid=str(one.dataset.SeriesInstanceUID),
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        problems=[
            {"rule": problem.rule, "severity": problem.severity, "text": problem.text}
            for problem in problems
            if uid in problem.object or one.file_name in problem.object
        ],
        quarantined=quarantined,
        attributes=attributes_of(one.dataset),
    )


def _note_warnings(session: Session, lease: Lease, problems: Sequence[Problem], node: Node) -> None:
    warnings = [problem for problem in problems if problem.severity == "warning"]
    for problem in warnings[:20]:
        text = f"{problem.object}: {problem.rule}: {problem.text}"
        note_event(session, lease.job_id, text, node.now(), level="warning")
