"""Audit messages as DICOM words them (PS3.15 section A.5), one a line in ``log/audit.log``.

The file is for the site's collector (a syslog agent that follows it). Each message carries the
digest of its record: a chain that was computed anew in the database shows beside the collected one.
"""

from __future__ import annotations

import logging
import os
import threading
from datetime import UTC
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from db.models_access import AuditRecord

_LOG = logging.getLogger(__name__)
_GUARD: Final = threading.Lock()
_LARGEST: Final = 50_000_000

_APPLICATION: Final = ("110100", "Application Activity")
_EVENTS: Final = {
    "login": ("110114", "User Authentication"),
    "logout": ("110114", "User Authentication"),
    "job.view": ("110103", "DICOM Instances Accessed"),
    "job.list": ("110112", "Query"),
    "images.view": ("110103", "DICOM Instances Accessed"),
    "patient.search": ("110112", "Query"),
    "quarantine.view": ("110103", "DICOM Instances Accessed"),
    "account": ("110113", "Security Alert"),
    "rules.save": ("110100", "Application Activity"),
}
"""Event identifiers of CID 400; an action that stands for none of them is application activity."""
_TYPES: Final = {"login": ("110122", "Login"), "logout": ("110123", "Logout")}


def message_of(record: AuditRecord, source: str) -> str:
    """Write a record as an AuditMessage, in one line.

    Parameters
    ----------
    record
        The record, with its digest.
    source
        Who reports: the node's AE title.
    """
    root = ElementTree.Element("AuditMessage")
    reads = record.action.endswith((".view", ".list", ".search"))
    event = ElementTree.SubElement(
        root,
        "EventIdentification",
        EventActionCode="R" if reads else "E",
        EventDateTime=record.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator="0" if record.outcome == "success" else "4",
    )
    group = record.action.partition(".")[0]
    _code(event, "EventID", _EVENTS.get(record.action) or _EVENTS.get(group) or _APPLICATION)
    if record.action in _TYPES:
        _code(event, "EventTypeCode", _TYPES[record.action])
    ElementTree.SubElement(
        root,
        "ActiveParticipant",
        UserID=record.account or "nobody",
        UserIsRequestor="true",
        NetworkAccessPointID=record.host or "unknown",
        NetworkAccessPointTypeCode="2",
    )
    ElementTree.SubElement(root, "AuditSourceIdentification", AuditSourceID=source)
    thing = ElementTree.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=record.target or "dashboard",
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    for name, value in (("action", record.action), ("record", str(record.id)),
                        ("digest", record.digest)):  # fmt: skip
        ElementTree.SubElement(thing, "ParticipantObjectDetail", type=name, value=value)
    return ElementTree.tostring(root, encoding="unicode")


def _code(parent: ElementTree.Element, name: str, code: tuple[str, str]) -> None:
    ElementTree.SubElement(
        parent, name, {"csd-code": code[0], "codeSystemName": "DCM", "originalText": code[1]}
    )


def append_message(record: AuditRecord, source: str, path: Path) -> None:
    """Append to the file, which starts anew when it is full; the one before is kept.

    What a full disk does not take is said in the log: the record itself is in the database.
    """
    line = (message_of(record, source) + "\n").encode("utf-8", "replace")
    try:
        with _GUARD:
            if path.exists() and path.stat().st_size > _LARGEST:
                path.replace(path.with_suffix(".log.1"))
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(line)
    except OSError as error:
        _LOG.error("audit record %d is not in %s: %s", record.id, path.name, error)
