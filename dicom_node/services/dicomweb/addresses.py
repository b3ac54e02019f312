"""The addresses of the DICOMweb services: what is behind each, and in which forms it answers.

The server answers just these, and the conformance statement lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from dicom_node.services.dicomweb.access import WebService
from dicom_node.services.dicomweb.negotiation import DICOM, DICOM_JSON, OCTETS, PICTURES
from dicom_node.services.query import Level

Transaction = Literal[
    "search", "retrieve", "metadata", "bulk_data", "frames", "rendered", "store",
    "create_workitem", "search_workitems", "retrieve_workitem", "update_workitem",
    "change_workitem_state", "cancel_workitem",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """One method at one path.

    Attributes
    ----------
    transaction
        Who answers.
    method, path
        As FastAPI takes them, below the base address.
    level
        Of what a search looks for.
    """

    transaction: Transaction
    method: str
    path: str
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """What the addresses of one transaction have in common.

    Attributes
    ----------
    service, section
        Name, and section of PS3.18.
    right
        What a user must be allowed.
    takes, answers
        Media types of a request's and of an answer's body.
    """

    service: Literal["QIDO-RS", "WADO-RS", "STOW-RS", "UPS-RS"]
    section: str
    right: WebService
    takes: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


_JSON: Final = (DICOM_JSON,)

KINDS: Final[Mapping[Transaction, Kind]] = {
    "search": Kind("QIDO-RS", "10.6", "query", answers=_JSON),
    "retrieve": Kind(
        "WADO-RS", "10.4.1.1.1", "retrieve", answers=(f'multipart/related; type="{DICOM}"', DICOM)
    ),
    "metadata": Kind("WADO-RS", "10.4.1.1.2", "retrieve", answers=_JSON),
    "bulk_data": Kind("WADO-RS", "10.4.1.1.5", "retrieve", answers=(OCTETS,)),
    "frames": Kind(
        "WADO-RS", "10.4.1.1.6", "retrieve", answers=(OCTETS, "the form they are stored in")
    ),
    "rendered": Kind("WADO-RS", "10.4.1.1.3", "retrieve", answers=PICTURES),
    "store": Kind("STOW-RS", "10.5", "store", (f'multipart/related; type="{DICOM}"',), _JSON),
    "create_workitem": Kind("UPS-RS", "11.4", "worklist", _JSON),
    "retrieve_workitem": Kind("UPS-RS", "11.5", "worklist", answers=_JSON),
    "update_workitem": Kind("UPS-RS", "11.6", "worklist", _JSON),
    "change_workitem_state": Kind("UPS-RS", "11.7", "worklist", _JSON),
    "cancel_workitem": Kind("UPS-RS", "11.8", "worklist", _JSON),
    "search_workitems": Kind("UPS-RS", "11.9", "worklist", answers=_JSON),
}

_STUDY: Final = "/studies/{study}"
_SERIES: Final = _STUDY + "/series/{series}"
_INSTANCE: Final = _SERIES + "/instances/{instance}"
_WORKITEM: Final = "/workitems/{uid}"

ADDRESSES: Final[tuple[Address, ...]] = (
    Address("search", "GET", "/studies", Level.STUDY),
    Address("search", "GET", "/series", Level.SERIES),
    Address("search", "GET", "/instances", Level.IMAGE),
    Address("search", "GET", _STUDY + "/series", Level.SERIES),
    Address("search", "GET", _STUDY + "/instances", Level.IMAGE),
    Address("search", "GET", _SERIES + "/instances", Level.IMAGE),
    *(Address("retrieve", "GET", path) for path in (_STUDY, _SERIES, _INSTANCE)),
    *(Address("metadata", "GET", path + "/metadata") for path in (_STUDY, _SERIES, _INSTANCE)),
    Address("bulk_data", "GET", _INSTANCE + "/bulkdata/{place:path}"),
    Address("frames", "GET", _INSTANCE + "/frames/{frames}"),
    Address("rendered", "GET", _INSTANCE + "/rendered"),
    Address("rendered", "GET", _INSTANCE + "/thumbnail"),
    Address("rendered", "GET", _INSTANCE + "/frames/{frames}/rendered"),
    Address("store", "POST", "/studies"),
    Address("store", "POST", _STUDY),
    Address("create_workitem", "POST", "/workitems"),
    Address("search_workitems", "GET", "/workitems"),
    Address("retrieve_workitem", "GET", _WORKITEM),
    Address("update_workitem", "POST", _WORKITEM),
    Address("change_workitem_state", "PUT", _WORKITEM + "/state"),
    Address("cancel_workitem", "POST", _WORKITEM + "/cancelrequest"),
)
