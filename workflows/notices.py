"""Tell people and programs that a job failed, was delivered, or found something critical.

No notice names a patient: it points to the job, and who may look follows the link.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import smtplib
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Any, Final

import httpx
from sqlalchemy.orm import Session

from db.jobs import JobState
from db.notices import (
    add_notice,
    due_notices,
    ended_jobs,
    found_present,
    known_notices,
    note_sending,
    present_targets,
    told_job,
)
from workflows.node import Node
from workflows.notice_settings import MailSettings, NoticeKind, NoticeSettings

_LOG = logging.getLogger(__name__)
_LOOK_BACK: Final = timedelta(hours=1)
"""What happened earlier is not told of: a channel that is new begins with what happens now."""
_SECONDS: Final = 10.0
_KINDS: Final[dict[JobState, NoticeKind]] = {
    JobState.FAILED: "failed",
    JobState.DELIVERED: "delivered",
}


def send_notices(node: Node) -> int:
    """Make the notices that are missing and send those that are due; returns how many went out."""
    if not node.settings.notices:
        return 0
    now = node.now()
    with node.database.session() as session:
        happened = [*_critical(node, session, now - _LOOK_BACK), *_ended(session, now - _LOOK_BACK)]
        known = known_notices(session, [job_id for job_id, _ in happened])
        for job_id, what in happened:
            for channel in node.settings.notices:
                if what in channel.about and (job_id, what, channel.name) not in known:
                    add_notice(session, job_id, what, channel.name, now)
        session.flush()
        due = [(one.id, one.job_id, one.kind, one.channel) for one in due_notices(session, now)]
    channels = {channel.name: channel for channel in node.settings.notices}
    sent = 0
    for notice_id, job_id, kind, name in due:
        problem = _send(node, channels.get(name), job_id, kind)
        if problem:
            _LOG.warning("notice of job %d to %s: %s", job_id, name, problem)
        with node.database.session() as session:
            note_sending(session, notice_id, problem, node.now())
        sent += not problem
    return sent


def _ended(session: Session, since: datetime) -> list[tuple[int, NoticeKind]]:
    return [(one.job_id, _KINDS[one.state]) for one in ended_jobs(session, since)]


def _critical(node: Node, session: Session, since: datetime) -> list[tuple[int, NoticeKind]]:
    """Name the jobs that found what their rule calls critical; the PACS need not have it yet."""
    rules = {rule.name: rule for rule in node.configuration.rules.rules if rule.critical}
    found = found_present(session, list(rules), since) if rules else []
    jobs = dict.fromkeys(one.job_id for one in found if rules[one.rule].critical_of([one.target]))
    return [(job_id, "critical") for job_id in jobs]


def _send(node: Node, channel: NoticeSettings | None, job_id: int, kind: str) -> str:
    """Send one; returns what went wrong, empty when nothing did."""
    if channel is None:
        return "this channel is not in node.yaml any more"
    with node.database.reading() as session:
        job = told_job(session, job_id)
        if job is None:
            return "the job was deleted"
        content: dict[str, Any] = {
            "event": kind,
            "job": job_id,
            "state": str(job.state),
            "study_instance_uid": job.study.study_instance_uid,
            "modality": job.modality,
            "rule": job.rule,
            "sentence": job.error,
            "link": f"{node.settings.dashboard.address()}/jobs/{job_id}",
            "node": node.settings.node.name,
        }
        if kind == "critical":
            rule = node.configuration.rules.rule(job.rule)
            present = present_targets(session, job_id)
            content["found"] = ", ".join(rule.critical_of(present) if rule else present)
    try:
        if channel.url is not None:
            _post(channel.url, channel.secret, content)
        if channel.mail is not None:
            _mail(channel.mail, content)
    except (httpx.HTTPError, smtplib.SMTPException, OSError) as error:
        return f"{type(error).__name__}: {error}"[:400]
    return ""


def _post(url: str, secret: str | None, content: dict[str, Any]) -> None:
    """Post JSON; with a secret, its HMAC-SHA256 proves where it comes from."""
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers["X-UniBiomed-Signature"] = f"sha256={digest}"
    httpx.post(url, content=body, headers=headers, timeout=_SECONDS).raise_for_status()


def _mail(mail: MailSettings, content: dict[str, Any]) -> None:
    message = EmailMessage()
    message["Subject"] = f"{content['node']}: job {content['job']} {content['event']}"
    message["From"], message["To"] = mail.sender, ", ".join(mail.to)
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in content.items() if value]
    message.set_content("\n".join(lines))
    kind = smtplib.SMTP_SSL if mail.security == "tls" else smtplib.SMTP
    with kind(mail.host, mail.port, timeout=_SECONDS) as server:
        if mail.security == "starttls":
            server.starttls()
        if mail.user is not None:
            server.login(mail.user, mail.password or "")
        server.send_message(message)
