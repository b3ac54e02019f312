"""Storage commitment: destinations commit to results, and the node to what a peer wants to delete.

A transaction is in the database before anyone hears of it, so that its report is known whenever
it comes, to whichever process, after whichever restart.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db import commitments
from db.commitments import Item
from db.deliveries import record_confirmation, record_sending
from db.jobs import Lease
from db.models import DeliveryState
from db.promises import promise
from db.results import results_of
from db.session import Database
from dicom_node.archive import Archive
from dicom_node.errors import FinalError, RejectedError, RetriableError
from dicom_node.services.commitment import (
    CLASS_CONFLICT,
    FAILURE_REASONS,
    NO_SUCH_INSTANCE,
    Reference,
    Report,
    report,
    request,
)
from workflows.destination_settings import AeDestinationSettings
from workflows.network import destination_of, known_entity
from workflows.node import Node
from workflows.parcels import Outcome, Parcel
from workflows.settings import NodeSettings

_LOG = logging.getLogger(__name__)

_SAME_ASSOCIATION_SECONDS: Final = 5.0
"""How long a report is waited for where it was asked; most archives open a new association."""
_ASK_AGAIN: Final = timedelta(hours=24)
_HOLD: Final = timedelta(minutes=5)
_REPORTS_AT_ONCE: Final = 20
_FIRST_PAUSE: Final = timedelta(seconds=10)
_LONGEST_PAUSE: Final = timedelta(minutes=15)
_GIVE_UP: Final = timedelta(days=3)
_FINAL_REASONS: Final = frozenset({0x0122, CLASS_CONFLICT})


class NodeLedger:
    """Keeps transactions in the database; see `dicom_node.services.commitment.Ledger`.

    Parameters
    ----------
    database
        Where to.
    settings
        Returns the settings in force: they say which destination an AE title stands for.
    now
        Clock.
    """

    def __init__(
        self,
        database: Database,
        settings: Callable[[], NodeSettings],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._settings = settings
        self._now = now

    def requested(
        self, calling_ae_title: str, transaction_uid: str, references: Sequence[Reference]
    ) -> bool:
        """Note what a peer wants to have committed."""
        items = [Item(one.sop_class_uid, one.sop_instance_uid) for one in references]
        with self._writing() as session:
            return commitments.take(session, calling_ae_title, transaction_uid, items, self._now())

    def reported(self, calling_ae_title: str, report: Report) -> bool:
        """Note the report of a destination."""
        names = [
            one.name
            for one in self._settings().destinations
            if isinstance(one, AeDestinationSettings) and calling_ae_title in one.reporters
        ]
        return self.answered(names, report)

    def answered(self, destinations: Sequence[str], report: Report) -> bool:
        """Note a report that came from one of these destinations."""
        reasons = {one.sop_instance_uid: one.reason for one in report.references}
        with self._writing() as session:
            return commitments.answer(
                session, destinations, report.transaction_uid, reasons, self._now()
            )

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        try:
            with self._database.session() as session:
                yield session
        except SQLAlchemyError as error:
            raise RetriableError(
                f"the node's database cannot take it now ({type(error).__name__})"
            ) from error


def prove_by_commitment(
    node: Node,
    lease: Lease,
    destination: AeDestinationSettings,
    sent: Sequence[Parcel],
    outcome: Outcome,
) -> None:
    """Have a destination commit to what it was sent; see `workflows.confirming.prove_at`.

    Asks once, and again after a day without a report. The job rests meanwhile, and is looked at
    as soon as the report comes.
    """
    sent = _heed_reports(node, lease, destination, sent, outcome)
    if not sent or _is_asked(node, lease, destination, sent, outcome):
        return
    transaction_uid = f"2.25.{uuid.uuid4().int}"
    items = _items(node, lease, sent)
    with node.database.session() as session:
        commitments.ask(
            session,
            destination=destination.name,
            transaction_uid=transaction_uid,
            job_id=lease.job_id,
            items=items,
            now=node.now(),
        )
    there = destination_of(destination, node.settings.tls)
    ledger = NodeLedger(node.database, lambda: node.settings, node.now)
    try:
        request(
            there,
            node.settings.node.ae_title,
            transaction_uid,
            [Reference(item.sop_class_uid, item.sop_instance_uid) for item in items],
            lambda report: ledger.answered([destination.name], report),
            wait_seconds=_SAME_ASSOCIATION_SECONDS,
            is_answered=lambda: _is_answered(node, lease, destination, transaction_uid),
        )
    except RetriableError as error:
        _withdraw(node, lease, destination, transaction_uid)
        outcome.again.append(error.sentence)
        return
    except RejectedError as error:
        _withdraw(node, lease, destination, transaction_uid)
        outcome.rejected.append(f"{error.sentence}. It answers so, too, while it restarts")
        return
    except FinalError as error:
        _withdraw(node, lease, destination, transaction_uid)
        outcome.never.append(
            f"{error.sentence}. The results were stored there, but it does not commit to them: "
            "allow us storage commitment there, or set confirm: find for this destination, then "
            "retry the job"
        )
        return
    sent = _heed_reports(node, lease, destination, sent, outcome)
    if sent:
        _is_asked(node, lease, destination, sent, outcome)


def report_commitments(node: Node) -> int:
    """Tell peers what the node commits to; returns how many reports were delivered."""
    now = node.now()
    with node.database.session() as session:
        due = commitments.due_reports(session, now, _HOLD, _REPORTS_AT_ONCE)
        claimed = [
            (one.id, one.entity, one.transaction_uid, commitments.items_of(one),
             one.requested_at, one.attempts)
            for one in due
        ]  # fmt: skip
    delivered = 0
    for number, ae_title, transaction_uid, items, requested_at, attempts in claimed:
        outcome = _committed(node.database, node.archive, items, node.now())
        peer = known_entity(node.settings, ae_title)
        try:
            if peer is None:
                raise RetriableError(
                    f"{ae_title} has no host and port under peers in node.yaml, so it cannot be "
                    "told what is committed"
                )
            answer = Report(transaction_uid, tuple(Reference(*item) for item in outcome))
            report(peer, node.settings.node.ae_title, answer)
        except (RetriableError, FinalError) as error:
            _try_later(node, number, outcome, error.sentence, requested_at, attempts)
            continue
        delivered += 1
        failed = sum(item.reason is not None for item in outcome)
        sentence = f"{len(outcome) - failed} of {len(outcome)} instances are committed"
        with node.database.session() as session:
            commitments.settle(session, number, outcome, sentence, node.now())
        _LOG.info("storage commitment for %s: %s", ae_title, sentence)
    return delivered


def _try_later(
    node: Node,
    number: int,
    outcome: Sequence[Item],
    sentence: str,
    requested_at: datetime,
    attempts: int,
) -> None:
    now = node.now()
    given_up = now - requested_at > _GIVE_UP
    with node.database.session() as session:
        if given_up:
            commitments.settle(session, number, outcome, f"given up: {sentence}", now)
        else:
            pause = min(_FIRST_PAUSE * 2 ** min(attempts - 1, 10), _LONGEST_PAUSE)
            commitments.postpone(session, number, sentence, now + pause)
    if given_up or attempts == 1:
        _LOG.warning(
            "a report of storage commitment %s: %s",
            "is given up after three days" if given_up else "is tried again",
            sentence,
        )


def _committed(
    database: Database, archive: Archive, items: Sequence[Item], now: datetime
) -> list[Item]:
    """Look what of a transaction the node really holds, and keep that from being deleted by age."""
    uids = [item.sop_instance_uid for item in items]
    with database.session() as session:
        # Before anybody hears of it, and in one transaction with the look.
        promise(session, uids, now)
        held = commitments.held_files(session, uids)
    outcome = []
    for item in items:
        files = [
            file
            for file in held.get(item.sop_instance_uid, ())
            if archive.absolute(file.path).is_file()
        ]
        reason = None
        if not files:
            reason = NO_SUCH_INSTANCE
        elif all(file.sop_class_uid != item.sop_class_uid for file in files):
            reason = CLASS_CONFLICT
        outcome.append(item._replace(reason=reason))
    return outcome


def _heed_reports(
    node: Node,
    lease: Lease,
    destination: AeDestinationSettings,
    sent: Sequence[Parcel],
    outcome: Outcome,
) -> list[Parcel]:
    """Do what the reports so far say; returns what none of them settles."""
    reasons: dict[str, int | None] = {}
    with node.database.reading() as session:
        for one in commitments.asked_of(session, lease.job_id, destination.name):
            if one.answered_at is not None:
                for item in commitments.items_of(one):
                    reasons[item.sop_instance_uid] = item.reason
    safe = [one for one in sent if reasons.get(one.sop_instance_uid, 0) is None]
    with node.database.session() as session:
        if safe:
            record_confirmation(
                session, lease, [one.delivery_id for one in safe], "commitment",
                "committed to by the destination", node.now(),
            )  # fmt: skip
        for parcel in sent:
            reason = reasons.get(parcel.sop_instance_uid)
            if reason is None:
                continue
            meaning = FAILURE_REASONS.get(reason, "no reason that the standard describes")
            sentence = f"{destination.name} does not commit ({reason:04X}: {meaning})"
            is_final = reason in _FINAL_REASONS
            state = DeliveryState.REFUSED if is_final else DeliveryState.PENDING
            (outcome.never if is_final else outcome.again).append(
                f"{sentence}. It was stored there: let it commit to this class, or set confirm: "
                "find for this destination, then retry the job"
                if is_final
                else f"{sentence}; it is sent again"
            )
            record_sending(session, lease, [parcel.delivery_id], state, sentence, node.now())
        if any(reason is not None for reason in reasons.values()):
            # What is sent again is asked for anew.
            _forget(session, lease, destination)
    return [one for one in sent if one.sop_instance_uid not in reasons]


def _is_asked(
    node: Node,
    lease: Lease,
    destination: AeDestinationSettings,
    sent: Sequence[Parcel],
    outcome: Outcome,
) -> bool:
    """Whether a transaction about all of this is open and young enough to wait for."""
    waiting = {one.sop_instance_uid for one in sent}
    since = node.now() - _ASK_AGAIN
    with node.database.reading() as session:
        for one in commitments.asked_of(session, lease.job_id, destination.name):
            named = {item.sop_instance_uid for item in commitments.items_of(one)}
            if one.answered_at is None and one.requested_at > since and waiting <= named:
                outcome.again.append(
                    f"{destination.name} was asked to commit to {len(waiting)} objects and has not "
                    "reported yet"
                )
                return True
    return False


def _is_answered(
    node: Node, lease: Lease, destination: AeDestinationSettings, transaction_uid: str
) -> bool:
    with node.database.reading() as session:
        return any(
            one.transaction_uid == transaction_uid and one.answered_at is not None
            for one in commitments.asked_of(session, lease.job_id, destination.name)
        )


def _items(node: Node, lease: Lease, sent: Sequence[Parcel]) -> list[Item]:
    uids = {one.sop_instance_uid for one in sent}
    with node.database.reading() as session:
        return [
            Item(result.sop_class_uid, result.sop_instance_uid)
            for result in results_of(session, lease.job_id)
            if result.sop_instance_uid in uids
        ]


def _withdraw(
    node: Node, lease: Lease, destination: AeDestinationSettings, transaction_uid: str
) -> None:
    """Forget a transaction that the destination never took."""
    with node.database.session() as session:
        commitments.withdraw(session, lease.job_id, destination.name, transaction_uid)


def _forget(session: Session, lease: Lease, destination: AeDestinationSettings) -> None:
    for one in commitments.asked_of(session, lease.job_id, destination.name):
        if one.answered_at is not None:
            session.delete(one)
