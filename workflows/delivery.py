"""Delivering and confirming: a job's results reach each destination, and prove to be there.

Free of Celery. What was sent and what was proven is written after each object, so that an attempt
that breaks off, or a worker that dies, repeats as little as possible; what is repeated are the
same bytes under the same UIDs.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from db.deliveries import hope_again, plan_deliveries, record_rejection, record_sending, silence_at
from db.jobs import JobState, Lease, advance, finish, note_event
from db.models import DeliveryState, Job
from db.operation import note_answer
from db.results import results_of
from dicom_node.errors import FinalError, NothingTakenError, RejectedError, RetriableError
from dicom_node.services.storage_scu import NOT_AUTHORISED, StoreStatus
from workflows.another_form import RefusedClass, write_in_another_form
from workflows.boundary import attend
from workflows.carriers import carrier_of
from workflows.confirming import prove_at
from workflows.destination_settings import DestinationSettings
from workflows.dispatch import Dispatch
from workflows.examination import problems_on_the_way
from workflows.lease_keeper import LeaseKeeper
from workflows.node import Node
from workflows.parcels import Outcome, Parcel, parcels_for, pause

_LOG = logging.getLogger(__name__)

SEGMENTATION: Final = "segmentation"
_RETRY: Final = "then retry the job"
REPORTS: Final = frozenset({"measurement_report", "grounded_report"})


def deliver_job(node: Node, job_id: int) -> list[Dispatch]:
    """Send a job's results to its destinations and have them proven there.

    Parameters
    ----------
    node
        What the stage works with.
    job_id
        A job that rests in delivering; anything else is left alone.

    Returns
    -------
    list of Dispatch
        What should be looked at next.
    """

    def work(lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
        return deliver(node, lease, keeper)

    return attend(node, job_id, JobState.DELIVERING, work)


def deliver(node: Node, lease: Lease, keeper: LeaseKeeper) -> list[Dispatch]:
    """Do one attempt at all destinations; ends the job as delivered when all is proven.

    Returns
    -------
    list of Dispatch
        What should be looked at next: the job itself, where it is to be written in another form.

    Raises
    ------
    RetriableError
        Some destination was away, busy, or cannot prove yet that it has an object.
    RejectedError
        Some destination rejects us; the others have theirs.
    FinalError
        Some destination refuses an object for good; the others have theirs.
    db.jobs.LostLease, workflows.lease_keeper.DeadlineError
        The attempt must stop.
    """
    names, study_instance_uid = _planned(node, lease)
    _require_same_bytes(node, lease)
    outcome = Outcome()
    reachable = _not_silent(node, lease, _reachable(node, names, outcome), outcome)
    for destination in reachable:
        keeper.check()
        _send_to(node, lease, keeper, destination, outcome)
    if outcome.refused_classes:
        following = write_in_another_form(node, lease, outcome.refused_classes)
        if following is not None:
            # What was stored meanwhile is known as sent, and is proven with the rest.
            return following
    with node.database.session() as session:
        advance(session, lease, JobState.CONFIRMING, node.now(), _sent_note(reachable))
    for destination in reachable:
        keeper.check()
        prove_at(node, lease, keeper, destination, study_instance_uid, outcome)
    outcome.settle()
    words = _delivered_words(node, lease, reachable)
    with node.database.session() as session:
        for problem in problems_on_the_way(session, lease.job_id):
            text = f"{problem.object}: {problem.rule}: {problem.text}"
            note_event(session, lease.job_id, text, node.now(), level="warning")
        finish(session, lease, JobState.DELIVERED, words, now=node.now())
    return []


def _planned(node: Node, lease: Lease) -> tuple[list[str], str]:
    """Plan each result for each destination that takes it; returns their names and the study."""
    with node.database.session() as session:
        job = session.get_one(Job, lease.job_id)
        names = list(dict.fromkeys(job.destinations))
        if job.attempts == 0:
            # Refusals stand between the attempts of one go; an operator's retry lifts them.
            hope_again(session, lease)
        kinds = {one.name: one.objects for one in node.settings.destinations}
        for name, kind in plan_deliveries(session, lease, names, kinds):
            text = (
                f"{name} gets no {kind.replace('_', ' ')}: its objects in node.yaml list none now"
            )
            note_event(session, lease.job_id, text, node.now())
        return names, job.study.study_instance_uid


def _require_same_bytes(node: Node, lease: Lease) -> None:
    """Check that the files are what was encoded and validated.

    Raises
    ------
    FinalError
        A file is missing or changed, or there is none.
    """
    with node.database.reading() as session:
        results = results_of(session, lease.job_id)
    if not results:
        raise FinalError("this job has no results to deliver; retry it from the start")
    for result in results:
        path = node.archive.absolute(result.path)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise FinalError(
                f"the result {result.path} is missing from the archive; restore it from a backup, "
                "or retry the job from the start"
            ) from error
        except OSError as error:
            raise RetriableError(
                f"the result {result.path} cannot be read: {error.strerror}"
            ) from error
        if digest != result.sha256:
            raise FinalError(
                f"the result {result.path} is not what was validated (its SHA-256 differs); it is "
                "not sent. Restore it from a backup, or retry the job from the start"
            )


def _reachable(node: Node, names: Sequence[str], outcome: Outcome) -> list[DestinationSettings]:
    """Look the destinations up; those that were removed since are final."""
    found = []
    for name in names:
        destination = node.settings.destination(name)
        if destination is None:
            outcome.never.append(
                f"the destination {name!r} is not in node.yaml any more; list it again, then retry "
                "the job"
            )
        else:
            found.append(destination)
    return found


def _not_silent(
    node: Node,
    lease: Lease,
    destinations: Sequence[DestinationSettings],
    outcome: Outcome,
) -> list[DestinationSettings]:
    """Leave out who gave another job no answer a moment ago: each call would cost its deadlines."""
    since = node.now() - timedelta(seconds=node.settings.retries.first_seconds)
    found = []
    for destination in destinations:
        with node.database.reading() as session:
            silence = silence_at(session, destination.name, since, but_job=lease.job_id)
        if silence is None:
            found.append(destination)
            continue
        outcome.not_called.append(f"not called, as another job got no answer just now: {silence}")
        if node.silences.begins(destination.name):
            said = "%s gives no answer; jobs wait for it, and one calls it now and then: %s"
            _LOG.warning(said, destination.name, silence)
    return found


def _heard(node: Node, destination: DestinationSettings, statuses: Sequence[StoreStatus]) -> None:
    """Note that a destination is there, as its answers to stored objects show."""
    stored = sum(status.is_stored for status in statuses)
    if stored:
        words = f"took {stored} object{'s' if stored > 1 else ''}"
        with node.database.session() as session:
            note_answer(session, destination.name, words, node.now())
        if node.silences.ends(destination.name):
            _LOG.warning("%s answers again", destination.name)


def _send_to(
    node: Node,
    lease: Lease,
    keeper: LeaseKeeper,
    destination: DestinationSettings,
    outcome: Outcome,
) -> None:
    """Send what the destination lacks, again after a moment when the network fails."""
    retries = node.settings.retries
    sentence = ""
    for attempt in range(1, retries.fast_attempts + 1):
        try:
            _send_pending(node, lease, keeper, destination, outcome)
            if sentence:
                _LOG.info("job %d: %s; it was called again at once", lease.job_id, sentence)
            return
        except RetriableError as error:
            sentence = error.sentence
            _LOG.debug("job %d: %s", lease.job_id, sentence)
            outcome.wait_for(error.after_seconds)
            if error.after_seconds is not None:
                break
        except RejectedError as error:
            _note_rejection(node, lease, destination, error.sentence)
            outcome.rejected.append(f"{error.sentence}. It answers so, too, while it restarts")
            return
        except FinalError as error:
            sentence = error.sentence
            if isinstance(error, NothingTakenError):
                sentence += f": allow them there for {node.settings.node.ae_title}, {_RETRY}"
            _refuse(node, lease, destination, sentence)
            outcome.never.append(sentence)
            return
        if attempt < retries.fast_attempts:
            pause(keeper, retries.fast_seconds)
    _note_failed_attempt(node, lease, destination, sentence)
    outcome.again.append(sentence)


def _send_pending(
    node: Node,
    lease: Lease,
    keeper: LeaseKeeper,
    destination: DestinationSettings,
    outcome: Outcome,
) -> None:
    """Send in order, over one association unless an object is refused.

    Raises
    ------
    RetriableError, FinalError
        From the association as a whole.
    """
    while True:
        parcels = parcels_for(node, lease, destination.name)
        for parcel in parcels:
            if parcel.state is DeliveryState.REFUSED:
                outcome.never.append(parcel.sentence)
        pending = [parcel for parcel in parcels if parcel.state is DeliveryState.PENDING]
        if not pending:
            return
        by_path = {parcel.path: parcel for parcel in pending}

        def note(status: StoreStatus, by_path: Mapping[Path, Parcel] = by_path) -> None:
            # Not sent, because one before it failed: nothing to tell.
            if status.verdict != "retry" or status.status is not None:
                _record(node, lease, destination, by_path[status.path], status)
            keeper.check()

        carrier = carrier_of(destination, node.settings)
        statuses = carrier.send([parcel.path for parcel in pending], note)
        _heard(node, destination, statuses)
        failed = next((status for status in statuses if not status.is_stored), None)
        if failed is None:
            return
        if failed.verdict == "retry":
            outcome.again.append(failed.sentence)
            return
        if failed.is_class_refused:
            kind = by_path[failed.path].kind
            outcome.refused_classes.append(
                RefusedClass(destination.name, kind, failed.sop_class_uid)
            )
        if by_path[failed.path].kind == SEGMENTATION:
            # The reports point to the segmentation; without it they would point to nothing. Why it
            # was refused stands with it, and is not said again; the next look finds both.
            sentence = f"the reports are not sent to {destination.name} without the segmentation"
            _refuse(node, lease, destination, sentence, REPORTS)


def _record(
    node: Node,
    lease: Lease,
    destination: DestinationSettings,
    parcel: Parcel,
    status: StoreStatus,
) -> None:
    state, sentence = DeliveryState.PENDING, status.sentence
    if status.is_stored:
        state = DeliveryState.SENT
    elif status.verdict == "final":
        state = DeliveryState.REFUSED
        sentence += f": {_what_to_do(node, destination, status)}"
    with node.database.session() as session:
        record_sending(
            session,
            lease,
            [parcel.delivery_id],
            state,
            sentence,
            node.now(),
            status=status.status,
        )


def _what_to_do(node: Node, destination: DestinationSettings, status: StoreStatus) -> str:
    """Say what an administrator does about an object that was refused for good."""
    title = node.settings.node.ae_title
    if status.is_class_refused:
        return (
            f"allow this class there for {title}, or take its kind out of objects of "
            f"{destination.name} in node.yaml and reload, {_RETRY}"
        )
    if status.status is None:
        return "its file cannot be sent as it is, so retry the job from the start"
    if status.status == NOT_AUTHORISED:
        return f"give {title} the right to store there, {_RETRY}"
    return f"its log may say what it objects to. Mend that, {_RETRY}"


def _refuse(
    node: Node,
    lease: Lease,
    destination: DestinationSettings,
    sentence: str,
    kinds: Collection[str] | None = None,
) -> None:
    """Note that the destination takes none of what it still lacks, or none of these kinds."""
    _note_pending(node, lease, destination, sentence, DeliveryState.REFUSED, kinds)


def _note_failed_attempt(
    node: Node, lease: Lease, destination: DestinationSettings, sentence: str
) -> None:
    _note_pending(node, lease, destination, sentence, DeliveryState.PENDING)


def _note_rejection(
    node: Node, lease: Lease, destination: DestinationSettings, sentence: str
) -> None:
    pending = _pending(node, lease, destination)
    with node.database.session() as session:
        record_rejection(session, lease, pending, sentence)


def _note_pending(
    node: Node,
    lease: Lease,
    destination: DestinationSettings,
    sentence: str,
    state: DeliveryState,
    kinds: Collection[str] | None = None,
) -> None:
    pending = _pending(node, lease, destination, kinds)
    with node.database.session() as session:
        record_sending(session, lease, pending, state, sentence, node.now())


def _pending(
    node: Node,
    lease: Lease,
    destination: DestinationSettings,
    kinds: Collection[str] | None = None,
) -> list[int]:
    return [
        parcel.delivery_id
        for parcel in parcels_for(node, lease, destination.name)
        if parcel.state is DeliveryState.PENDING and (kinds is None or parcel.kind in kinds)
    ]


def _sent_note(destinations: Sequence[DestinationSettings]) -> str:
    names = ", ".join(destination.name for destination in destinations)
    return f"sent to {names}" if names else "nothing to send"


def _delivered_words(node: Node, lease: Lease, destinations: Sequence[DestinationSettings]) -> str:
    if not destinations:
        return "kept in the node's own archive; no destination is configured"
    proven = []
    for destination in destinations:
        if not parcels_for(node, lease, destination.name):
            continue
        carrier = carrier_of(destination, node.settings)
        how = carrier.find_name
        if destination.confirm == "none":
            how = f"its {carrier.store_name} status alone"
        proven.append(f"{destination.name} (by {how})")
    if not proven:
        return (
            "kept in the node's own archive; no destination takes any of it (objects in node.yaml)"
        )
    return "stored and proven at " + ", ".join(proven)
