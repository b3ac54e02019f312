"""Holding a job's results to all rules once more, with how they fared on their way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy.orm import Session

from db.commitments import asked_by, items_of
from db.jobs import sources_of
from db.models import REJECTION_NOTE, DeliveryState, Job, ResultRecord
from db.models_told import Commitment
from db.results import results_of
from dicom_node.errors import FinalError
from dicom_node.objects.conformance import Delivery, Problem, examine
from dicom_node.objects.conformance_delivery import LISTED_KEYWORDS, broken_on_the_way
from dicom_node.objects.conformance_rules import Need
from dicom_node.objects.headers import UnreadableError, read_header
from dicom_node.objects.lint import FileVerdict, Lint
from dicom_node.objects.provenance import NODE_MANUFACTURER
from workflows.node import Node


def examine_job(node: Node, job_id: int, *, templates: bool = False) -> Lint:
    """Judge what a job wrote, sent and had proven; with ``templates``, by PixelMed as well.

    Raises
    ------
    FinalError
        There is no such job, or it has no results that are kept.
    """
    with node.database.reading() as session:
        if session.get(Job, job_id) is None:
            raise FinalError(f"there is no job {job_id}")
        results = results_of(session, job_id)
        delivery = delivery_of(results, asked_by(session, job_id))
        sources = [node.archive.absolute(one.path) for one in sources_of(session, job_id)]
    paths = [node.archive.absolute(one.path) for one in results if one.purged_at is None]
    if not paths:
        raise FinalError(f"job {job_id} has no results that are kept")
    headers = []
    for path in dict.fromkeys(path for path in sources if path.exists()):
        try:
            headers.append(read_header(path).dataset)
        except UnreadableError as error:
            raise FinalError(f"a source of job {job_id} cannot be read: {error}") from error
    verdicts = examine(paths, headers, templates=templates, delivery=delivery)
    return Lint(
        tuple(FileVerdict(Path(one.object), NODE_MANUFACTURER, one) for one in verdicts),
        sources=len(headers),
    )


def problems_on_the_way(session: Session, job_id: int) -> list[Problem]:
    """Return what the rules find of how a job's results fared (``AIR-41`` to ``AIR-43``)."""
    results = results_of(session, job_id)
    delivery = delivery_of(results, asked_by(session, job_id))
    return [
        problem
        for result in results
        if result.deliveries
        for problem in broken_on_the_way(_header(result), delivery)
    ]


def _header(result: ResultRecord) -> Dataset:
    header = Dataset()
    header.SOPClassUID = result.sop_class_uid
    for keyword in LISTED_KEYWORDS:
        setattr(header, keyword, result.attributes.get(keyword, ""))
    header.SOPInstanceUID = result.sop_instance_uid
    header.SeriesInstanceUID = result.series_instance_uid
    return header


def delivery_of(results: Sequence[ResultRecord], asked: Iterable[Commitment] = ()) -> Delivery:
    """Return how results fared at all their destinations together.

    The status of a result is one that failed, where any did; its proof counts when every
    destination has proven it. What queries answer is known where a destination proves by them.

    Parameters
    ----------
    results
        Of one job.
    asked
        Transactions of storage commitment about them, oldest first.
    """
    sent = [one for one in results if one.deliveries and one.kind != REJECTION_NOTE]
    statuses, proofs = {}, {}
    listed: dict[str, list[Dataset]] = {}
    for result in sent:
        uid = result.sop_instance_uid
        tried = [one for one in result.deliveries if one.status is not None or one.sent_at]
        failed = [one.status for one in tried if not one.sent_at and one.status]
        if tried:
            statuses[uid] = failed[0] if failed else 0x0000
        if all(one.state is DeliveryState.CONFIRMED for one in result.deliveries):
            how = sorted({one.confirmed_by for one in result.deliveries})
            proofs[uid] = ", ".join(how)
        answers = [_answer(one.listed) for one in result.deliveries if one.listed is not None]
        if answers:
            listed[uid] = answers
    commitments = _last_answers(asked)
    about = {uid for answer in commitments.values() for uid in answer}
    uids = {one.sop_instance_uid for one in results}
    return Delivery(
        statuses=statuses if sent else None,
        proofs=proofs,
        listed=listed or None,
        commitments=commitments or None,
        unasked={
            Need.STATUSES: frozenset(uids - {one.sop_instance_uid for one in sent}),
            Need.LISTED: frozenset(uids - listed.keys()),
            Need.COMMITMENTS: frozenset(uids - about),
        },
    )


def _answer(listed: dict[str, str]) -> Dataset:
    answer = Dataset()
    for keyword, text in listed.items():
        setattr(answer, keyword, text)
    return answer


def _last_answers(asked: Iterable[Commitment]) -> dict[str, dict[str, bool | None]]:
    """Return by transaction what was said of each instance; only the last word of each entity.

    What was granted stays so while a transaction that was opened since has no answer.
    """
    last: dict[tuple[str, str], tuple[str, bool | None]] = {}
    for one in asked:
        for item in items_of(one):
            word = None if one.answered_at is None else item.reason is None
            key = (one.entity, item.sop_instance_uid)
            if word is None and last.get(key, ("", None))[1]:
                continue
            last[key] = one.transaction_uid, word
    found: dict[str, dict[str, bool | None]] = {}
    for (_, uid), (transaction, word) in last.items():
        found.setdefault(transaction, {})[uid] = word
    return found
