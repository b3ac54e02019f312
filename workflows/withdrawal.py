"""Withdrawing results that were sent: a rejection note (IHE IOCM) to each destination.

Only a person asks for it. A destination gets a note where its entry in ``node.yaml`` says that it
acts on them (``rejection_notes``); for others the answer tells what to remove by hand. Nothing is
deleted here, and the note is kept beside the results: asking again sends the same note again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from db.jobs import note_event
from db.models import Job, ResultRecord
from db.results import results_of
from dicom_node.errors import DicomNodeError, FinalError
from dicom_node.objects import conformance
from dicom_node.objects.encoding import encode
from dicom_node.objects.fallback_key_objects import Rejection, build_rejection_note
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.provenance import AlgorithmIdentity
from dicom_node.services.storage_scu import StoreStatus
from inference.findings import Interpretation
from workflows.carriers import carrier_of
from workflows.identity import node_identity
from workflows.node import Node


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What became of the results at one destination.

    Attributes
    ----------
    destination
        Its name.
    done
        Whether it took the note.
    sentence
        What happened, or what is to be done by hand.
    """

    destination: str
    done: bool
    sentence: str


def withdraw(
    node: Node, job_id: int, rejection: Rejection, words: str, who: str
) -> list[Withdrawn]:
    """Withdraw all that a job sent, at each destination that has something of it.

    Parameters
    ----------
    node
        What works with the archive and the destinations.
    job_id
        The job.
    rejection, words
        Why: the code that archives act on, and a sentence for people.
    who
        Who asked for it; kept with the job.

    Returns
    -------
    list of Withdrawn
        One for each destination.

    Raises
    ------
    FinalError
        There is no such job, nothing of it was sent, or its results are not kept any more.
    """
    with node.database.reading() as session:
        job = session.get(Job, job_id)
        if job is None:
            raise FinalError(f"there is no job {job_id}")
        results = results_of(session, job_id)
        record, study = job.identifiers, job.study.study_instance_uid
        model = Interpretation((), job.model_name, job.model_version, job.model_digest, "", 0)
    sent = _sent_to(results)
    if record is None or not sent:
        raise FinalError(f"nothing of job {job_id} was sent anywhere, so nothing is withdrawn")
    identifiers = ResultIdentifiers.from_json(record)
    outcomes = []
    for name, rejected in sent.items():
        destination = node.settings.destination(name)
        if destination is None or not destination.rejection_notes:
            outcomes.append(Withdrawn(name, False, _by_hand(name, study, rejected)))
            continue
        path = _note(node, job_id, name, rejected, (rejection, words), identifiers, model)
        try:
            (status,) = carrier_of(destination, node.settings).send([path], _heard)
        except DicomNodeError as error:
            outcomes.append(Withdrawn(name, False, f"{error.sentence}. Ask for it again later"))
            continue
        outcomes.append(Withdrawn(name, status.is_stored, status.sentence))
    with node.database.session() as session:
        for one in outcomes:
            text = f"withdrawn by {who} ({rejection}: {words}): {one.destination}: {one.sentence}"
            level = "info" if one.done else "warning"
            note_event(session, job_id, text, node.now(), level=level)
    return outcomes


def _heard(_status: StoreStatus) -> None:
    """Take note of nothing: the answer is looked at as a whole."""


def _sent_to(results: Sequence[ResultRecord]) -> dict[str, list[ResultRecord]]:
    """Return what each destination was sent, in the order of sending."""
    sent: dict[str, list[ResultRecord]] = {}
    for result in results:
        for delivery in result.deliveries:
            if delivery.sent_at is not None:
                sent.setdefault(delivery.destination, []).append(result)
    return sent


def _by_hand(name: str, study: str, rejected: Sequence[ResultRecord]) -> str:
    series = ", ".join(dict.fromkeys(one.series_instance_uid for one in rejected))
    return (
        f"{name} gets no rejection notes (rejection_notes in node.yaml): remove these series of "
        f"study {study} by hand: {series}"
    )


def _note(
    node: Node,
    job_id: int,
    name: str,
    rejected: Sequence[ResultRecord],
    reason: tuple[Rejection, str],
    identifiers: ResultIdentifiers,
    model: Interpretation,
) -> Path:
    """Return the file of the note for a destination, written once."""
    rejection, words = reason
    # The name of a destination may hold what no file name may.
    place = hashlib.sha256(name.encode()).hexdigest()[:8]
    kind = f"rejection_note_{rejection}_{place}"
    path = node.archive.absolute(f"results/{job_id}/{kind}.dcm")
    if path.exists():
        return path
    datasets = [_read(node, job_id, one) for one in rejected]
    identity = node_identity(node.settings)
    again = ResultIdentifiers.draw(node.now())
    note = build_rejection_note(
        datasets,
        rejection,
        words,
        identifiers.further(kind),
        again,
        AlgorithmIdentity.of(model, identity),
        identity,
    )
    problems = conformance.check([*datasets, note], [])
    errors = [one for one in problems if one.severity == "error" and one.object == _uid(note)]
    if errors:
        raise FinalError(
            f"the rejection note was kept back: {errors[0].rule}: {errors[0].text}; please report"
        )
    return node.archive.absolute(
        node.archive.write_result(job_id, f"{kind}.dcm", encode(note)).path
    )


def _uid(dataset: Dataset) -> str:
    return str(dataset.SOPInstanceUID)


def _read(node: Node, job_id: int, result: ResultRecord) -> Dataset:
    path = node.archive.absolute(result.path)
    if result.purged_at is not None or not path.exists():
        raise FinalError(
            f"the results of job {job_id} are not kept any more (retention.results_days), so no "
            "rejection note can be written; remove them at the PACS by hand"
        )
    return dcmread(path)
