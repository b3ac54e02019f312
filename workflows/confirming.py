"""Confirming: a destination proves that it has what it was sent, by C-FIND or QIDO-RS."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from db.jobs import Lease
from db.models import DeliveryState
from db.results import record_confirmation, record_sending
from dicom_node.errors import FinalError, RejectedError, RetriableError
from workflows.carriers import carrier_of
from workflows.destination_settings import DestinationSettings
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
    """Have what was sent proven; what the destination does not know after a while is sent anew.

    What it came to goes into ``outcome``. A destination that cannot be asked now keeps what it
    was sent; only one that answers without knowing an object gets it again.
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
        carrier = carrier_of(destination, node.settings)
        problem = (
            f"{carrier} answered success, but its {carrier.find_name} does not know the "
            f"object after {destination.confirm_seconds:g} s; it is sent again"
        )
        outcome.again.append(problem)
        with node.database.session() as session:
            ids = [parcel.delivery_id for parcel in lacking]
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
    limit = time.monotonic() + destination.confirm_seconds
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
