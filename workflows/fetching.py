"""Fetch the images of a workitem by WADO-RS, and take them in like those that are sent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any, Final

from db.session import Database
from dicom_node.errors import FinalError, RetriableError
from dicom_node.services.dicomweb.negotiation import DICOM
from dicom_node.services.dicomweb.store import Storing
from dicom_node.services.dicomweb_client import WebArchive
from dicom_node.services.performer_words import input_address, input_study
from dicom_node.services.reception import AssociationRecord
from dicom_node.services.web_connection import WebDestination
from workflows.intake import Registrar
from workflows.node import Node

CALLER: Final = "UPS-RS"
"""What stands in place of a calling AE title."""


def fetch_study(
    node: Node, archive: WebDestination, workitem: Mapping[str, Any], source: str
) -> int:
    """Fetch a workitem's study, durable and registered; returns how many images came.

    Parameters
    ----------
    node
        Whose archive it goes into.
    archive
        Where from.
    workitem
        Says what.
    source
        Name of the worklist, in place of a host.

    Raises
    ------
    RetriableError, FinalError
        It does not give them, or they cannot be kept; what came before is kept.
    """
    # Commits wait for the disk as those of the listener do not have to: nobody looks for files
    # of this process at a start.
    database = Database(node.database.url)
    registrar = Registrar(
        database,
        listener=node.receiver(f":fetch-{os.getpid()}"),
        archive=node.archive,
    )
    ae_title = node.settings.node.ae_title
    record = AssociationRecord(uuid.uuid4().hex, CALLER, ae_title, source, None)
    storing = Storing(
        node.archive,
        record,
        registrar.on_stored,
        registrar.on_quarantined,
        input_study(workitem),
    )

    def take(data: bytes) -> None:
        sink = storing.open_part({"content-type": DICOM})
        sink.write(data)
        sink.close()

    whole = False
    registrar.start()
    try:
        with WebArchive(archive) as there:
            there.retrieve(input_address(workitem, archive.url), take)
        whole = True
    finally:
        # Broken off, the study waits until it is quiet, and the rest is fetched later.
        registrar.on_released(record.ended("released" if whole else "aborted"))
        registrar.stop()
        database.dispose()
    stored = sum(one.is_stored for one in storing.outcomes)
    if stored < len(storing.outcomes):
        why = next(one.answer.comment for one in storing.outcomes if not one.is_stored)
        failed = len(storing.outcomes) - stored
        sentence = f"{failed} of {len(storing.outcomes)} fetched images cannot be kept: {why}"
        raise RetriableError(sentence) if storing.status == 503 else FinalError(sentence)
    return stored
