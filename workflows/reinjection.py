"""Take up what lies in quarantine, once what was wrong is mended."""

from __future__ import annotations

import os
from typing import Final

from db import catalog
from db.aging import resolve_quarantine
from db.catalog import Arrival
from db.models import Quarantine
from db.operation import quarantine_entry
from dicom_node.errors import FinalError
from dicom_node.incoming import valid_uid
from dicom_node.part10 import read_file_meta
from dicom_node.services.header import read_header
from workflows.node import Node

_CHUNK: Final = 1 << 20


def reinject(node: Node, quarantine_id: int, who: str) -> str:
    """File and register an object as if it had just been received; returns its study's UID.

    Parameters
    ----------
    node
        The node.
    quarantine_id
        The entry.
    who
        Who wants it.

    Raises
    ------
    dicom_node.errors.FinalError
        It is not there any more, was taken up already, or still cannot be read.
    dicom_node.errors.StorageFullError
        The archive has no room.
    """
    with node.database.reading() as session:
        entry = quarantine_entry(session, quarantine_id)
    if entry is None or entry.resolved_at is not None:
        raise FinalError("This object is not in quarantine any more")
    arrival = _file_again(node, entry)
    now = node.now()
    with node.database.session() as session:
        entry = quarantine_entry(session, quarantine_id, hold=True)
        if entry is None or entry.resolved_at is not None:
            raise FinalError("Somebody else has just taken this object up")
        catalog.register(session, arrival)
        resolve_quarantine(session, [quarantine_id], f"taken up by {who}", now)
    path = node.archive.absolute(entry.path)
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    return arrival.study_instance_uid


def discard(node: Node, quarantine_id: int, who: str) -> None:
    """Delete an object in quarantine; its row stays as history.

    Raises
    ------
    dicom_node.errors.FinalError
        It is not there any more.
    """
    with node.database.session() as session:
        entry = quarantine_entry(session, quarantine_id, hold=True)
        if entry is None or entry.resolved_at is not None:
            raise FinalError("This object is not in quarantine any more")
        resolve_quarantine(session, [quarantine_id], f"deleted by {who}", node.now())
    path = node.archive.absolute(entry.path)
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)


def _file_again(node: Node, entry: Quarantine) -> Arrival:
    path = node.archive.absolute(entry.path)
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise FinalError("The file is not in the archive any more") from error
    with file:
        meta = read_file_meta(file, path.name)
        offset = meta.data_set_offset
        descriptor = file.fileno()
        attributes = read_header(
            lambda position, count: os.pread(descriptor, count, offset + position),
            os.fstat(descriptor).st_size - offset,
            meta.transfer_syntax_uid,
        )
        study, series = (
            attributes.get("StudyInstanceUID", ""),
            attributes.get("SeriesInstanceUID", ""),
        )
        uid = attributes.get("SOPInstanceUID", meta.sop_instance_uid)
        for name, value in (("Study", study), ("Series", series), ("SOP", uid)):
            if not valid_uid(value):
                raise FinalError(
                    f"Its {name} Instance UID is missing or no UID: it cannot be filed"
                )
        file.seek(offset)
        sop_class = attributes.get("SOPClassUID", meta.sop_class_uid)
        with node.archive.receive(sop_class, uid, meta.transfer_syntax_uid) as incoming:
            while chunk := file.read(_CHUNK):
                incoming.write(chunk)
            stored = incoming.file(study, series, uid)
    return Arrival(
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=uid,
        sop_class_uid=sop_class,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        path=stored.path,
        size=stored.size,
        sha256=stored.sha256,
        beside="~" in stored.path,
        received_at=node.now(),
        attributes=attributes,
        calling_ae_title=entry.calling_ae_title,
        called_ae_title=entry.called_ae_title,
        peer_host=entry.peer_host,
    )
