"""Templates, and how values are written for people.

Everything that goes into a template is escaped; nothing marks a text of DICOM as safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from dashboard.access import Role, find_actor, node_of
from dashboard.assets import files_under, folder_address
from db.states import END_STATES, JobState
from dicom_node.plain_text import one_line

ResponseT = TypeVar("ResponseT", bound=Response)
_FOLDER: Final = Path(__file__).parent
_LONGEST_TEXT: Final = 400
HIDDEN: Final = "hidden"
"""Stands on the page in place of what names a patient."""
TONES: Final[Mapping[str, str]] = {
    "received": "wait",
    "waiting": "wait",
    "queued": "wait",
    "preparing": "run",
    "inferring": "run",
    "encoding": "run",
    "validating": "run",
    "delivering": "run",
    "confirming": "run",
    "delivered": "good",
    "failed": "bad",
    "not_applicable": "still",
    "cancelled": "still",
    "superseded": "still",
}
"""What a state means to somebody who glances at it; the word stands beside the colour."""


def plain(value: object, longest: int = _LONGEST_TEXT) -> str:
    """Make hostile text harmless to the eye: no control characters, no change of direction.

    Markup needs nothing here, since templates escape it.
    """
    shown = one_line(str(value)[: longest + 1])
    return shown[:longest] + "…" if len(shown) > longest else shown


def ended(sentence: str) -> str:
    """Close a sentence that others follow; a question has its mark already."""
    return sentence if sentence.endswith((".", "?", "!", "…")) else f"{sentence}."


def person_name(value: str) -> str:
    """Write a Person Name (PS3.5 section 6.2.1) as people do: first component group, no carets."""
    first = value.split("=")[0]
    family, *others = [part.strip() for part in first.split("^")]
    given = " ".join(part for part in others if part)
    return plain(f"{family}, {given}" if given else family)


def duration(seconds: float | None) -> str:
    """Write a time span in its two largest units."""
    if seconds is None:
        return "–"
    if seconds < 0:
        seconds = 0.0
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, name, smaller, smaller_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return (
                f"{whole // size} {name} {rest} {smaller_name}"
                if rest
                else f"{whole // size} {name}"
            )
    return f"{whole} s"


def size(count: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def date(value: str) -> str:
    """Write a Date (PS3.5 section 6.2, VR DA) as people do; what is none stays as it is."""
    text = value.strip()
    if len(text) == 8 and text.isascii() and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return plain(text, 32)


def as_time(value: datetime | str | None) -> datetime | None:
    """Read a time as `db.listing` writes it."""
    if value is None or isinstance(value, datetime):
        return value
    return datetime.fromisoformat(value)


def zone_of(request: Request) -> tzinfo:
    """Return the site's time zone."""
    name = node_of(request).settings.dashboard.time_zone
    if name is not None:
        return ZoneInfo(name)
    return datetime.now(UTC).astimezone().tzinfo or UTC


@cache
def environment() -> Environment:
    """Return the templates; made once."""
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        auto_reload=False,  # an upgrade under a running node must not mix old code and new pages
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        plain=plain,
        ended=ended,
        person=person_name,
        duration=duration,
        size=size,
        date=date,
        when=as_time,
        tone=lambda state: TONES.get(str(state), "still"),
        words=lambda state: str(state).replace("_", " "),
    )
    made.globals.update(
        Role=Role,
        states=list(JobState),
        end_states={str(state) for state in END_STATES},
        static=folder_address(),
        viewer_modules=files_under("viewer", ".js"),
        viewer_styles=files_under("viewer", ".css"),
    )
    return made


def load_templates() -> None:
    """Compile all templates now: the first reader of a page would wait for it to be done."""
    for name in environment().list_templates():
        environment().get_template(name)


MENU: Final = (
    ("/", "Overview", Role.VIEWER),
    ("/jobs", "Jobs", Role.VIEWER),
    ("/studies", "Studies", Role.VIEWER),
    ("/failures", "Failures", Role.VIEWER),
    ("/quarantine", "Quarantine", Role.OPERATOR),
    ("/rules", "Rules", Role.VIEWER),
    ("/peers", "Peers", Role.OPERATOR),
    ("/model", "Model", Role.VIEWER),
    ("/agreement", "Agreement", Role.VIEWER),
    ("/people", "People", Role.ADMIN),
    ("/audit", "Audit", Role.ADMIN),
    ("/settings", "Settings", Role.ADMIN),
)
"""Address, name, and the role that a page needs."""


def render(
    request: Request, template: str, *, status_code: int = 200, **context: Any
) -> HTMLResponse:
    """Make a page.

    Parameters
    ----------
    request
        The request; the page knows from it who asks, and which part of the menu it is.
    template
        File in ``templates/``.
    status_code
        Of the answer.
    context
        What the template needs beside what every page has.
    """
    node = node_of(request)
    settings = node.settings
    zone = zone_of(request)
    now = node.now()

    def local(value: datetime | str | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
        at = as_time(value)
        return "–" if at is None else at.astimezone(zone).strftime(form)

    def age(value: datetime | str | None) -> str:
        at = as_time(value)
        if at is None:
            return "–"
        seconds = max(0, round((now - at).total_seconds()))
        return f"{seconds} s" if seconds < 60 else duration(seconds)

    def address(**changes: object) -> str:
        """Return this page's address with other parameters; None takes one out."""
        query = {key: request.query_params.getlist(key) for key in request.query_params}
        for key, value in changes.items():
            if value is None:
                query.pop(key, None)
            else:
                query[key] = [str(value)]
        return f"{request.url.path}?{urlencode(query, doseq=True)}"

    actor = getattr(request.state, "actor", None)
    masked = hides_patients(request)

    def of_patient(text: str) -> str:
        """Return what names a patient, or a word that stands for it while patients are hidden."""
        return HIDDEN if masked else text

    text = (
        environment()
        .get_template(template)
        .render(
            request=request,
            path=request.url.path,
            actor=actor,
            csrf=actor.csrf if actor else "",
            here=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            menu=MENU,
            node_address=f"{settings.node.ae_title}, port {settings.node.port}",
            version=_version(),
            site=settings.dashboard.site or settings.node.name,
            colour=settings.dashboard.colour,
            theme=_chosen(request, "theme", ("light", "dark")),
            masked=masked,
            of_patient=of_patient,
            zone=local(now, "%Z"),
            zone_name=settings.dashboard.time_zone or _offset(local(now, "%z")),
            now=now,
            local=local,
            age=age,
            address=address,
            **context,
        )
    )
    return HTMLResponse(text, status_code)


def hides_patients(request: Request) -> bool:
    """Say whether who asks is not shown what names a patient: as chosen, else as the site sets."""
    actor = getattr(request.state, "actor", None)
    chosen = None if actor is None else actor.patients_shown
    return node_of(request).settings.dashboard.patients_hidden if chosen is None else not chosen


def _offset(value: str) -> str:
    """Write an offset from UTC as ``page.js`` reads it: +02:00."""
    return f"{value[:3]}:{value[3:5]}"


@cache
def _version() -> str:
    return metadata.version("unibiomed-node")


def say(response: ResponseT, sentence: str, *, bad: bool = False) -> ResponseT:
    """Have the next page say a sentence: in a cookie, so that no link can put words there."""
    value = quote(("!" if bad else "") + plain(sentence))
    response.set_cookie("said", value, max_age=20, samesite="strict", path="/")
    return response


def _chosen(request: Request, cookie: str, known: tuple[str, ...]) -> str:
    value = request.cookies.get(cookie, "")
    return value if value in known else ""


__all__ = [
    "HIDDEN",
    "as_time",
    "environment",
    "find_actor",
    "hides_patients",
    "load_templates",
    "plain",
    "render",
    "say",
    "size",
    "zone_of",
]
