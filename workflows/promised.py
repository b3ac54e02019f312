"""Received images that the node committed to: when it may delete them.

A modality that was told so deletes its own (PS3.4 J.3.2). So they stay beyond the settings under
``retention``, until the destination named there as ``archive`` is proven to hold them.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from db.promises import Promise, promises_due, redeem
from dicom_node.errors import DicomNodeError
from workflows.carriers import Carrier, carrier_of
from workflows.node import Node

_LOG = logging.getLogger(__name__)
_AT_ONCE: Final = 50


def keep_promises(node: Node, received_before: datetime, failed_before: datetime) -> None:
    """Ask the archive for what could go by its age; what it holds may be deleted from now on.

    Parameters
    ----------
    node
        Whose ``retention.archive``.
    received_before, failed_before
        As `db.aging.aged_studies`.
    """
    with node.database.reading() as session:
        due = promises_due(session, received_before, failed_before, _AT_ONCE)
    if not due:
        return
    name = node.settings.retention.archive
    archive = node.settings.destination(name) if name else None
    if archive is None:
        why = (
            "name the archive that gets them, too, as retention.archive in node.yaml: what is "
            "found there is deleted here"
        )
        _tell_kept(len(due), why)
        return
    there = carrier_of(archive, node.settings)
    lacking = 0
    for number, one in enumerate(due):
        try:
            held = _is_held(there, one)
        except DicomNodeError as error:
            _tell_kept(len(due) - number + lacking, error.sentence)
            return
        lacking += not held
        if held:
            with node.database.session() as session:
                redeem(session, one)
    if lacking:
        _tell_kept(lacking, f"{there} does not have all of their images; send them there")


def _is_held(there: Carrier, wanted: Promise) -> bool:
    found = there.holds(wanted.study_instance_uid, wanted.by_series)
    return all(found.issuperset(uids) for uids in wanted.by_series.values())


def _tell_kept(studies: int, why: str) -> None:
    _LOG.warning(
        "%d studies are older than retention in node.yaml says and stay, because the node "
        "committed to their images: %s",
        studies,
        why,
    )
