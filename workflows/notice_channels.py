"""The two ways of a notice: JSON to a web address, and mail."""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import ssl
from collections import Counter
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, Final

import httpx

from dicom_node.errors import RetriableError
from dicom_node.services.tls import Tls, client_context
from workflows.notice_settings import MailSettings, NoticeSettings
from workflows.settings import TlsSettings

_SECONDS: Final = 10.0
MOST_LISTED: Final = 50
"""A mail lists so many, and says how many more there are."""
Content = dict[str, Any]
"""What one notice says: event, job, state, sentence, link and more, none of it about a patient."""


def post(url: str, channel: NoticeSettings, content: Content, tls: TlsSettings) -> None:
    """Post JSON; with a secret, its HMAC-SHA256 proves where it comes from.

    Raises
    ------
    dicom_node.errors.RetriableError
        It was not taken; the sentence says why.
    dicom_node.errors.FinalError
        A certificate's file cannot be used.
    """
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    if channel.secret is not None:
        digest = hmac.new(channel.secret.encode(), body, hashlib.sha256).hexdigest()
        headers["X-UniBiomed-Signature"] = f"sha256={digest}"
    context = believed(tls, channel.certificate)
    try:
        httpx.post(
            url, content=body, headers=headers, timeout=_SECONDS, verify=context
        ).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise RetriableError(f"{type(error).__name__}: {error}"[:400]) from error


def mail(
    settings: MailSettings, contents: Sequence[Content], more: Counter[str], tls: TlsSettings
) -> None:
    """Send one mail about one or more jobs; raises as `post`.

    Parameters
    ----------
    settings, tls
        By which server, and whom to believe.
    contents
        What it lists, at least one.
    more
        How many of each event it only counts.
    """
    message = _message(settings, contents, more)
    context = believed(tls, settings.certificate)
    try:
        if settings.security == "tls":
            with smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=_SECONDS, context=context
            ) as server:
                _hand_over(server, settings, message)
            return
        with smtplib.SMTP(settings.host, settings.port, timeout=_SECONDS) as server:
            if settings.security == "starttls":
                server.starttls(context=context)
            _hand_over(server, settings, message)
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        raise RetriableError(f"{type(error).__name__}: {error}"[:400]) from error


def _hand_over(server: smtplib.SMTP, settings: MailSettings, message: EmailMessage) -> None:
    if settings.user is not None:
        server.login(settings.user, settings.password or "")
    server.send_message(message)


def believed(tls: TlsSettings, certificate: str | None) -> ssl.SSLContext:
    """Return whom the node believes: one certificate, or the system's and the site's authorities.

    Raises
    ------
    dicom_node.errors.FinalError
        A file cannot be used.
    """
    if certificate is not None:
        return client_context(Tls(pinned=(Path(certificate),), profile=tls.profile))
    authorities = None if tls.authorities is None else Path(tls.authorities)
    context = client_context(Tls(authorities=authorities, profile=tls.profile))
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _message(
    settings: MailSettings, contents: Sequence[Content], more: Counter[str]
) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = _subject(contents, more)
    message["From"], message["To"] = settings.sender, ", ".join(settings.to)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notices in answer
    parts = [_lines(content) for content in contents]
    if more:
        parts.append(f"And {more.total()} more; the dashboard lists them.")
    message.set_content("\n\n".join(parts))
    return message


def _subject(contents: Sequence[Content], more: Counter[str]) -> str:
    first = contents[0]
    counts = Counter(str(content["event"]) for content in contents) + more
    if counts.total() == 1:
        return f"{first['node']}: job {first['job']} {first['event']}"
    told = ", ".join(f"{count} {event}" for event, count in counts.items())
    return f"{first['node']}: {counts.total()} jobs: {told}"


def _lines(content: Content) -> str:
    return "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in content.items() if value)
