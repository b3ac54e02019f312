"""Audit messages as DICOM words them (PS3.15 section A.5), one a line in ``log/audit.log``.

The file is for who looks at the node's folder, or follows it by an agent; `workflows.audit_sending`
brings the same messages to collectors. Each carries the digest of its record: a chain that was
computed anew in the database shows beside the collected one.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import os
import re
import threading
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree

from db.models_access import AuditRecord
from workflows.node import Node

_LOG = logging.getLogger(__name__)
_GUARD: Final = threading.Lock()
_LARGEST: Final = 50_000_000
_LONGEST_DETAIL: Final = 1024
"""Characters. A message stays under 32 KiB, which PS3.15 section A.6 asks receivers to take."""
_OWN_CODES: Final = "99UNIBIOMED"
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Code(NamedTuple):
    value: str
    meaning: str
    scheme: str = "DCM"


_APPLICATION: Final = _Code("110100", "Application Activity")
_EVENTS: Final = {
    "login": _Code("110114", "User Authentication"),
    "login.blocked": _Code("110113", "Security Alert"),
    "logout": _Code("110114", "User Authentication"),
    "job.view": _Code("110103", "DICOM Instances Accessed"),
    "job.list": _Code("110112", "Query"),
    "studies.list": _Code("110112", "Query"),
    "study.view": _Code("110103", "DICOM Instances Accessed"),
    "images.view": _Code("110103", "DICOM Instances Accessed"),
    "result.view": _Code("110103", "DICOM Instances Accessed"),
    "result.download": _Code("110106", "Export"),
    "reviews.export": _Code("110106", "Export"),
    "patient.search": _Code("110112", "Query"),
    "quarantine.view": _Code("110103", "DICOM Instances Accessed"),
    "account": _Code("110113", "Security Alert"),
    "token": _Code("110113", "Security Alert"),
    "audit.list": _Code("110101", "Audit Log Used"),
    "audit.check": _Code("110101", "Audit Log Used"),
    "audit.gap": _Code("110113", "Security Alert"),
}
"""Event identifiers of CID 400; an action that stands for none of them is application activity."""
_TYPES: Final = {
    "login": _Code("110122", "Login"),
    "logout": _Code("110123", "Logout"),
    "account": _Code("110137", "User Security Attributes Changed"),
    "token": _Code("110137", "User Security Attributes Changed"),
    "audit.gap": _Code("110135", "Object Security Attributes Changed"),
}
"""Event types of CID 401."""
_STUDY: Final = _Code("110180", "Study Instance UID")
_PATIENT: Final = _Code("2", "Patient Number", "RFC-3881")
_READS: Final = (".view", ".list", ".search", ".download", ".export")


def message_of(record: AuditRecord, source: str) -> str:
    """Write a record as an AuditMessage of the schema in PS3.15 section A.5.1, in one line.

    Parameters
    ----------
    record
        The record, with its digest. Of its details, ``study`` (Study Instance UID) and ``patient``
        (Patient ID) become participant objects of their own.
    source
        Who reports: the node's AE title.
    """
    root = ElementTree.Element("AuditMessage")
    event = ElementTree.SubElement(
        root,
        "EventIdentification",
        EventActionCode="R" if record.action.endswith(_READS) else "E",
        EventDateTime=record.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator="0" if record.outcome == "success" else "4",
    )
    group = record.action.partition(".")[0]
    _code(event, "EventID", _EVENTS.get(record.action) or _EVENTS.get(group) or _APPLICATION)
    kind = _TYPES.get(record.action) or _TYPES.get(group)
    if kind is not None:
        _code(event, "EventTypeCode", kind)
    # The node's own word for it, for people who search the file: details are base64 by the schema.
    _code(event, "EventTypeCode", _Code(_text(record.action), _text(record.action), _OWN_CODES))
    person = ElementTree.SubElement(
        root, "ActiveParticipant", UserID=_text(record.account) or "nobody", UserIsRequestor="true"
    )
    if record.host:
        person.set("NetworkAccessPointID", _text(record.host))
        person.set("NetworkAccessPointTypeCode", "2" if _is_address(record.host) else "1")
    ElementTree.SubElement(root, "ActiveParticipant", UserID=_text(source), UserIsRequestor="false")
    ElementTree.SubElement(root, "AuditSourceIdentification", AuditSourceID=_text(source))
    details = dict(record.details)
    study, patient = details.pop("study", ""), details.pop("patient", "")
    if study:
        _object(root, str(study), ("2", "3"), _STUDY)
    if patient:
        _object(root, str(patient), ("1", "1"), _PATIENT)
    told = {
        **{str(key): value for key, value in details.items()},
        "record": record.id,
        "digest": record.digest,
    }
    is_job = record.target.startswith("job ")
    code = _Code("job" if is_job else "target", "Job" if is_job else "Target", _OWN_CODES)
    thing = _object(root, record.target or "dashboard", ("2", "20" if is_job else "13"), code)
    for name, value in told.items():
        ElementTree.SubElement(
            thing, "ParticipantObjectDetail", type=_text(name), value=_encoded(value)
        )
    return ElementTree.tostring(root, encoding="unicode").replace("\n", " ")


def _object(
    root: ElementTree.Element, identifier: str, kind: tuple[str, str], code: _Code
) -> ElementTree.Element:
    """Add a participant object of a type and role (PS3.15 sections A.5.1.2.2 and A.5.2)."""
    made = ElementTree.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_text(identifier),
        ParticipantObjectTypeCode=kind[0],
        ParticipantObjectTypeCodeRole=kind[1],
    )
    _code(made, "ParticipantObjectIDTypeCode", code)
    ElementTree.SubElement(made, "ParticipantObjectName").text = _text(identifier)
    return made


def _code(parent: ElementTree.Element, name: str, code: _Code) -> None:
    ElementTree.SubElement(
        parent,
        name,
        {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning},
    )


def _text(value: str) -> str:
    """Take out what XML 1.0 cannot hold: names that were typed at the login are hostile."""
    return _NOT_XML.sub("�", value)


def _encoded(value: Any) -> str:
    """Return a detail as the schema wants all of them: base64, whatever is inside."""
    text = str(value)[:_LONGEST_DETAIL]
    return base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def into_file(node: Node) -> Callable[[AuditRecord], None]:
    """Return what appends a record's message to the node's ``log/audit.log``."""
    title, path = node.settings.node.ae_title, node.home.log / "audit.log"
    return lambda entry: append_message(entry, title, path)


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
