"""Confirming: a destination proves that it has what it was sent: by read-back or commitment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from db.deliveries import record_confirmation, record_listing, record_sending
from db.jobs import Lease, note_event
from db.models import DeliveryState
from dicom_node.errors import DicomNodeError, FinalError, RejectedError, RetriableError
from workflows.carriers import carrier_of
from workflows.committing import prove_by_commitment
from workflows.destination_settings import AeDestinationSettings, DestinationSettings
from workflows.lease_keeper import LeaseKeeper
from workflows.node import Node
from workflows.parcels import Outcome, Parcel, parcels_for, pause

_FIRST_LOOK_SECONDS: Final = 0.1
_LONGEST_LOOK_SECONDS: Final = 5.0


def prove_at(
    node: Node,
    lease: Lease,
    keeper: LeaseKeeper,
    destination: DestinationSettings,
    study_instance_uid: str,
    outcome: Outcome,
) -> None:
    """Have what was sent proven; what it came to goes into ``outcome``.

    A destination that cannot be asked now keeps what it was sent; only one that answers for long
    without knowing an object gets it again.
    """
    sent = [
        parcel
        for parcel in parcels_for(node, lease, destination.name)
        if parcel.state is DeliveryState.SENT
    ]
    if not sent:
        return
    if destination.confirm == "none":
        _confirmed(node, lease, sent, "status", "stored; read-back is off (confirm: none)")
        return
    if destination.confirm == "commitment" and isinstance(destination, AeDestinationSettings):
        prove_by_commitment(node, lease, destination, sent, outcome)
        return
    try:
        lacking = _look_until_proven(node, lease, keeper, destination, study_instance_uid, sent)
    except RetriableError as error:
        outcome.wait_for(error.after_seconds)
        outcome.again.append(error.sentence)
        return
    except RejectedError as error:
        outcome.rejected.append(f"{error.sentence}. It answers so, too, while it restarts")
        return
    except FinalError as error:
        outcome.never.append(
            f"{error.sentence}. The results were stored there, but that cannot be proven: allow "
            "us to query, or set confirm: none for this destination, then retry the job"
        )
        return
    if lacking:
        _note_lacking(node, lease, destination, lacking, outcome)
    missing = {one.sop_instance_uid for one in lacking}
    proven = [one for one in sent if one.sop_instance_uid not in missing]
    _note_listing(node, lease, destination, study_instance_uid, proven)


def _note_listing(
    node: Node,
    lease: Lease,
    destination: DestinationSettings,
    study_instance_uid: str,
    proven: Sequence[Parcel],
) -> None:
    """Note what the destination answers for what it has, to those who look for it by words.

    Whether the objects are there does not depend on it, so a failure here fails nothing.
    """
    if not proven:
        return
    series = list(dict.fromkeys(one.series_instance_uid for one in proven))
    try:
        answers = carrier_of(destination, node.settings).series(study_instance_uid, series)
    except DicomNodeError as error:
        with node.database.session() as session:
            text = f"{error.sentence}: so it is not known what its queries answer for the results"
            note_event(session, lease.job_id, text, node.now(), level="warning")
        return
    listed = {
        one.delivery_id: {
            "SOPInstanceUID": one.sop_instance_uid,
            "SeriesInstanceUID": one.series_instance_uid,
            **answers[one.series_instance_uid],
        }
        if one.series_instance_uid in answers
        else {}
        for one in proven
    }
    with node.database.session() as session:
        record_listing(session, lease, listed)


def _note_lacking(
    node: Node,
    lease: Lease,
    destination: DestinationSettings,
    lacking: Sequence[Parcel],
    outcome: Outcome,
) -> None:
    """Ask again later for what the destination does not know; after long enough, send it anew.

    Some archives take an object at once and file it at night. Sent at each attempt, it would
    arrive a hundred times; never sent again, it would be lost where it was lost.
    """
    carrier = carrier_of(destination, node.settings)
    hours = node.settings.retries.prove_hours
    long_ago = node.now() - timedelta(hours=hours)
    anew = [one for one in lacking if one.sent_at is None or one.sent_at <= long_ago]
    said = f"{carrier} answered success, but its {carrier.find_name} does not know the object"
    if len(anew) < len(lacking):
        outcome.again.append(f"{said} yet; it is asked again, and sent again after {hours:g} h")
    if anew:
        problem = f"{said} after {hours:g} h; it is sent again"
        outcome.again.append(problem)
        with node.database.session() as session:
            ids = [parcel.delivery_id for parcel in anew]
            record_sending(session, lease, ids, DeliveryState.PENDING, problem, node.now())


def _look_until_proven(
    node: Node,
    lease: Lease,
    keeper: LeaseKeeper,
    destination: DestinationSettings,
    study_instance_uid: str,
    sent: list[Parcel],
) -> list[Parcel]:
    """Ask until all is found or the time is up; returns what is not found.

    A PACS may index what it stored some seconds later.

    Raises
    ------
    RetriableError, FinalError
        The destination does not answer the question.
    """
    # What was not there an hour ago will hardly come while we wait.
    fresh = node.now() - timedelta(seconds=2 * destination.confirm_seconds)
    is_fresh = any(one.sent_at is None or one.sent_at >= fresh for one in sent)
    limit = time.monotonic() + (destination.confirm_seconds if is_fresh else 0.0)
    seconds = _FIRST_LOOK_SECONDS
    while True:
        proven = _ask(node, destination, study_instance_uid, sent)
        found = [parcel for parcel in sent if parcel.sop_instance_uid in proven]
        how = carrier_of(destination, node.settings).find_name
        _confirmed(node, lease, found, "find", f"found by {how}")
        sent = [parcel for parcel in sent if parcel.sop_instance_uid not in proven]
        left = limit - time.monotonic()
        if not sent or left <= 0:
            return sent
        pause(keeper, min(seconds, left))
        seconds = min(2 * seconds, _LONGEST_LOOK_SECONDS)


def _ask(
    node: Node,
    destination: DestinationSettings,
    study_instance_uid: str,
    parcels: Sequence[Parcel],
) -> set[str]:
    """Ask the destination which of the objects it has."""
    by_series: dict[str, list[str]] = {}
    for parcel in parcels:
        by_series.setdefault(parcel.series_instance_uid, []).append(parcel.sop_instance_uid)
    return carrier_of(destination, node.settings).holds(study_instance_uid, by_series)


def _confirmed(
    node: Node, lease: Lease, parcels: Sequence[Parcel], how: str, sentence: str
) -> None:
    if parcels:
        with node.database.session() as session:
            ids = [parcel.delivery_id for parcel in parcels]
            record_confirmation(session, lease, ids, how, sentence, node.now())
