"""The report of a job as a PDF page: the one that was sent, or the same page drawn now."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from pydicom import dcmread

from db.jobs import sources_of
from db.models import Job
from db.results import results_of
from dicom_node.errors import FinalError
from workflows import interpret, stored_interpretation
from workflows.identity import node_identity
from workflows.node import Node
from workflows.stored_interpretation import StoredInterpretationError

_KIND: Final = "report_document"


class NoReportError(FinalError):
    """There is nothing to write a page of; the sentence says why."""


def report_page_of_job(node: Node, job_id: int) -> bytes:
    """Return a job's report as PDF.

    Where a destination was sent the page, these are its very bytes; else it is drawn from what
    the model found and from the images.

    Raises
    ------
    NoReportError
        The model has not answered, was not applicable, or the record is gone.
    FinalError, RetriableError
        The images cannot be read (any more).
    """
    return _sent_page(node, job_id) or _drawn_page(node, job_id)


def _sent_page(node: Node, job_id: int) -> bytes | None:
    with node.database.reading() as session:
        sent = [one for one in results_of(session, job_id) if one.kind == _KIND]
    for result in sent:
        path = node.archive.absolute(result.path)
        if result.purged_at is None and path.exists():
            document = dcmread(path)
            return bytes(document.EncapsulatedDocument[: document.EncapsulatedDocumentLength])
    return None


def _drawn_page(node: Node, job_id: int) -> bytes:
    # The library of the page is only loaded where a page is asked for.
    from dicom_node.objects.fallback_document import draw_page

    try:
        stored = stored_interpretation.read(node.home.work_folder(job_id))
    except StoredInterpretationError as error:
        raise NoReportError(
            f"there is no report of this job: what the model found is not here ({error})"
        ) from error
    if stored.not_applicable:
        raise NoReportError(f"there is no report: {stored.not_applicable}")
    with node.database.reading() as session:
        frame_numbers = tuple(session.get_one(Job, job_id).frame_numbers)
        paths = tuple(node.archive.absolute(one.path) for one in sources_of(session, job_id))
    source = interpret.one_source(paths, stored.sop_instance_uids, frame_numbers)
    with tempfile.TemporaryDirectory(dir=node.home.run) as scratch:
        prepared = interpret.prepare(source, Path(scratch))
        found = stored.interpretation
        measured = interpret.measure_findings(prepared, found, lambda _: None)
        return draw_page(source, prepared.pixels, found, measured, node_identity(node.settings))
