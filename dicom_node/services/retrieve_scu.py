"""Query/Retrieve SCU: studies of a patient, and instances by C-GET or C-MOVE (PS3.4 C.4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role
from pynetdicom.association import Association

from dicom_node.durable import ByteSource
from dicom_node.errors import FinalError, NothingTakenError, RetriableError
from dicom_node.incoming import valid_uid
from dicom_node.part10 import file_meta
from dicom_node.services.association import (
    GET_CLASSES,
    MOVE_CLASSES,
    STUDY_ROOT_FIND,
    UNCOMPRESSED,
    Destination,
)
from dicom_node.services.dialling import dial
from dicom_node.services.query_retrieve_scu import find
from dicom_node.services.reactor import DirectAssociation
from dicom_node.services.reception import (
    CANNOT_UNDERSTAND,
    OUT_OF_RESOURCES,
    SUCCESS,
    Answer,
    StoreRequest,
)

_PENDING: Final = frozenset({0xFF00, 0xFF01})
_SOME_FAILED: Final = 0xB000
# One context stays for the C-GET itself; these are what priors are made of.
PRIOR_CLASSES: Final = tuple(
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in ("1", "1.1", "1.2", "2", "2.1", "3.1", "4", "4.1", "6.1", "6.2", "7", "12.1",
                   "12.2", "13.1.3", "20", "30", "66.4", "77.1.4", "77.1.5.1", "77.1.5.4", "128",
                   "128.1", "88.11", "88.22", "88.33", "88.34", "104.1")
)  # fmt: skip
# All that the listener takes would make a request of 30 KB, which Orthanc 1.10 never answers.
PRIOR_SYNTAXES: Final = (
    *UNCOMPRESSED,
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91, 201)),
    "1.2.840.10008.1.2.5",
)


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study that a PACS has; date and time as it says them."""

    study_instance_uid: str
    study_date: str
    study_time: str
    modalities: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is retrieved: a study, or one instance of it."""

    study: str
    series: str = ""
    instance: str = ""

    def identifier(self) -> Dataset:
        """Return the identifier of the request (PS3.4 C.4.2.1.4)."""
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE" if self.instance else "STUDY"
        identifier.StudyInstanceUID = self.study
        if self.instance:
            identifier.SeriesInstanceUID = self.series
            identifier.SOPInstanceUID = self.instance
        return identifier


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What a retrieval came to."""

    completed: int
    failed: int


def studies_of_patient(
    destination: Destination, calling_ae_title: str, patient_id: str
) -> list[FoundStudy]:
    """Return the studies that a PACS has of a patient.

    Raises
    ------
    RetriableError, FinalError
        It was not answered, or refused.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.PatientID = patient_id
    for keyword in ("StudyInstanceUID", "StudyDate", "StudyTime", "ModalitiesInStudy"):
        setattr(identifier, keyword, "")
    context = build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))
    with dial(destination, [context], calling_ae_title=calling_ae_title) as association:
        matches = find(association, destination, identifier)
    return [
        FoundStudy(
            str(match.get("StudyInstanceUID", "")),
            str(match.get("StudyDate", "") or ""),
            str(match.get("StudyTime", "") or ""),
            frozenset(_values(match.get("ModalitiesInStudy"))),
        )
        for match in matches
        # A wildcard in an identifier, or a lax archive, must not bring other patients' studies.
        if str(match.get("PatientID", patient_id)) == patient_id
    ]


def get(destination: Destination, calling_ae_title: str, wanted: Wanted, folder: Path) -> Retrieved:
    """Fetch something by C-GET into a folder, the bytes as they come.

    Raises
    ------
    NothingTakenError
        It is not offered there.
    RetriableError, FinalError
        It was not answered, or refused.
    """
    contexts = [build_context(GET_CLASSES[1], list(UNCOMPRESSED))]
    contexts += [build_context(uid, list(PRIOR_SYNTAXES)) for uid in PRIOR_CLASSES]
    roles = [build_role(UID(uid), scp_role=True) for uid in PRIOR_CLASSES]

    def open_sink(_: DirectAssociation, request: StoreRequest) -> _FileSink:
        return _FileSink(folder, request)

    nothing = f"{destination} offers no C-GET to this node"
    try:
        with dial(
            destination,
            contexts,
            calling_ae_title=calling_ae_title,
            negotiation=roles,
            open_sink=open_sink,
        ) as association:
            offered = {context.abstract_syntax for context in association.accepted_contexts}
            if GET_CLASSES[1] not in offered:
                # What it stores it may take all the same, so that the association stands.
                raise NothingTakenError(nothing)
            return _outcome(
                association.send_c_get(wanted.identifier(), UID(GET_CLASSES[1])),
                destination,
                "C-GET",
            )
    except NothingTakenError as error:
        raise NothingTakenError(nothing) from error


def move(
    destination: Destination,
    calling_ae_title: str,
    wanted: Wanted,
    to_ae_title: str,
    *,
    message_id: int = 1,
    longest_seconds: float = 600.0,
) -> Retrieved:
    """Have a PACS send something to an AE that it knows, which may be the node itself.

    Parameters
    ----------
    message_id : int
        1 to 65535; the PACS names it in each C-STORE (0000,1031).
    longest_seconds : float
        For all of it. A PACS need not say how far it is meanwhile (PS3.4 C.4.2.3.1), so that its
        silence tells nothing: the destination's deadline for one message does not hold here.

    Raises
    ------
    NothingTakenError
        It is not offered there.
    RetriableError, FinalError
        It was not answered, refused, or did not end in time; then it was cancelled.
    """
    contexts = [build_context(MOVE_CLASSES[1], list(UNCOMPRESSED))]
    timeouts = replace(destination.timeouts, dimse=longest_seconds)
    patient = replace(destination, timeouts=timeouts)
    try:
        with dial(patient, contexts, calling_ae_title=calling_ae_title) as association:
            responses = association.send_c_move(
                wanted.identifier(), to_ae_title, UID(MOVE_CLASSES[1]), message_id
            )
            timed = _timed(association, responses, patient, message_id)
            mend = f"Does it know {to_ae_title} as destination of a C-MOVE, with host and port?"
            return _outcome(timed, patient, "C-MOVE", mend)
    except NothingTakenError as error:
        raise NothingTakenError(f"{destination} offers no C-MOVE to this node") from error


def _timed(
    association: Association, responses: Any, destination: Destination, message_id: int
) -> Iterator[Any]:
    """Yield the responses of a C-MOVE until its time is over; then take it back."""
    longest = destination.timeouts.dimse
    until = time.monotonic() + longest
    for response in responses:
        left = until - time.monotonic()
        if response[0].get("Status") is None:
            raise RetriableError(
                f"{destination} ended the association, or did not end a C-MOVE within {longest:g} s"
            )
        if left <= 0 and response[0].get("Status") in _PENDING:
            if association.is_established:
                association.send_c_cancel(message_id, query_model=UID(MOVE_CLASSES[1]))
            raise RetriableError(f"{destination} did not end a C-MOVE within {longest:g} s")
        association.dimse_timeout = max(left, 0.01)
        yield response


def _outcome(responses: Any, destination: Destination, what: str, mend: str = "") -> Retrieved:
    """Read the responses of a retrieval to the last."""
    last = Dataset()
    for status, _ in responses:
        last = status
    code = last.get("Status")
    if code is None or code in _PENDING:
        raise RetriableError(
            f"{destination} ended the association, or did not answer a {what} within "
            f"{destination.timeouts.dimse:g} s"
        )
    completed = int(last.get("NumberOfCompletedSuboperations", 0) or 0)
    completed += int(last.get("NumberOfWarningSuboperations", 0) or 0)
    failed = int(last.get("NumberOfFailedSuboperations", 0) or 0)
    if code not in (SUCCESS, _SOME_FAILED):
        sentence = f"{destination} answered a {what} with {code:04X}"
        comment = str(last.get("ErrorComment", "") or "")[:64]
        sentence += f", comment {comment!r}" if comment else ""
        sentence += f". {mend}" if mend else ""
        if code in (0x0122, 0x0124, 0xA801, 0xA900):
            raise FinalError(sentence)
        raise RetriableError(sentence)
    return Retrieved(completed, failed)


def _values(value: Any) -> list[str]:
    if not value:
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]


class _FileSink:
    """Writes one instance to a folder; see ``messages.StoreSink``."""

    def __init__(self, folder: Path, request: StoreRequest) -> None:
        self._path: Path | None = None
        self._file: Any = None
        self._failure = ""
        uid = request.sop_instance_uid
        if not valid_uid(uid):
            self._failure = "the SOP Instance UID is none"
            return
        self._path = folder / f"{uid}.dcm"
        try:
            self._file = self._path.open("wb")
            self._file.write(file_meta(request.sop_class_uid, uid, request.transfer_syntax_uid))
        except OSError as error:
            self._fail(error)

    def write(self, data: ByteSource) -> None:
        """Take some of its bytes; after a failure the rest is dropped."""
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError as error:
                self._fail(error)

    def finish(self) -> Answer:
        """Close the file, and say what to answer."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._fail(error)
        if not self._failure:
            return Answer(SUCCESS)
        status = CANNOT_UNDERSTAND if self._path is None else OUT_OF_RESOURCES
        return Answer(status, self._failure[:64])

    def abandon(self) -> None:
        """Leave no half file."""
        if self._file is not None:
            self._fail(OSError("broken off"))

    def _fail(self, error: OSError) -> None:
        self._failure = error.strerror or "it cannot be written"
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)
