"""Tell people and programs that a job failed, was delivered, or found something critical.

No notice names a patient: it points to the job, and who may look follows the link.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy.orm import Session

from db.happenings import FOUND, has_happened, take_happenings
from db.listing import as_text
from db.models_operation import Notice
from db.notices import (
    add_notice,
    forget_channels,
    note_sending,
    put_back,
    rules_of,
    sent_since,
    take_due,
    told_already,
    told_job,
)
from db.results import present_targets
from dicom_node.errors import DicomNodeError
from workflows.node import Node
from workflows.notice_channels import MOST_LISTED, Content, mail, post
from workflows.notice_settings import NoticeSettings

_LOG = logging.getLogger(__name__)
_MADE_AT_ONCE: Final = 500
_TAKEN_SECONDS: Final = 120.0
"""Another sender leaves a notice alone for so long; longer than a round takes."""
_ROUND_SECONDS: Final = 30.0
_BETWEEN_MAILS: Final = timedelta(minutes=1)
"""A PACS that goes away can fail hundreds of jobs: what comes in between is told in one mail."""
_POSTS_A_ROUND: Final = 200
_MOST_IN_A_MAIL: Final = 5000
"""After a long outage, too, all that waits comes in one mail; it lists the first of them."""


def send_notices(node: Node) -> int:
    """Make the notices that are missing and send those that are due; returns how many went out.

    A channel is told of what happens from the time on at which ``node.yaml`` has it.
    """
    channels = node.settings.notices
    while _make(node) == _MADE_AT_ONCE:
        pass
    until = time.monotonic() + _ROUND_SECONDS
    return sum(_serve(node, channel, until) for channel in channels)


def _make(node: Node) -> int:
    """Make notices of what happened, and take it out, both or neither; returns how much it was."""
    channels = node.settings.notices
    with node.database.reading() as session:
        if not (channels or has_happened(session)):
            return 0
    now = node.now()
    with node.database.session() as session:
        forget_channels(session, [channel.name for channel in channels])
        happenings = take_happenings(session, _MADE_AT_ONCE)
        found = [one.job_id for one in happenings if one.kind == FOUND]
        critical = _critical(node, session, found)
        known = told_already(session, list(critical), "critical")
        for one in happenings:
            what = ("critical" if one.job_id in critical else "") if one.kind == FOUND else one.kind
            for channel in channels:
                # A job that begins anew finds again what was told of before.
                again = what == "critical" and (one.job_id, channel.name) in known
                if what in channel.about and not again:
                    add_notice(session, one.job_id, what, channel.name, one.at, now)
            if what == "critical":
                known |= {(one.job_id, channel.name) for channel in channels}
    return len(happenings)


def _critical(node: Node, session: Session, found: Sequence[int]) -> set[int]:
    """Name the jobs that found what their rule calls critical; the PACS need not have it yet."""
    present, named = present_targets(session, found), rules_of(session, found)
    rules = {job_id: node.configuration.rules.rule(name) for job_id, name in named.items()}
    return {
        job_id
        for job_id, rule in rules.items()
        if rule is not None and rule.critical_of(present.get(job_id, []))
    }


def _serve(node: Node, channel: NoticeSettings, until: float) -> int:
    """Send what is due by one channel; the first failure ends it, as the others would fail too."""
    now = node.now()
    with node.database.session() as session:
        # What is critical waits for nobody.
        rests = channel.mail is not None and sent_since(session, channel.name, now - _BETWEEN_MAILS)
        due = take_due(
            session,
            channel.name,
            now,
            _TAKEN_SECONDS,
            most=_POSTS_A_ROUND if channel.mail is None else _MOST_IN_A_MAIL,
            only="critical" if rests else "",
        )
    if channel.mail is not None:
        return _send(node, channel, sorted(due, key=lambda one: one.kind != "critical"))
    sent = 0
    for number, notice in enumerate(due):
        done = _send(node, channel, [notice]) if time.monotonic() < until else 0
        if not done:
            with node.database.session() as session:
                put_back(session, [one.id for one in due[number:]], node.now())
            break
        sent += done
    return sent


def _send(node: Node, channel: NoticeSettings, notices: Sequence[Notice]) -> int:
    """Send some notices in one go; returns how many went out."""
    listed = [_content(node, notice) for notice in notices[:MOST_LISTED]]
    contents = [content for content in listed if content is not None]
    more = Counter(notice.kind for notice in notices[MOST_LISTED:])
    told = len(contents) + more.total()
    problem = ""
    if contents:
        try:
            if channel.url is not None:
                post(channel.url, channel, contents[0], node.settings.tls)
            if channel.mail is not None:
                mail(channel.mail, contents, more, node.settings.tls)
        except DicomNodeError as error:
            problem = error.sentence
            _LOG.warning("%d notices to %s: %s", told, channel.name, problem)
    with node.database.session() as session:
        note_sending(session, [notice.id for notice in notices], problem, node.now())
    return 0 if problem else told


def _content(node: Node, notice: Notice) -> Content | None:
    """Say what a notice is about; None when the job was deleted meanwhile."""
    job_id = notice.job_id
    with node.database.reading() as session:
        job = told_job(session, job_id)
        if job is None:
            return None
        content: Content = {
            "event": notice.kind,
            "at": as_text(notice.made_at),
            "job": job_id,
            "state": str(job.state),
            "study_instance_uid": job.study.study_instance_uid,
            "modality": job.modality,
            "rule": job.rule,
            "sentence": job.error,
            "link": f"{node.settings.dashboard.address()}/jobs/{job_id}",
            "node": node.settings.node.name,
        }
        if notice.kind == "critical":
            rule = node.configuration.rules.rule(job.rule)
            present = present_targets(session, [job_id]).get(job_id, [])
            content["found"] = ", ".join(rule.critical_of(present) if rule else present)
    return content
