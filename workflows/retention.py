"""Deleting what is old: sources of finished jobs, proven results, records, quarantine.

Sources go by age, and earlier when the disk runs short: intake would refuse new studies while old
ones lie there that are done. A study with a live or failed job is not touched, nor a result that
is not proven at a destination, nor what the node committed to and no archive is proven to hold.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from db.aging import (
    AgedFile,
    aged_jobs,
    aged_quarantine,
    aged_results,
    aged_sources,
    aged_studies,
    delete_jobs,
    excess_quarantine,
    forget_refusals,
    forget_results,
    resolve_quarantine,
)
from db.catalog import forget
from db.commitments import forget_told
from db.own_moves import forget_moves
from dicom_node.archive import Archive
from workflows.disk_forecast import log_forecast
from workflows.node import Node
from workflows.promised import keep_promises

_LOG = logging.getLogger(__name__)

_AT_ONCE: Final = 200
"""Things per kind and run; the next run goes on. A run must not hold up the sweep."""
_FILES_AT_ONCE: Final = 64
_JOBS_AT_ONCE: Final = 32
"""Files and jobs that go within one transaction: it must not hold up the listener."""
_SHORT_OF_SPACE_AGE: Final = timedelta(hours=1)
"""Even a full disk leaves a finished study its sources for so long."""
_LONG_AGO: Final = timedelta(days=365_000)


def clean_up(node: Node) -> None:
    """Delete what the settings under ``retention`` say is too old, a limited number at a time."""
    settings, now = node.settings.retention, node.now()
    failed_before = _before(now, settings.jobs_days)
    if settings.studies_days is not None:
        before = _before(now, settings.studies_days)
        keep_promises(node, before, failed_before)
        _purge_sources(node, before, failed_before, only_while_short=False)
    if _is_short_of_space(node):
        keep_promises(node, now - _SHORT_OF_SPACE_AGE, failed_before)
    _purge_sources(node, now - _SHORT_OF_SPACE_AGE, failed_before, only_while_short=True)
    if settings.results_days is not None:
        _purge_results(node, _before(now, settings.results_days))
    if settings.jobs_days is not None:
        _delete_records(node, failed_before)
        _delete_answers(node, failed_before)
    if settings.quarantine_days is not None:
        with node.database.reading() as session:
            before = _before(now, settings.quarantine_days)
            aged = aged_quarantine(session, before, _AT_ONCE)
        why = f"deleted after {settings.quarantine_days:g} days (retention.quarantine_days)"
        _purge_quarantine(node, aged, why)
    if settings.quarantine_size is not None:
        with node.database.reading() as session:
            excess = excess_quarantine(session, settings.quarantine_size, _AT_ONCE)
        size = settings.quarantine_size / 2**30
        why = f"deleted, the quarantine had grown beyond {size:.3g} GiB (retention.quarantine_size)"
        _purge_quarantine(node, excess, why)
    log_forecast(node)


def _before(now: datetime, days: float | None) -> datetime:
    """Give the time so many days ago; without days, one before all others."""
    return now - (_LONG_AGO if days is None else timedelta(days=days))


def _is_short_of_space(node: Node) -> bool:
    """Whether the disk nears the reserve below which intake refuses instances."""
    archive, watermark = node.archive, node.settings.retention.free_below
    above = archive.reserve_bytes // 2
    if watermark is not None:
        above = max(0, watermark - archive.reserve_bytes)
    return not archive.has_room(above)


def _purge_sources(
    node: Node, before: datetime, failed_before: datetime, *, only_while_short: bool
) -> None:
    if only_while_short and not _is_short_of_space(node):
        return
    with node.database.reading() as session:
        studies = aged_studies(session, before, failed_before, _AT_ONCE)
    files = 0
    for study_id in studies:
        if only_while_short and not _is_short_of_space(node):
            break
        # The files go inside the transaction: it holds the study, so that none of its instances
        # can be registered as kept between the look and the deletion. Few at a time, because in
        # SQLite it also holds up whoever registers anything else.
        while True:
            with node.database.session() as session:
                aged = aged_sources(session, study_id, before, failed_before, _FILES_AT_ONCE)
                _delete(node.archive, (file.path for file in aged))
                forget(session, [file.id for file in aged], node.now())
            files += len(aged)
            if len(aged) < _FILES_AT_ONCE:
                break
    if files:
        why = "for lack of space" if only_while_short else "by age"
        _LOG.info("deleted %d source files of %d studies %s", files, len(studies), why)


def _purge_results(node: Node, before: datetime) -> None:
    with node.database.reading() as session:
        aged = aged_results(session, before, _AT_ONCE)
    # Nobody reads or writes the results of a delivered job any more: no transaction need hold them,
    # and a crash in between leaves rows that the next run finds again.
    _delete(node.archive, (file.path for file in aged))
    if aged:
        with node.database.session() as session:
            forget_results(session, [file.id for file in aged], node.now())
    if aged:
        _LOG.info("deleted %d proven results by age", len(aged))


def _delete_records(node: Node, before: datetime) -> None:
    with node.database.session() as session:
        # A failed job may be reopened at any moment, so its files go inside the transaction.
        jobs = aged_jobs(session, before, _JOBS_AT_ONCE)
        _delete(node.archive, delete_jobs(session, jobs))
        forget_refusals(session, before)
        forget_told(session, before)
        forget_moves(session, before)
    for job_id in jobs:
        shutil.rmtree(node.home.work_folder(job_id), ignore_errors=True)
    if jobs:
        _LOG.info("deleted the records of %d jobs by age", len(jobs))


def _delete_answers(node: Node, before: datetime) -> None:
    """Delete the masks of questions that were asked long ago; their words stay."""
    for folder in node.home.work.glob("question-*"):
        if folder.stat().st_mtime < before.timestamp():
            shutil.rmtree(folder, ignore_errors=True)


def _purge_quarantine(node: Node, files: Sequence[AgedFile], why: str) -> None:
    """Delete objects in quarantine, and then say so: nothing else ever gets their names."""
    if not files:
        return
    for file in files:
        path = node.archive.absolute(file.path)
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
    with node.database.session() as session:
        resolve_quarantine(session, [file.id for file in files], why, node.now())
    _LOG.info("%d objects in quarantine: %s", len(files), why)


def _delete(archive: Archive, paths: Iterable[str]) -> None:
    """Delete files and the folders that they leave empty; what is gone already is no error."""
    for name in paths:
        path = archive.absolute(name)
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            # studies/, results/ and quarantine/ themselves stay.
            if folder.parent == archive.root or folder == archive.root:
                break
            with suppress(OSError):
                folder.rmdir()
