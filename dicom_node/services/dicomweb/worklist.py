"""UPS-RS: workitems and where they stand (PS3.18 11, PS3.4 CC, IHE AIW-I).

The node performs the workitems that are addressed to it, or to nobody: it is worklist and Task
Performer in one, claims such a workitem when the study begins to be worked on, tells how far it is,
and completes it with references to the results. What is addressed to another station (Scheduled
Station Name Code Sequence) that station performs: it claims the workitem by a Transaction UID,
which nobody else is shown, and nobody without it changes the workitem any more.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from dicom_node.errors import FinalError
from dicom_node.incoming import valid_uid

STATE: Final = "00741000"
TRANSACTION: Final = "00081195"
PROGRESS: Final = "00741002"
PERFORMED: Final = "00741216"
STATION: Final = "00404025"
CODE_VALUE: Final = "00080100"
CANCEL_REASON: Final = "00741238"
INPUT, STUDY = "00404021", "0020000D"
_INSTANCE: Final = "00080018"
_MOST_BYTES: Final = 1 << 18
# PS3.4 Table CC.2.5-3: what a workitem must say of its performance before it can be completed.
_REQUIRED_AT_END: Final = {
    "00404028": "Performed Station Name Code Sequence",
    "00404050": "Performed Procedure Step Start DateTime",
    "00404051": "Performed Procedure Step End DateTime",
    "00404019": "Performed Workitem Code Sequence",
    "00404033": "Output Information Sequence",
}
# What is set when a workitem is created or claimed, and by nothing else.
_NOT_BY_UPDATE: Final = frozenset({"00080016", _INSTANCE, STATE, TRANSACTION, STUDY})


class ConflictError(FinalError):
    """The workitem is not in a state in which that can be asked of it, or not for this caller."""


@dataclass(frozen=True, slots=True)
class Output:
    """A result: class, instance, series."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class Workitem:
    """A workitem and where it stands.

    Attributes
    ----------
    dataset : mapping
        DICOM JSON as it was created.
    state : str
        SCHEDULED, IN PROGRESS, COMPLETED or CANCELED (PS3.4 CC.1.1).
    progress : float
        From 0 to 100.
    sentence : str
        In words.
    updates : mapping
        What another performer set, in DICOM JSON.
    is_own : bool
        Whether this node performs it.
    performer : str
        Who has claimed it.
    cancel_wish : str
        Why somebody asked for its end while another performs it.
    """

    uid: str
    study_instance_uid: str
    dataset: Mapping[str, Any]
    state: str
    progress: float
    sentence: str
    outputs: Sequence[Output] = ()
    updates: Mapping[str, Any] = field(default_factory=dict)
    is_own: bool = True
    performer: str = ""
    cancel_wish: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("COMPLETED", "CANCELED")


class Worklist(Protocol):
    """Keeps workitems; errors are those of `dicom_node.errors`."""

    def create(self, uid: str, study: str, dataset: dict[str, Any], who: str) -> bool:
        """Keep a workitem; False when its UID is known."""

    def get(self, uid: str) -> Workitem | None:
        """Return a workitem."""

    def search(self, study: str) -> list[Workitem]:
        """Return workitems, the newest first; of one study, or of all (empty text)."""

    def cancel(self, uid: str, reason: str) -> bool:
        """End the work for a workitem; False when there is none.

        One that another performs goes on: its performer is told of the wish.
        """

    def change_state(self, uid: str, state: str, transaction_uid: str, who: str) -> bool:
        """Claim, complete or cancel a workitem for another performer; False when there is none.

        Raises
        ------
        ConflictError
            It is this node's, somebody else's, or not in a state for that.
        """

    def update(self, uid: str, transaction_uid: str, dataset: dict[str, Any]) -> bool:
        """Keep what its performer says; False when there is none.

        Raises
        ------
        ConflictError
            As `change_state`.
        """


def new_workitem(body: Any, size: int, uid_of_address: str) -> tuple[str, str, dict[str, Any]]:
    """Check what should become a workitem; returns its UID, its study's, and the data set.

    Parameters
    ----------
    body
        Parsed JSON; hostile.
    size
        Bytes that it came in.
    uid_of_address
        From the query parameter, or empty.

    Raises
    ------
    FinalError
        It cannot be one; the sentence says why.
    """
    if size > _MOST_BYTES:
        raise FinalError(f"a workitem has at most {_MOST_BYTES} bytes")
    dataset = body[0] if isinstance(body, list) and len(body) == 1 else body
    if not isinstance(dataset, dict) or not all(isinstance(one, dict) for one in dataset.values()):
        raise FinalError("the body must be one data set in DICOM JSON (PS3.18 F.2)")
    uid = uid_of_address or text_of(dataset, _INSTANCE) or f"2.25.{uuid.uuid4().int}"
    if not valid_uid(uid):
        raise FinalError("the workitem's UID is none (PS3.5 9.1)")
    if text_of(dataset, STATE) not in ("", "SCHEDULED"):
        raise FinalError("a new workitem is SCHEDULED (Procedure Step State, PS3.4 CC.2.5.1.3)")
    studies = {text_of(item, STUDY) for item in items_of(dataset, INPUT)} - {""}
    if len(studies) != 1 or not valid_uid(next(iter(studies))):
        raise FinalError(
            "Input Information Sequence (0040,4021) must name one study by its Study Instance UID"
        )
    kept = {tag: value for tag, value in dataset.items() if tag != TRANSACTION}
    kept[_INSTANCE] = {"vr": "UI", "Value": [uid]}
    kept["00080016"] = {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.1"]}
    return uid, next(iter(studies)), kept


def is_for(dataset: Mapping[str, Any], station: str) -> bool:
    """Whether a workitem is addressed to a station, or to nobody."""
    named = {text_of(item, CODE_VALUE) for item in items_of(dataset, STATION)} - {""}
    return not named or station in named


def transaction_of(dataset: Mapping[str, Any], of_address: str) -> str:
    """Return the Transaction UID that a caller shows, in the address or in the body.

    Raises
    ------
    FinalError
        It shows none.
    """
    uid = of_address or text_of(dataset, TRANSACTION)
    if not valid_uid(uid):
        raise FinalError("a performer shows its Transaction UID (0008,1195)")
    return uid


def update_of(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a performer may set of what it sent.

    Raises
    ------
    FinalError
        It sent something that it may not set.
    """
    given = {tag: value for tag, value in dataset.items() if tag != TRANSACTION}
    forbidden = sorted(_NOT_BY_UPDATE & given.keys())
    if forbidden:
        raise FinalError(f"a performer cannot set {', '.join(forbidden)} (PS3.4 Table CC.2.5-3)")
    return given


def lacking_at_end(dataset: Mapping[str, Any]) -> list[str]:
    """Return what a workitem does not say yet and must, to be completed (PS3.4 CC.2.5.1.1)."""
    performed = items_of(dataset, PERFORMED)
    there = performed[0] if performed else {}
    return [name for tag, name in _REQUIRED_AT_END.items() if tag not in there]


def answer_of(item: Workitem, url: str) -> dict[str, Any]:
    """Return a workitem as DICOM JSON, with state, progress and outputs of now.

    Parameters
    ----------
    item
        The workitem.
    url
        What stands before ``/studies``.
    """
    answer = {**item.dataset, **item.updates}
    answer[STATE] = {"vr": "CS", "Value": [item.state]}
    if not item.updates.get(PROGRESS):
        answer[PROGRESS] = sequence(
            {
                "00741004": {"vr": "DS", "Value": [item.progress]},
                "00741006": {"vr": "ST", "Value": [item.sentence[:1024]]},
            }
        )
    if item.cancel_wish:
        [progress, *others] = items_of(answer, PROGRESS) or [{}]
        wish = {CANCEL_REASON: {"vr": "LT", "Value": [item.cancel_wish]}}
        answer[PROGRESS] = sequence({**progress, **wish}, *others)
    if item.outputs:
        series = outputs_of(item.study_instance_uid, item.outputs, url=url)
        answer[PERFORMED] = sequence({"00404033": series})
    return answer


def outputs_of(
    study: str, outputs: Sequence[Output], *, url: str = "", ae_title: str = ""
) -> dict[str, Any]:
    """Return Output Information Sequence: one entry for each series (PS3.3 C.30.3).

    Parameters
    ----------
    study
        Study Instance UID of all.
    outputs
        What was made.
    url
        What stands before ``/studies`` where they can be retrieved by WADO-RS, if anywhere.
    ae_title
        From whom they can be retrieved by C-MOVE or C-GET, if from anybody.
    """
    by_series: dict[str, list[Output]] = {}
    for output in outputs:
        by_series.setdefault(output.series_instance_uid, []).append(output)
    entries = []
    for series, members in by_series.items():
        references = [
            {
                "00081150": {"vr": "UI", "Value": [one.sop_class_uid]},
                "00081155": {"vr": "UI", "Value": [one.sop_instance_uid]},
            }
            for one in members
        ]
        entry = {
            "0040E020": {"vr": "CS", "Value": ["DICOM"]},
            STUDY: {"vr": "UI", "Value": [study]},
            "0020000E": {"vr": "UI", "Value": [series]},
            "00081199": sequence(*references),
        }
        if url:
            address = f"{url}/studies/{study}/series/{series}"
            entry["0040E025"] = sequence({"00081190": {"vr": "UR", "Value": [address]}})
        if ae_title:
            entry["0040E021"] = sequence({"00080054": {"vr": "AE", "Value": [ae_title]}})
        entries.append(entry)
    return sequence(*entries)


def sequence(*items: dict[str, Any]) -> dict[str, Any]:
    """Return a sequence in DICOM JSON."""
    return {"vr": "SQ", "Value": list(items)}


def items_of(dataset: Mapping[str, Any], tag: str) -> list[dict[str, Any]]:
    """Return the items of a sequence in DICOM JSON; hostile."""
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def text_of(dataset: Mapping[str, Any], tag: str) -> str:
    """Return the first value of a text in DICOM JSON; hostile."""
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    first = values[0] if isinstance(values, list) and values else ""
    return first.strip() if isinstance(first, str) else ""
