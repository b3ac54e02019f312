"""How much of a study an archive has that never came here: evidence against completeness."""

from __future__ import annotations

import logging
from datetime import timedelta

from db.catalog import instances_of
from db.models import Study
from db.waiting import own_series_of
from dicom_node.errors import FinalError, RetriableError
from dicom_node.services.query_retrieve_scu import instances_at
from workflows.destination_settings import AeDestinationSettings
from workflows.network import destination_of
from workflows.node import Node

_LOG = logging.getLogger(__name__)


def missing_here(node: Node, study_id: int) -> int:
    """Count the instances that the archive under ``completion.ask`` has, and the node has not.

    An archive that is away, or does not answer, holds up nothing: it is no evidence then. Nor is
    one asked about a study that has been quiet for ``completion.expected_seconds``.
    """
    completion = node.settings.completion
    destination = node.settings.destination(completion.ask) if completion.ask else None
    if not isinstance(destination, AeDestinationSettings):
        return 0
    with node.database.reading() as session:
        study = session.get_one(Study, study_id)
        patience = timedelta(seconds=completion.expected_seconds)
        if node.now() - study.last_received_at > patience:
            return 0
        own = own_series_of(session, study_id)
        here = {one.sop_instance_uid for one in instances_of(session, study_id)}
        uid = study.study_instance_uid
    try:
        there = instances_at(
            destination_of(destination, node.settings.tls),
            node.settings.node.ae_title,
            uid,
            but_series=own,
        )
    except (RetriableError, FinalError) as error:
        _LOG.warning("how much of a study is there is not known: %s", error.sentence)
        return 0
    return len(there - here)
