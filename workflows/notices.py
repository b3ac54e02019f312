"""Tell people and programs that a job failed, was delivered, or found something critical.

No notice names a patient: it points to the job, and who may look follows the link.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from db.jobs import JobState
from db.models_operation import Notice
from db.notices import (
    add_notice,
    ended_jobs,
    forget_channels,
    found_present,
    known_notices,
    note_sending,
    present_targets,
    put_back,
    sent_since,
    take_due,
    told_job,
)
from dicom_node.errors import DicomNodeError
from workflows.node import Node
from workflows.notice_channels import Content, mail, post
from workflows.notice_settings import NoticeKind, NoticeSettings

_LOG = logging.getLogger(__name__)
_LOOK_BACK: Final = timedelta(hours=1)
"""What happened earlier is not told of: a channel that is new begins with what happens now."""
_TAKEN_SECONDS: Final = 120.0
"""Another sender leaves a notice alone for so long; longer than a round takes."""
_ROUND_SECONDS: Final = 30.0
_BETWEEN_MAILS: Final = timedelta(minutes=1)
"""A PACS that goes away can fail hundreds of jobs: what comes in between is told in one mail."""
_KINDS: Final[dict[JobState, NoticeKind]] = {
    JobState.FAILED: "failed",
    JobState.DELIVERED: "delivered",
}


def send_notices(node: Node) -> int:
    """Make the notices that are missing and send those that are due; returns how many went out."""
    channels = node.settings.notices
    if not channels:
        return 0
    _make(node)
    until = time.monotonic() + _ROUND_SECONDS
    return sum(_serve(node, channel, until) for channel in channels)


def _make(node: Node) -> None:
    now = node.now()
    channels = node.settings.notices
    with node.database.session() as session:
        forget_channels(session, [channel.name for channel in channels])
        happened = [*_critical(node, session, now - _LOOK_BACK), *_ended(session, now - _LOOK_BACK)]
        known = known_notices(session, [job_id for job_id, _ in happened])
        for job_id, what in happened:
            for channel in channels:
                if what in channel.about and (job_id, what, channel.name) not in known:
                    add_notice(session, job_id, what, channel.name, now)


def _ended(session: Session, since: datetime) -> list[tuple[int, NoticeKind]]:
    return [(one.job_id, _KINDS[one.state]) for one in ended_jobs(session, since)]


def _critical(node: Node, session: Session, since: datetime) -> list[tuple[int, NoticeKind]]:
    """Name the jobs that found what their rule calls critical; the PACS need not have it yet."""
    rules = {rule.name: rule for rule in node.configuration.rules.rules if rule.critical}
    found = found_present(session, list(rules), since) if rules else []
    jobs = dict.fromkeys(one.job_id for one in found if rules[one.rule].critical_of([one.target]))
    return [(job_id, "critical") for job_id in jobs]


def _serve(node: Node, channel: NoticeSettings, until: float) -> int:
    """Send what is due by one channel; the first failure ends it, as the others would fail too."""
    now = node.now()
    with node.database.session() as session:
        # What is critical waits for nobody.
        rests = channel.mail is not None and sent_since(session, channel.name, now - _BETWEEN_MAILS)
        due = take_due(session, channel.name, now, _TAKEN_SECONDS, only="critical" if rests else "")
    if channel.mail is not None:
        return _send(node, channel, due)
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
    told = [(notice, _content(node, notice)) for notice in notices]
    contents = [content for _, content in told if content is not None]
    problem = ""
    if contents:
        try:
            if channel.url is not None:
                post(channel.url, channel, contents[0], node.settings.tls)
            if channel.mail is not None:
                mail(channel.mail, contents, node.settings.tls)
        except DicomNodeError as error:
            problem = error.sentence
            _LOG.warning("%d notices to %s: %s", len(contents), channel.name, problem)
    with node.database.session() as session:
        note_sending(session, [notice.id for notice in notices], problem, node.now())
    return 0 if problem else len(contents)


def _content(node: Node, notice: Notice) -> Content | None:
    """Say what a notice is about; None when the job was deleted meanwhile."""
    job_id = notice.job_id
    with node.database.reading() as session:
        job = told_job(session, job_id)
        if job is None:
            return None
        content: Content = {
            "event": notice.kind,
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
            present = present_targets(session, job_id)
            content["found"] = ", ".join(rule.critical_of(present) if rule else present)
    return content
