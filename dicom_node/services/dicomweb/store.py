"""STOW-RS: store instances (PS3.18 10.5). The same reception as of a C-STORE, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

from pydicom.dataset import Dataset

from dicom_node.archive import Archive
from dicom_node.counters import OBJECTS_REFUSED
from dicom_node.errors import FinalError
from dicom_node.part10 import FileMeta, read_file_meta
from dicom_node.services.association import STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicom_node.services.dicomweb.multipart import media_type
from dicom_node.services.dicomweb.negotiation import DICOM
from dicom_node.services.events import Quarantined, ReceivedInstance
from dicom_node.services.reception import (
    CANNOT_UNDERSTAND,
    CLASS_NOT_SUPPORTED,
    OUT_OF_RESOURCES,
    SUCCESS,
    Answer,
    AssociationRecord,
    Reception,
    StoreRequest,
)

# PS3.18 Table 10.5.3-2: the transfer syntax is not supported.
SYNTAX_NOT_SUPPORTED: Final = 0xC122
_META_START: Final = 144
_MOST_META: Final = 1 << 16
_HTTP: Final[Mapping[str, int]] = {"all": 200, "some": 202, "none": 409}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one part."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    answer: Answer

    @property
    def is_stored(self) -> bool:
        """Whether it is kept."""
        return self.answer.status == SUCCESS


@dataclass(slots=True)
class Storing:
    """One STOW-RS request: makes a sink for each part, and the response at the end.

    Attributes
    ----------
    study_instance_uid
        From the address; empty: of any study.
    """

    archive: Archive
    record: AssociationRecord
    on_stored: Callable[[ReceivedInstance], None]
    on_quarantined: Callable[[Quarantined], None]
    study_instance_uid: str = ""
    extra_storage_classes: tuple[str, ...] = ()
    outcomes: list[Outcome] = field(default_factory=list)

    def open_part(self, headers: Mapping[str, str]) -> Part10Sink:
        """Take a part; for `MultipartReader`."""
        return Part10Sink(self, media_type(headers.get("content-type", DICOM)).name)

    def takes(self, sop_class_uid: str) -> bool:
        """Whether instances of this class are kept."""
        return sop_class_uid in STORAGE_CLASSES or sop_class_uid in self.extra_storage_classes

    @property
    def status(self) -> int:
        """The HTTP status (PS3.18 Table 10.5.3-1)."""
        stored = sum(one.is_stored for one in self.outcomes)
        if stored == len(self.outcomes):
            return _HTTP["all"] if stored else 400
        if stored:
            return _HTTP["some"]
        full = all(one.answer.status == OUT_OF_RESOURCES for one in self.outcomes)
        return 503 if full else _HTTP["none"]

    def response(self, base_url: str) -> dict[str, Any]:
        """Return the Store Instances Response Module (PS3.18 I.2) as DICOM JSON."""
        dataset = Dataset()
        stored, failed, others = [], [], []
        for one in self.outcomes:
            item = Dataset()
            if not one.sop_instance_uid:
                item.FailureReason = one.answer.status
                others.append(item)
                continue
            item.ReferencedSOPClassUID = one.sop_class_uid
            item.ReferencedSOPInstanceUID = one.sop_instance_uid
            if one.is_stored:
                item.RetrieveURL = (
                    f"{base_url}/studies/{one.study_instance_uid}/series/"
                    f"{one.series_instance_uid}/instances/{one.sop_instance_uid}"
                )
                stored.append(item)
            else:
                item.FailureReason = one.answer.status
                item.ErrorComment = one.answer.comment
                failed.append(item)
        studies = {one.study_instance_uid for one in self.outcomes if one.is_stored}
        if len(studies) == 1:
            dataset.RetrieveURL = f"{base_url}/studies/{studies.pop()}"
        for keyword, items in (
            ("ReferencedSOPSequence", stored),
            ("FailedSOPSequence", failed),
            ("OtherFailuresSequence", others),
        ):
            if items:
                setattr(dataset, keyword, items)
        return dataset.to_json_dict(suppress_invalid_tags=True)


class _WebReception(Reception):
    """A reception that also heeds the study of the address."""

    def __init__(self, storing: Storing, request: StoreRequest) -> None:
        self.study = self.series = ""
        self._wanted_study = storing.study_instance_uid
        self._tell_stored = storing.on_stored
        super().__init__(
            storing.archive,
            request,
            storing.record,
            on_stored=self._note,
            on_quarantined=storing.on_quarantined,
        )

    def _note(self, received: ReceivedInstance) -> None:
        self.study, self.series = received.study_instance_uid, received.series_instance_uid
        self._tell_stored(received)

    def _mismatch(self, attributes: dict[str, str]) -> str:
        there = attributes.get("StudyInstanceUID", "")
        if self._wanted_study and there != self._wanted_study:
            return f"The instance is of study {there[:80]!r}, the address names another"
        return super()._mismatch(attributes)


class Part10Sink:
    """Takes a part that should be a DICOM file (PS3.10 7).

    Parameters
    ----------
    storing : Storing
        The request that it belongs to.
    type_name : str
        Media type of the part.
    """

    def __init__(self, storing: Storing, type_name: str) -> None:
        self._storing = storing
        self._head = bytearray()
        self._reception: _WebReception | None = None
        self._meta: FileMeta | None = None
        self._refused: Answer | None = None
        if type_name not in (DICOM, "application/octet-stream"):
            self._refused = Answer(CANNOT_UNDERSTAND, f"a part must be {DICOM}")

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._reception is not None:
            self._reception.write(data)
        elif self._refused is None:
            self._head += data
            if len(self._head) >= self._needed():
                self._begin()

    def close(self) -> None:
        """File the object, and note what became of it."""
        if self._reception is None and self._refused is None:
            self._begin()
        if self._reception is not None:
            self._note(self._reception.finish())
        else:
            self._storing.record.refused += 1
            self._note(self._refused or Answer(CANNOT_UNDERSTAND, "not a DICOM file"))

    def abandon(self) -> None:
        """Forget a part that was cut off."""
        if self._reception is not None:
            self._reception.abandon()
        self._storing.record.refused += 1
        self._note(Answer(CANNOT_UNDERSTAND, "cut off: the body ended within this part"))

    def _needed(self) -> int:
        """Return how many bytes hold the file meta group, as far as that is known."""
        head = self._head
        if len(head) < _META_START or head[132:136] != b"\2\0\0\0":
            return _META_START if len(head) < _META_START else _MOST_META
        return min(_META_START + int.from_bytes(head[140:144], "little") + 8, _MOST_META)

    def _begin(self) -> None:
        """Read the file meta group and open the reception."""
        try:
            meta = read_file_meta(BytesIO(bytes(self._head)), "the part")
        except FinalError as error:
            self._refused = Answer(CANNOT_UNDERSTAND, error.sentence[:64])
            return
        self._meta = meta
        if not self._storing.takes(meta.sop_class_uid):
            self._refused = Answer(CLASS_NOT_SUPPORTED, "not a storage class of this node")
        elif meta.transfer_syntax_uid not in TRANSFER_SYNTAXES:
            self._refused = Answer(SYNTAX_NOT_SUPPORTED, "transfer syntax is not supported")
        else:
            request = StoreRequest(
                meta.sop_class_uid,
                meta.sop_instance_uid,
                meta.transfer_syntax_uid,
                meta.sop_class_uid,
            )
            self._reception = _WebReception(self._storing, request)
            self._reception.write(bytes(self._head[meta.data_set_offset :]))
        self._head.clear()

    def _note(self, answer: Answer) -> None:
        if answer.status:
            OBJECTS_REFUSED.labels("stow", f"{answer.status:04X}").inc()
        meta, reception = self._meta, self._reception
        self._storing.outcomes.append(
            Outcome(
                "" if meta is None else meta.sop_class_uid,
                "" if meta is None else meta.sop_instance_uid,
                "" if reception is None else reception.study,
                "" if reception is None else reception.series,
                answer,
            )
        )
