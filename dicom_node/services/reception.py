"""One instance on its way in: from the first byte of its data set to the status of the response.

Knows nothing of the network, so the bytes may come in one piece or as fragments of any size.

A quarantined object is answered with a failure although the node has its bytes: the sender must not
believe that it was filed, and must not delete its own copy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

from dicom_node.archive import Archive
from dicom_node.durable import ByteSource
from dicom_node.errors import DicomNodeError, FinalError, RetriableError
from dicom_node.incoming import Incoming, valid_uid
from dicom_node.peers import Peer
from dicom_node.services.command_set import Originator, error_comment
from dicom_node.services.events import (
    AssociationEnded,
    MovedInstance,
    Quarantined,
    ReceivedInstance,
)
from dicom_node.services.header import MalformedDataSetError, read_header

LOGGER = logging.getLogger(__name__)

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
CLASS_NOT_SUPPORTED: Final = 0x0122
NOT_AUTHORIZED: Final = 0x0124
STATUSES: Final[Mapping[int, str]] = {
    SUCCESS: "durable in the archive and registered; also an instance that was there already, and "
    "other bytes under a known UID, which are kept beside and marked as a conflict",
    OUT_OF_RESOURCES: "out of resources: the disk is below its reserve, or the database cannot "
    "take it now; nothing was kept, the sender tries again later",
    DOES_NOT_MATCH: "SOP Class or Instance UID of data set and command set differ; in quarantine",
    CANNOT_UNDERSTAND: "cut off, not a data set, or without the UIDs to file it; in quarantine",
    CLASS_NOT_SUPPORTED: "the presentation context is none for storage; nothing was kept",
    NOT_AUTHORIZED: "not authorized: it belongs to a C-MOVE that this node asked for and has given "
    "up; nothing was kept",
}
"""What a C-STORE is answered (PS3.4 Table B.2-1, PS3.7 annex C)."""


class Answer(NamedTuple):
    """Status and Error Comment (0000,0902) of a C-STORE-RSP; the comment is LO, 64 characters."""

    status: int
    comment: str = ""


@dataclass(slots=True)
class AssociationRecord:
    """Who is on the line, and what came so far."""

    identifier: str
    calling_ae_title: str
    called_ae_title: str
    host: str
    peer: Peer | None = None
    study_instance_uids: set[str] = field(default_factory=set)
    stored: int = 0
    same: int = 0
    conflicts: int = 0
    quarantined: int = 0
    refused: int = 0
    began: float = field(default_factory=time.monotonic)

    def ended(self, how: Literal["released", "aborted"]) -> AssociationEnded:
        """Return the account of the association."""
        return AssociationEnded(
            association=self.identifier,
            calling_ae_title=self.calling_ae_title,
            called_ae_title=self.called_ae_title,
            peer_host=self.host,
            study_instance_uids=frozenset(self.study_instance_uids),
            stored=self.stored,
            same=self.same,
            conflicts=self.conflicts,
            quarantined=self.quarantined,
            refused=self.refused,
            ended=how,
            seconds=time.monotonic() - self.began,
        )


class StoreRequest(NamedTuple):
    """What command set and presentation context say of an arriving data set. Hostile text."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    abstract_syntax_uid: str
    originator: Originator | None = None


class NoStorage:
    """Answers a C-STORE on a context that is not one for storage: 0122, nothing is kept."""

    def __init__(self, record: AssociationRecord) -> None:
        self._record = record

    def write(self, data: ByteSource) -> None:
        """Drop the bytes."""

    def finish(self) -> Answer:
        """Return "SOP class not supported"."""
        self._record.refused += 1
        return Answer(CLASS_NOT_SUPPORTED, "not a presentation context for storage")

    def abandon(self) -> None:
        """Have nothing to forget."""


class Reception:
    """One arriving instance: feed it with :meth:`write`, then :meth:`finish` gives the answer.

    Parameters
    ----------
    archive : Archive
        Where it goes.
    request : StoreRequest
        From the command set.
    record : AssociationRecord
        Counts what becomes of it.
    on_stored, on_quarantined, moved_to : callable
        See ``storage_scp.StorageScp``.
    """

    def __init__(
        self,
        archive: Archive,
        request: StoreRequest,
        record: AssociationRecord,
        *,
        on_stored: Callable[[ReceivedInstance], None],
        on_quarantined: Callable[[Quarantined], None],
        moved_to: Callable[[MovedInstance], Path | None] = lambda _: None,
    ) -> None:
        self._archive = archive
        self._request = request
        self._record = record
        self._on_stored = on_stored
        self._on_quarantined = on_quarantined
        self._moved_to = moved_to
        self._incoming: Incoming | None = None
        self._refused: Answer | None = None
        try:
            self._incoming = archive.receive(
                request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid
            )
        except (DicomNodeError, OSError) as error:
            self._refuse(error)

    def write(self, data: ByteSource) -> None:
        """Take bytes of the data set. After a failure the rest is read and dropped."""
        if self._incoming is not None:
            try:
                self._incoming.write(data)
            except (DicomNodeError, OSError) as error:
                self._refuse(error)

    def finish(self) -> Answer:
        """File the whole data set and return what to answer."""
        try:
            if self._incoming is not None:
                with self._incoming as incoming:
                    return self._keep(incoming)
        except (DicomNodeError, OSError) as error:
            self._refuse(error)
        self._record.refused += 1
        return self._refused or Answer(OUT_OF_RESOURCES, "no reason kept")

    def abandon(self) -> None:
        """Forget a data set whose association ended in the middle of it; nothing stays on disk."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _refuse(self, error: DicomNodeError | OSError) -> None:
        """Keep nothing, answer "out of resources": the sender tries again later."""
        self.abandon()
        sentence = error.sentence if isinstance(error, DicomNodeError) else str(error)
        LOGGER.error(
            "C-STORE from %s answered A700, nothing kept: %s",
            self._record.calling_ae_title,
            sentence,
        )
        comment = "archive cannot store now, try again later"
        if isinstance(error, RetriableError):
            comment = "out of storage space or catalog busy, try again later"
        self._refused = Answer(OUT_OF_RESOURCES, comment)

    def _keep(self, incoming: Incoming) -> Answer:
        request = self._request
        try:
            attributes = read_header(incoming.read, incoming.size, request.transfer_syntax_uid)
        except MalformedDataSetError as error:
            return self._quarantine(incoming, CANNOT_UNDERSTAND, error.sentence)
        mismatch = self._mismatch(attributes)
        if mismatch:
            return self._quarantine(incoming, DOES_NOT_MATCH, mismatch)
        study = attributes.get("StudyInstanceUID", "")
        series = attributes.get("SeriesInstanceUID", "")
        for name, uid in (
            ("SOP Instance UID", request.sop_instance_uid),
            ("Study Instance UID", study),
            ("Series Instance UID", series),
        ):
            if not valid_uid(uid):
                said = f"is not a UID (PS3.5 9.1): {uid[:80]!r}" if uid else "is missing"
                return self._quarantine(incoming, CANNOT_UNDERSTAND, f"The {name} {said}")
        if request.originator is not None:
            answer = self._hand_over(incoming, study, request.originator)
            if answer is not None:
                return answer
        return self._register(incoming, study, series, attributes)

    def _hand_over(self, incoming: Incoming, study: str, originator: Originator) -> Answer | None:
        """Give an instance that the node had moved here to who asked for it; None: nobody did."""
        record, uid = self._record, self._request.sop_instance_uid
        moved = MovedInstance(record.calling_ae_title, record.peer, originator, study)
        try:
            folder = self._moved_to(moved)
        except FinalError as error:
            record.refused += 1
            LOGGER.warning(
                "C-STORE from %s answered 0124, nothing kept: %s",
                record.calling_ae_title,
                error.sentence,
            )
            return Answer(NOT_AUTHORIZED, error_comment(error.sentence))
        if folder is None:
            return None
        incoming.hand_over(folder / f"{uid}.dcm")
        record.stored += 1
        return Answer(SUCCESS)

    def _mismatch(self, attributes: dict[str, str]) -> str:
        """Say where data set, command set and presentation context disagree, or return ""."""
        request = self._request
        if request.sop_class_uid != request.abstract_syntax_uid:
            return (
                f"The Affected SOP Class UID {request.sop_class_uid[:80]!r} is not that of the "
                f"presentation context, {request.abstract_syntax_uid!r}"
            )
        for keyword, said in (
            ("SOPClassUID", request.sop_class_uid),
            ("SOPInstanceUID", request.sop_instance_uid),
        ):
            there = attributes.get(keyword, "")
            if there != said:
                return _differ(keyword, there, said)
        return ""

    def _register(
        self, incoming: Incoming, study: str, series: str, attributes: dict[str, str]
    ) -> Answer:
        record = self._record
        request = self._request
        stored = incoming.file(study, series, request.sop_instance_uid)
        self._on_stored(
            ReceivedInstance(
                calling_ae_title=record.calling_ae_title,
                called_ae_title=record.called_ae_title,
                peer_host=record.host,
                association=record.identifier,
                sop_class_uid=request.sop_class_uid,
                sop_instance_uid=request.sop_instance_uid,
                transfer_syntax_uid=request.transfer_syntax_uid,
                study_instance_uid=study,
                series_instance_uid=series,
                attributes=attributes,
                file=stored,
            )
        )
        record.study_instance_uids.add(study)
        if stored.outcome == "new":
            record.stored += 1
        elif stored.outcome == "same":
            record.same += 1
        else:
            record.conflicts += 1
            LOGGER.warning(
                "SOP Instance %s came from %s with other bytes than before; kept beside as %s",
                request.sop_instance_uid,
                record.calling_ae_title,
                stored.path,
            )
        return Answer(SUCCESS)

    def _quarantine(self, incoming: Incoming, status: int, reason: str) -> Answer:
        record = self._record
        request = self._request
        digest = incoming.sha256
        path = incoming.quarantine(
            reason,
            {
                "calling_ae_title": record.calling_ae_title,
                "called_ae_title": record.called_ae_title,
                "host": record.host,
                "sop_class_uid": request.sop_class_uid[:80],
                "sop_instance_uid": request.sop_instance_uid[:80],
                "transfer_syntax_uid": request.transfer_syntax_uid,
            },
        )
        relative = self._archive.relative(path)
        LOGGER.warning(
            "Object from %s answered %04X and kept as %s: %s",
            record.calling_ae_title,
            status,
            relative,
            reason,
        )
        self._on_quarantined(
            Quarantined(
                calling_ae_title=record.calling_ae_title,
                called_ae_title=record.called_ae_title,
                peer_host=record.host,
                association=record.identifier,
                sop_class_uid=request.sop_class_uid,
                sop_instance_uid=request.sop_instance_uid,
                transfer_syntax_uid=request.transfer_syntax_uid,
                path=relative,
                size=incoming.size,
                sha256=digest,
                status=status,
                reason=reason,
            )
        )
        record.quarantined += 1
        return Answer(status, error_comment(reason))


def _differ(keyword: str, there: str, said: str) -> str:
    return f"The data set's {keyword} is {there[:80]!r}, that of the command set {said[:80]!r}"
