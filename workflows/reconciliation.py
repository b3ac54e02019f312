"""At start: the database is told again what the archive holds and it does not know.

The archive is the truth: a whole file in it was received. A database that was restored from a
backup, or that a power cut took back by a few seconds, would else never look at those files again.
A file that is not whole was being received when the power went: its sender never heard "success".
It goes to the quarantine, for else it would stand in the way of the same object, sent again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path

from db import catalog
from db.catalog import Arrival
from db.session import Database
from dicom_node.archive import Archive
from dicom_node.errors import FinalError
from dicom_node.incoming import valid_uid
from dicom_node.part10 import read_file_meta
from dicom_node.services.header import read_header
from workflows.intake import is_beside, utc_now

LOGGER = logging.getLogger(__name__)

_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many files were taken up, or were put into quarantine; and which gave a system error."""

    instances: int
    quarantined: int
    unreadable: tuple[str, ...]


def reconcile(
    database: Database,
    archive: Archive,
    *,
    now: Callable[[], datetime] = utc_now,
    before: datetime | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Reconciled:
    """Register every stored instance and quarantined object that the database lacks.

    Safe beside a running listener: what both register is registered once.

    Parameters
    ----------
    database, archive
        The node's.
    now
        Clock, for tests.
    before
        Files that are younger are left to whoever receives them now.
    stopped
        Asked between files; true ends the work early, the next start takes it up again.

    Returns
    -------
    Reconciled
        What was mended.
    """
    unreadable: list[str] = []
    count = 0
    torn = 0
    limit = float("inf") if before is None else before.timestamp()
    unknown = _unknown_instances(database, archive, limit, stopped)
    while paths := list(islice(unknown, _CHUNK)):
        arrivals = []
        for path in paths:
            try:
                arrivals.append(_read(archive, path))
            except FinalError as error:
                torn += 1
                arrivals += _set_aside(database, archive, path, error.sentence)
            except OSError as error:
                unreadable.append(path)
                LOGGER.error("%s lies in the archive and cannot be read: %s", path, error)
        with database.session() as session:
            left = catalog.withdraw_conflicts(session, arrivals)
            catalog.register_batch(session, arrivals)
        for path in left:
            archive.absolute(path).unlink(missing_ok=True)
        count += len(arrivals)
    quarantined = _reconcile_quarantine(database, archive, now())
    if count or quarantined or unreadable:
        LOGGER.warning(
            "the database lacked %d instances and %d quarantined objects of the archive; "
            "they are registered now; %d files were not whole and went to the quarantine, "
            "%d could not be read",
            count,
            quarantined,
            torn,
            len(unreadable),
        )
    return Reconciled(count, quarantined, tuple(unreadable))


def _unknown_instances(
    database: Database, archive: Archive, limit: float, stopped: Callable[[], bool]
) -> Iterator[str]:
    """Give the files that the database lacks and that were there before ``limit`` (epoch)."""
    for folder, paths in groupby(archive.walk(), key=lambda path: path.parent):
        if stopped():
            return
        with database.reading() as session:
            known = catalog.known_paths(session, folder.name)
        for path in paths:
            relative = archive.relative(path)
            if relative not in known and path.stat().st_mtime < limit:
                yield relative


def _read(archive: Archive, path: str) -> Arrival:
    """Read what the listener would have handed over, from the stored file.

    Raises
    ------
    FinalError
        When the file is not what the archive writes.
    """
    absolute = archive.absolute(path)
    with absolute.open("rb") as file:
        meta = read_file_meta(file, path)
        descriptor = file.fileno()
        status = os.fstat(descriptor)
        size = status.st_size - meta.data_set_offset
        attributes = read_header(
            lambda offset, count: os.pread(descriptor, count, meta.data_set_offset + offset),
            size,
            meta.transfer_syntax_uid,
        )
        file.seek(meta.data_set_offset)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    study = attributes.get("StudyInstanceUID", "")
    series = attributes.get("SeriesInstanceUID", "")
    for uid in (study, series, meta.sop_instance_uid):
        if not valid_uid(uid):
            raise FinalError(f"{path}: Study, Series or SOP Instance UID is missing or no UID")
    return Arrival(
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=meta.sop_instance_uid,
        sop_class_uid=meta.sop_class_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        path=path,
        size=size,
        sha256=digest,
        beside=is_beside(path),
        received_at=datetime.fromtimestamp(status.st_mtime, UTC),
        attributes=attributes,
    )


def _set_aside(database: Database, archive: Archive, path: str, why: str) -> list[Arrival]:
    """Quarantine a file that is not whole; returns what was sent again meanwhile in its place.

    The row of the quarantine is written with those of all other files that it lacks.
    """
    absolute = archive.absolute(path)
    uid = absolute.stem.partition("~")[0]
    reason = (
        f"was being received when the node stopped without warning, and is not whole: {why}. Its "
        "sender was not told that it is kept; if it does not come again by itself, send it again"
    )
    archive.set_aside(absolute, reason, {"sop_instance_uid": uid})
    LOGGER.error("%s %s", path, reason)
    if is_beside(path):
        return []
    with database.reading() as session:
        beside = catalog.stand_in_for(session, path, path.removesuffix(".dcm") + "~")
    if beside is None or not archive.take_place(archive.absolute(beside), absolute):
        return []
    try:
        return [_read(archive, path)]
    except FinalError as error:
        LOGGER.error("%s cannot take the place of %s: %s", beside, path, error.sentence)
        return []


def _reconcile_quarantine(database: Database, archive: Archive, now: datetime) -> int:
    folder = archive.root / "quarantine"
    with database.reading() as session:
        known = catalog.quarantined_paths(session)
    missing = [path for path in sorted(folder.glob("*.dcm")) if archive.relative(path) not in known]
    with database.session() as session:
        for path in missing:
            reason, origin = _told(path)
            catalog.add_quarantined(
                session,
                path=archive.relative(path),
                reason=reason,
                size=path.stat().st_size,
                received_at=now,
                origin=origin,
            )
    return len(missing)


def _told(path: Path) -> tuple[str, dict[str, str]]:
    """Read the reason and origin that the archive wrote beside a quarantined file."""
    try:
        told = json.loads(path.with_suffix(".json").read_bytes())
        origin = {str(key): str(text) for key, text in told["origin"].items()}
        origin["peer_host"] = origin.pop("host", "")
        return str(told["reason"]), origin
    except (OSError, ValueError, KeyError, AttributeError):
        return "its reason was not written before the node stopped", {}
