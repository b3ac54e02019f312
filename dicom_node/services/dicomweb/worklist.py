"""UPS-RS: workitems that others create and the node performs (PS3.18 11, PS3.4 CC, IHE AIW-I).

The node is worklist and Task Performer in one: it claims a workitem when the study begins to be
worked on, tells how far it is, and completes it with references to the results.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dicom_node.errors import FinalError
from dicom_node.incoming import valid_uid

STATE: Final = "00741000"
_INPUT, _STUDY, _INSTANCE = "00404021", "0020000D", "00080018"
_TRANSACTION: Final = "00081195"
_MOST_BYTES: Final = 1 << 18


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
    """

    uid: str
    study_instance_uid: str
    dataset: Mapping[str, Any]
    state: str
    progress: float
    sentence: str
    outputs: Sequence[Output] = ()

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
        """End the work for a workitem; False when there is none."""


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
    uid = uid_of_address or _text(dataset, _INSTANCE) or f"2.25.{uuid.uuid4().int}"
    if not valid_uid(uid):
        raise FinalError("the workitem's UID is none (PS3.5 9.1)")
    if _text(dataset, STATE) not in ("", "SCHEDULED"):
        raise FinalError("a new workitem is SCHEDULED (Procedure Step State, PS3.4 CC.2.5.1.3)")
    studies = {_text(item, _STUDY) for item in _items(dataset, _INPUT)} - {""}
    if len(studies) != 1 or not valid_uid(next(iter(studies))):
        raise FinalError(
            "Input Information Sequence (0040,4021) must name one study by its Study Instance UID"
        )
    kept = {tag: value for tag, value in dataset.items() if tag != _TRANSACTION}
    kept[_INSTANCE] = {"vr": "UI", "Value": [uid]}
    kept["00080016"] = {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.1"]}
    return uid, next(iter(studies)), kept


def answer_of(item: Workitem, url: str) -> dict[str, Any]:
    """Return a workitem as DICOM JSON, with state, progress and outputs of now.

    Parameters
    ----------
    item
        The workitem.
    url
        What stands before ``/studies``.
    """
    answer = dict(item.dataset)
    answer[STATE] = {"vr": "CS", "Value": [item.state]}
    answer["00741002"] = _sequence(
        {
            "00741004": {"vr": "DS", "Value": [item.progress]},
            "00741006": {"vr": "ST", "Value": [item.sentence[:1024]]},
        }
    )
    if item.outputs:
        answer["00741216"] = _sequence({"00404033": _outputs(item, url)})
    return answer


def _outputs(item: Workitem, url: str) -> dict[str, Any]:
    """Return Output Information Sequence: one entry for each series (PS3.3 C.30.3)."""
    by_series: dict[str, list[Output]] = {}
    for output in item.outputs:
        by_series.setdefault(output.series_instance_uid, []).append(output)
    entries = []
    for series, outputs in by_series.items():
        address = f"{url}/studies/{item.study_instance_uid}/series/{series}"
        references = [
            {
                "00081150": {"vr": "UI", "Value": [one.sop_class_uid]},
                "00081155": {"vr": "UI", "Value": [one.sop_instance_uid]},
            }
            for one in outputs
        ]
        entries.append(
            {
                "0040E020": {"vr": "CS", "Value": ["DICOM"]},
                _STUDY: {"vr": "UI", "Value": [item.study_instance_uid]},
                "0020000E": {"vr": "UI", "Value": [series]},
                "00081199": _sequence(*references),
                "0040E025": _sequence({"00081190": {"vr": "UR", "Value": [address]}}),
            }
        )
    return _sequence(*entries)


def _sequence(*items: dict[str, Any]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


def _items(dataset: Mapping[str, Any], tag: str) -> list[dict[str, Any]]:
    values = dataset.get(tag, {}).get("Value")
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _text(dataset: Mapping[str, Any], tag: str) -> str:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    first = values[0] if isinstance(values, list) and values else ""
    return first.strip() if isinstance(first, str) else ""
