"""What was not taken up: quarantine, and the failures that wait for a person, by cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Path, Query, Request
from pydicom import DataElement, Dataset, dcmread
from pydicom.errors import InvalidDicomError
from starlette.responses import RedirectResponse, Response

from dashboard.access import NodeOf, Operator, Viewer
from dashboard.auditing import note
from dashboard.rendering import HIDDEN, hides_patients, plain, render, say
from db.figures import causes
from db.operation import quarantine_entry, quarantine_page
from dicom_node.errors import DicomNodeError
from workflows.node import Node
from workflows.reinjection import discard, reinject

router = APIRouter(include_in_schema=False)
Number = Annotated[int, Path(ge=0, le=2**53)]
_MOST_ELEMENTS: Final = 2000
_LONGEST_VALUE: Final = 200
_DEFER: Final = 1024
_PATIENT: Final = 0x0010  # group of the Patient module (PS3.3 C.7.1.1)
_NUMBERS: Final = frozenset({0x00080050, 0x00380010})  # Accession Number, Admission ID
_UNREADABLE: Final = (
    InvalidDicomError, OSError, ValueError, KeyError, EOFError, NotImplementedError,
    AttributeError, TypeError,
)  # fmt: skip
"""What pydicom raises over bytes that are no DICOM."""


@router.get("/failures")
def failures(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """Show the failed jobs, those of one cause together."""
    with node.database.reading() as session:
        found = causes(session)
    return render(request, "failures.html", causes=found)


@router.get("/quarantine")
def quarantine(
    request: Request,
    node: NodeOf,
    actor: Operator,
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    resolved: bool = False,
) -> Response:
    """Show the objects that were received and could not be taken up."""
    with node.database.reading() as session:
        entries, following = quarantine_page(session, before=before, resolved=resolved)
    return render(
        request, "quarantine.html", entries=entries, next_before=following, resolved=resolved
    )


@router.get("/quarantine/{number}")
def quarantined(request: Request, node: NodeOf, actor: Operator, number: Number) -> Response:
    """Show one object's header."""
    with node.database.reading() as session:
        entry = quarantine_entry(session, number)
    if entry is None:
        raise HTTPException(404)
    elements, problem = header_of(node, entry.path, masked=hides_patients(request))
    with node.database.session() as session:
        note(session, request, "quarantine.view", target=f"quarantine {number}")
    return render(request, "quarantined.html", entry=entry, elements=elements, problem=problem)


@router.post("/quarantine/{number}/reinject")
def reinject_one(request: Request, node: NodeOf, actor: Operator, number: Number) -> Response:
    """Take an object up again."""
    response = RedirectResponse("/quarantine", 303)
    try:
        with noted(node, request, "quarantine.reinject", number):
            study = reinject(node, number, actor.name)
    except DicomNodeError as error:
        return say(response, f"{error.sentence}.", bad=True)
    return say(response, f"Taken up: study {study} waits to be complete.")


@router.post("/quarantine/{number}/discard")
def discard_one(request: Request, node: NodeOf, actor: Operator, number: Number) -> Response:
    """Delete an object."""
    response = RedirectResponse("/quarantine", 303)
    try:
        with noted(node, request, "quarantine.discard", number):
            discard(node, number, actor.name)
    except DicomNodeError as error:
        return say(response, f"{error.sentence}.", bad=True)
    return say(response, "The object is deleted.")


@contextmanager
def noted(node: Node, request: Request, action: str, number: int) -> Iterator[None]:
    """Write into the audit trail what somebody does to an object in quarantine, or may not do."""

    def write(outcome: str) -> None:
        with node.database.session() as session:
            note(session, request, action, target=f"quarantine {number}", outcome=outcome)

    try:
        yield
    except DicomNodeError:
        write("refused")
        raise
    write("success")


def header_of(
    node: Node, path: str, *, masked: bool
) -> tuple[list[tuple[str, str, str, str]], str]:
    """Read an object's elements as (tag, VR, name, value), or say why that does not work.

    `masked`: of what may name a patient, the value is left out.
    """
    try:
        file = node.archive.absolute(path)
        dataset = dcmread(file, stop_before_pixels=True, force=True, defer_size=_DEFER)
        lines: list[tuple[str, str, str, str]] = []
        for part in (getattr(dataset, "file_meta", None), dataset):
            if part is not None:
                _add(lines, part, "", masked)
    except FileNotFoundError:
        return [], "The file is not in the archive any more."
    except _UNREADABLE as error:
        return [], f"The header cannot be read: {plain(error, 200)}"
    return lines, "" if lines else "The file has no DICOM elements."


def _names_patient(element: DataElement) -> bool:
    """Say whether an element may tell who the patient is; of a private one nobody knows."""
    tag = element.tag
    return tag.group == _PATIENT or tag.is_private or element.VR == "PN" or tag in _NUMBERS


def _add(
    lines: list[tuple[str, str, str, str]], dataset: Dataset, indent: str, masked: bool
) -> None:
    for element in dataset:
        if len(lines) >= _MOST_ELEMENTS:
            return
        if element.VR == "SQ":
            lines.append(
                (f"{indent}{element.tag}", "SQ", element.name, f"{len(element.value)} items")
            )
            for item in element.value:
                _add(lines, item, indent + "> ", masked)
            continue
        if masked and _names_patient(element):
            value = HIDDEN
        elif isinstance(element.value, bytes):
            value = f"{len(element.value)} bytes"
        else:
            value = plain(element.value, _LONGEST_VALUE)
        lines.append((f"{indent}{element.tag}", element.VR, element.name, value))
