"""Bring the audit trail to the site's collectors of syslog (PS3.15 section A.6, IHE ATNA).

The trail in the database is the queue, and a position in it says what each collector has: what is
recorded while one is away, waits. A collector that was never sent anything gets the whole trail.
After a crash some messages may come twice, none is left out.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from datetime import timedelta
from typing import Final

from db.audit import FIRST_DIGEST, first_misfit, record
from db.audit_positions import (
    Claim,
    claim,
    has_unsent,
    move,
    note_failed,
    note_sent,
    still_there,
    unsent_after,
)
from db.models_access import AuditRecord
from dicom_node.errors import DicomNodeError
from workflows.audit_messages import into_file, message_of
from workflows.audit_settings import CollectorSettings
from workflows.network import collector_tls_of
from workflows.node import Node
from workflows.syslog import NOTICE, WARNING, deliver, syslog_message

_LOG = logging.getLogger(__name__)
_BATCH: Final = {"tls": 500, "tcp": 500, "udp": 50}
"""Messages in one go. Of datagrams only as many as the smallest usual buffer holds."""
_SECONDS: Final = 10.0
"""The longest that one batch may take."""
_ROUND_SECONDS: Final = 20.0
"""After so long no batch is begun: the process that sends has other things to do, too."""
_CLAIM_SECONDS: Final = 120.0
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0
MESSAGE_KIND: Final = "DICOM+RFC3881"
"""MSGID of messages in the schema of PS3.15 section A.5 (section A.6)."""


def send_audit(node: Node) -> int:
    """Send each collector what it does not have yet; returns how many messages went out."""
    sent = 0
    for collector in node.settings.audit:
        with node.database.reading() as session:
            if not has_unsent(session, collector.name):
                continue
        with node.database.session() as session:
            held = claim(session, collector.name, node.now(), _CLAIM_SECONDS)
        if held is not None:
            sent += _send_to(node, collector, held)
    return sent


def _send_to(node: Node, collector: CollectorSettings, held: Claim) -> int:
    """Send batch after batch, until all is there, something fails, or the round is over."""
    with node.database.reading() as session:
        there = still_there(session, held)
    if not there:
        sentence = (
            f"record {held.record_id} was sent to {collector.name} and is not in the trail any "
            "more as it was: was the database changed, or put back from a backup? The whole trail "
            "is sent again"
        )
        _tell_gap(node, collector, sentence)
        restarted = _move(node, held, 0, FIRST_DIGEST)
        if restarted is None:
            return 0
        held = restarted
    sent = 0
    try:
        context = collector_tls_of(node.settings, collector)
        until = time.monotonic() + _ROUND_SECONDS
        while time.monotonic() < until:
            with node.database.reading() as session:
                entries = unsent_after(session, held.record_id, _BATCH[collector.transport])
            if not entries:
                break
            misfit = first_misfit(entries, held.digest)
            deliver(
                [_message(node, one) for one in entries], collector.host, collector.port,
                transport=collector.transport, context=context, seconds=_SECONDS,
            )  # fmt: skip
            moved = _move(node, held, entries[-1].id, entries[-1].digest)
            if moved is None:
                return sent
            held, sent = moved, sent + len(entries)
            if misfit is not None:
                sentence = (
                    f"record {misfit} does not fit the one before: it was changed, or one before "
                    "it was taken out"
                )
                _tell_gap(node, collector, sentence)
    except DicomNodeError as error:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(held.failures, 10))
        if held.failures == 0:
            _LOG.warning("audit trail: %s: %s; it waits here", collector.name, error.sentence)
        at = node.now() + timedelta(seconds=pause)
        with node.database.session() as session:
            note_failed(session, held, error.sentence, at)
        return sent
    if held.failures:
        _LOG.info("audit trail: %s takes it again, %d messages sent", collector.name, sent)
    with node.database.session() as session:
        note_sent(session, held, node.now())
    return sent


def _move(node: Node, held: Claim, record_id: int, digest: str) -> Claim | None:
    with node.database.session() as session:
        return move(session, held, record_id, digest)


def _message(node: Node, entry: AuditRecord) -> bytes:
    source = node.settings.node.ae_title
    return syslog_message(
        message_of(entry, source),
        at=entry.at,
        host=socket.gethostname(),
        application=source,
        process=str(os.getpid()),
        kind=MESSAGE_KIND,
        severity=NOTICE if entry.outcome == "success" else WARNING,
    )


def _tell_gap(node: Node, collector: CollectorSettings, sentence: str) -> None:
    """Say in the log, and in the trail itself, that the trail is not what it was."""
    _LOG.error("audit trail: %s", sentence)
    with node.database.session() as session:
        record(
            session,
            at=node.now(),
            account="node",
            action="audit.gap",
            target=f"collector {collector.name}",
            outcome="refused",
            details={"what": sentence},
            on_kept=into_file(node),
        )
