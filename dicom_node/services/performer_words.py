"""What a Task Performer reads in a workitem, and what it tells of its work (PS3.3 C.30)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from dicom_node.incoming import valid_uid
from dicom_node.services.dicomweb.worklist import (
    CANCEL_REASON,
    INPUT,
    PERFORMED,
    PROGRESS,
    STUDY,
    Output,
    items_of,
    outputs_of,
    sequence,
    text_of,
)

_INSTANCE: Final = "00080018"
_READINESS: Final = "00404041"
_CANCELLED_AT: Final = "00404052"
_WORKITEM_CODE: Final = "00404018"
_WADO_RETRIEVAL, _RETRIEVE_URL = "0040E025", "00081190"


def workitem_uid(workitem: Mapping[str, Any]) -> str:
    """Return the UID of a workitem, or an empty text where it is none. Hostile."""
    uid = text_of(workitem, _INSTANCE)
    return uid if valid_uid(uid) else ""


def input_study(workitem: Mapping[str, Any]) -> str:
    """Return the one study that a workitem is about, or an empty text. Hostile."""
    studies = {text_of(item, STUDY) for item in items_of(workitem, INPUT)} - {""}
    study = studies.pop() if len(studies) == 1 else ""
    return study if valid_uid(study) else ""


def is_ready(workitem: Mapping[str, Any]) -> bool:
    """Whether its input is there, or is at least not said to be missing (Table C.30.2-1)."""
    return text_of(workitem, _READINESS) in ("", "READY")


def input_address(workitem: Mapping[str, Any], base_url: str) -> str:
    """Return where the input is fetched by WADO-RS, below ``base_url``.

    What the workitem says counts only if it is at the same server: our credentials go nowhere
    else, and a workitem is hostile text.
    """
    for item in items_of(workitem, INPUT):
        for place in items_of(item, _WADO_RETRIEVAL):
            address = text_of(place, _RETRIEVE_URL)
            if _is_below(address, base_url):
                return address[len(base_url.rstrip("/")) :]
    return f"/studies/{input_study(workitem)}"


def _is_below(address: str, base_url: str) -> bool:
    base = base_url.rstrip("/") + "/"
    parts = urlsplit(address)
    plain = not parts.query and not parts.fragment and ".." not in parts.path
    return address.startswith(base + "studies/") and plain and address.isascii()


def cancel_wish(workitem: Mapping[str, Any]) -> str | None:
    """Return why the work should end, or None where nobody asks for that.

    A manager that is polled has no other sign for it than what its workitem says: when or why it
    was cancelled, while it is IN PROGRESS.
    """
    for progress in items_of(workitem, PROGRESS):
        reason = text_of(progress, CANCEL_REASON)
        if reason or text_of(progress, _CANCELLED_AT):
            return reason[:200] or "no reason is given"
    return None


def progress_words(percent: float, sentence: str) -> dict[str, Any]:
    """Return how far the work is (Procedure Step Progress Information Sequence)."""
    return {
        PROGRESS: sequence(
            {
                "00741004": {"vr": "DS", "Value": [percent]},
                "00741006": {"vr": "ST", "Value": [sentence[:1024]]},
            }
        )
    }


def cancelled_words(reason: str, now: datetime) -> dict[str, Any]:
    """Return why the work ended without a result."""
    return {
        PROGRESS: sequence(
            {
                _CANCELLED_AT: {"vr": "DT", "Value": [_moment(now)]},
                CANCEL_REASON: {"vr": "LT", "Value": [reason[:10240]]},
                "0074100E": _code("110513", "DCM", "Discontinued for unspecified reason"),
            }
        )
    }


def performed_words(
    workitem: Mapping[str, Any],
    station: str,
    ae_title: str,
    began: datetime,
    ended: datetime,
    outputs: Sequence[Output],
) -> dict[str, Any]:
    """Return what was done (Table C.30.3-1): station, times, kind of work, and its results.

    Parameters
    ----------
    workitem
        Its Scheduled Workitem Code is what was performed; without one, (110003, DCM).
    station, ae_title
        Of this node; from it the results can be retrieved.
    """
    scheduled = items_of(workitem, _WORKITEM_CODE)
    kind = sequence(scheduled[0]) if scheduled else None
    return {
        PERFORMED: sequence(
            {
                "00404028": _code(station, "99UNIBIOMED", station),
                "00404050": {"vr": "DT", "Value": [_moment(began)]},
                "00404051": {"vr": "DT", "Value": [_moment(ended)]},
                "00404019": kind or _code("110003", "DCM", "Computer Aided Diagnosis"),
                "00404033": outputs_of(input_study(workitem), outputs, ae_title=ae_title),
            }
        )
    }


def _code(value: str, scheme: str, meaning: str) -> dict[str, Any]:
    return sequence(
        {
            "00080100": {"vr": "SH", "Value": [value[:16]]},
            "00080102": {"vr": "SH", "Value": [scheme]},
            "00080104": {"vr": "LO", "Value": [meaning[:64]]},
        }
    )


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S%z")
