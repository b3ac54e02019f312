"""Holding a job's results to all rules once more, with how they fared on their way."""

from __future__ import annotations

from collections.abc import Sequence

from db.jobs import sources_of
from db.models import DeliveryState, Job, ResultRecord
from db.results import results_of
from dicom_node.errors import FinalError
from dicom_node.objects.conformance import Delivery, Verdict, examine
from dicom_node.objects.headers import UnreadableError, read_header
from workflows.node import Node


def examine_job(node: Node, job_id: int) -> list[Verdict]:
    """Judge what a job wrote, sent and had proven.

    Raises
    ------
    FinalError
        There is no such job, or it has no results that are kept.
    """
    with node.database.reading() as session:
        if session.get(Job, job_id) is None:
            raise FinalError(f"there is no job {job_id}")
        results = results_of(session, job_id)
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
    return examine(paths, headers, delivery=delivery_of(results))


def delivery_of(results: Sequence[ResultRecord]) -> Delivery:
    """Return how results fared at all their destinations together.

    The status of a result is one that failed, where any did; its proof counts when every
    destination has proven it.
    """
    statuses, proofs = {}, {}
    for result in results:
        if not result.deliveries:
            continue
        tried = [one for one in result.deliveries if one.status is not None or one.sent_at]
        failed = [one.status for one in tried if not one.sent_at and one.status]
        if tried:
            statuses[result.sop_instance_uid] = failed[0] if failed else 0x0000
        if all(one.state is DeliveryState.CONFIRMED for one in result.deliveries):
            how = sorted({one.confirmed_by for one in result.deliveries})
            proofs[result.sop_instance_uid] = ", ".join(how)
    return Delivery(
        statuses=statuses if any(one.deliveries for one in results) else None, proofs=proofs
    )
