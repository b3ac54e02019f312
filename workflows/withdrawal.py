"""Withdrawing results: not given out any more here, and a rejection note to each destination.

Only a person asks for it (IHE IOCM). The node's own query, retrieval and pages stop showing the
results at once, whatever becomes of the destinations, and show the note instead. A destination
gets a note where its entry in ``node.yaml`` says that it acts on them (``rejection_notes``); for
others the answer tells what to remove by hand. No file is deleted, and asking again sends the same
note again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from db.audit import record
from db.jobs import note_event
from db.models import REJECTION_NOTE, Job, ResultRecord, ResultState
from db.models_access import AuditRecord
from db.results import WrittenResult, record_rejection_note, results_of
from db.states import END_STATES
from db.withdrawals import record_withdrawal
from dicom_node.errors import DicomNodeError, FinalError
from dicom_node.incoming import StoredFile
from dicom_node.objects import conformance
from dicom_node.objects.encoding import encode
from dicom_node.objects.fallback_key_objects import Rejection, build_rejection_note
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.provenance import AlgorithmIdentity
from dicom_node.services.header import attributes_of
from dicom_node.services.storage_scu import StoreStatus
from inference.findings import Interpretation
from workflows.carriers import carrier_of
from workflows.identity import node_identity, uid_root
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


@dataclass(frozen=True, slots=True)
class _Reason:
    rejection: Rejection
    words: str


def withdraw(
    node: Node,
    job_id: int,
    rejection: Rejection,
    words: str,
    who: str,
    on_kept: Callable[[AuditRecord], None] | None = None,
    host: str = "",
) -> list[Withdrawn]:
    """Withdraw all results of a job, here and at each destination that has something of it.

    Parameters
    ----------
    node
        What works with the archive and the destinations.
    job_id
        The job.
    rejection, words
        Why: the code that archives act on, and a sentence for people.
    who
        Who asked for it; kept with the job and in the audit trail.
    on_kept
        Called with the record of the audit trail once it is kept.
    host
        From which address it was asked for.

    Returns
    -------
    list of Withdrawn
        One for each destination that was sent something.

    Raises
    ------
    FinalError
        There is no such job, it has not ended, or it has no results (any more).
    """
    with node.database.reading() as session:
        job = session.get(Job, job_id)
        if job is None:
            raise FinalError(f"there is no job {job_id}")
        if job.state not in END_STATES:
            raise FinalError(
                f"job {job_id} is still at work ({job.state}): cancel it first (jobs cancel "
                f"{job_id}), then withdraw what it has sent"
            )
        results = [
            one
            for one in results_of(session, job_id)
            if one.state is ResultState.READY and one.kind != REJECTION_NOTE
        ]
        identifiers, study = job.identifiers, job.study.study_instance_uid
        model = Interpretation((), job.model_name, job.model_version, job.model_digest, "", 0)
    if identifiers is None or not results:
        raise FinalError(f"job {job_id} has no results, so nothing is withdrawn")
    notes = _Notes(
        node, job_id, _Reason(rejection, words), ResultIdentifiers.from_json(identifiers), model
    )
    _withdraw_here(node, notes, results, who, host, on_kept)
    outcomes = []
    for name, rejected in _sent_to(results).items():
        destination = node.settings.destination(name)
        if destination is None or not destination.rejection_notes:
            outcomes.append(Withdrawn(name, False, _by_hand(name, study, rejected)))
            continue
        path = node.archive.absolute(notes.rejecting(rejected)[1].path)
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


def _withdraw_here(
    node: Node,
    notes: _Notes,
    results: Sequence[ResultRecord],
    who: str,
    host: str,
    on_kept: Callable[[AuditRecord], None] | None,
) -> None:
    """Give the results out no more, and the note that rejects all of them instead.

    Of data whose retention has expired no note is shown either, as archives do that follow IOCM.
    """
    reason, job_id = notes.reason, notes.job_id
    note, file = notes.rejecting(results)
    gone = [one.sop_instance_uid for one in results]
    if reason.rejection is Rejection.RETENTION:
        gone.append(_uid(note))
    now = node.now()
    written = WrittenResult(
        kind=REJECTION_NOTE,
        sop_class_uid=str(note.SOPClassUID),
        sop_instance_uid=_uid(note),
        series_instance_uid=str(note.SeriesInstanceUID),
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        attributes=attributes_of(note),
    )
    with node.database.session() as session:
        record_withdrawal(
            session, job_id, gone, reason=reason.rejection, words=reason.words, account=who, now=now
        )
        record_rejection_note(session, job_id, written, now)
        text = f"withdrawn by {who} ({reason.rejection}: {reason.words}): not given out here now"
        note_event(session, job_id, text, now)
        record(
            session,
            at=now,
            account=who,
            host=host,
            action="results.withdraw",
            target=f"job {job_id}",
            details={
                "reason": str(reason.rejection),
                "because": reason.words,
                "instances": [one.sop_instance_uid for one in results],
                "rejection_note": _uid(note),
            },
            on_kept=on_kept,
        )


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


class _Notes:
    """Writes the rejection notes of one withdrawal, each set of results once."""

    def __init__(
        self,
        node: Node,
        job_id: int,
        reason: _Reason,
        identifiers: ResultIdentifiers,
        model: Interpretation,
    ) -> None:
        self.job_id = job_id
        self.reason = reason
        self._node = node
        self._identifiers = identifiers
        self._model = model

    def rejecting(self, rejected: Sequence[ResultRecord]) -> tuple[Dataset, StoredFile]:
        """Return the note that rejects these results, and its file; one written before stays.

        Raises
        ------
        FinalError
            A result is not kept any more, or the note does not pass the checks.
        """
        uids = " ".join(sorted(one.sop_instance_uid for one in rejected))
        kind = f"{REJECTION_NOTE}_{self.reason.rejection}_{sha256(uids.encode()).hexdigest()[:8]}"
        archive, name = self._node.archive, f"{kind}.dcm"
        path = archive.absolute(f"results/{self.job_id}/{name}")
        if path.exists():
            data = path.read_bytes()
            return dcmread(BytesIO(data)), archive.write_result(self.job_id, name, data)
        datasets = [self._read(one) for one in rejected]
        identity = node_identity(self._node.settings)
        note = build_rejection_note(
            datasets,
            self.reason.rejection,
            self.reason.words,
            self._identifiers.further(kind),
            ResultIdentifiers.draw(self._node.now(), root=uid_root(self._node.settings)),
            AlgorithmIdentity.of(self._model, identity),
            identity,
        )
        problems = conformance.check([*datasets, note], [])
        errors = [one for one in problems if one.severity == "error" and one.object == _uid(note)]
        if errors:
            raise FinalError(
                f"the rejection note was kept back: {errors[0].rule}: {errors[0].text}; "
                "please report"
            )
        return note, archive.write_result(self.job_id, name, encode(note))

    def _read(self, result: ResultRecord) -> Dataset:
        path = self._node.archive.absolute(result.path)
        if result.purged_at is not None or not path.exists():
            raise FinalError(
                f"the results of job {self.job_id} are not kept any more "
                "(retention.results_days), so no rejection note can be written; remove them at "
                "the PACS by hand"
            )
        return dcmread(path)


def _uid(dataset: Dataset) -> str:
    return str(dataset.SOPInstanceUID)
