"""UPS-RS as Task Performer of a worklist elsewhere (PS3.18 11, PS3.4 CC, IHE AIW-I).

Search, get, claim, tell how far it is, complete, cancel: each one request with a deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import httpx

from dicom_node.errors import FinalError
from dicom_node.services.dicomweb.negotiation import DICOM_JSON
from dicom_node.services.dicomweb.worklist import STATE, TRANSACTION, ConflictError
from dicom_node.services.web_connection import WebConnection

_HEADERS: Final = {"Accept": DICOM_JSON, "Content-Type": DICOM_JSON}
# PS3.18 11.6.3, 11.7.3: not in a state for that, or not by this Transaction UID; 400 is what some
# managers answer instead.
_CONFLICTS: Final = frozenset({400, 409})

Ending = Literal["COMPLETED", "CANCELED"]


class WebWorklist(WebConnection):
    """A worklist manager that is asked by UPS-RS. Use as a context manager.

    All methods raise what `WebConnection.ask` does.
    """

    def search(self, filters: Mapping[str, str], most: int) -> list[dict[str, Any]]:
        """Return workitems that match, in DICOM JSON (RAD-81)."""
        parameters = {**filters, "limit": str(most)}
        answer = self.ask(
            "GET", "/workitems", accepts={200, 204, 206}, params=parameters, headers=_HEADERS
        )
        found = self.json_of(answer) if answer.content else []
        if not isinstance(found, list):
            raise FinalError(f"{self.destination} answers a search for workitems with no list")
        return [one for one in found if isinstance(one, dict)][:most]

    def get(self, uid: str) -> dict[str, Any] | None:
        """Return a workitem as it stands now, or None where there is none any more (RAD-83)."""
        answer = self.ask("GET", f"/workitems/{uid}", accepts={200, 404, 410}, headers=_HEADERS)
        if answer.status_code != 200:
            return None
        body = self.json_of(answer)
        found = body[0] if isinstance(body, list) and body else body
        if not isinstance(found, dict):
            raise FinalError(f"{self.destination} answers with something that is no workitem")
        return found

    def claim(self, uid: str, transaction_uid: str) -> None:
        """Take a workitem on (RAD-82).

        Raises
        ------
        ConflictError
            Somebody else has it, or it is over.
        """
        self._change(uid, "IN PROGRESS", transaction_uid)

    def update(self, uid: str, transaction_uid: str, dataset: Mapping[str, Any]) -> None:
        """Tell something of a workitem that was claimed (RAD-84).

        Raises
        ------
        ConflictError
            It is not ours, or it is over.
        """
        body = [{**dataset, TRANSACTION: {"vr": "UI", "Value": [transaction_uid]}}]
        address = f"/workitems/{uid}?transaction-uid={transaction_uid}"
        self._settle("POST", address, body, uid)

    def end(self, uid: str, transaction_uid: str, state: Ending) -> None:
        """Complete a workitem, or give it up (RAD-85).

        Raises
        ------
        ConflictError
            It is not ours, it is over, or it lacks what must be told before.
        """
        self._change(uid, state, transaction_uid)

    def _change(self, uid: str, state: str, transaction_uid: str) -> None:
        body = [
            {
                STATE: {"vr": "CS", "Value": [state]},
                TRANSACTION: {"vr": "UI", "Value": [transaction_uid]},
            }
        ]
        self._settle("PUT", f"/workitems/{uid}/state", body, uid)

    def _settle(self, method: str, address: str, body: list[dict[str, Any]], uid: str) -> None:
        answer = self.ask(
            method, address, accepts={200, 201, 204, *_CONFLICTS, 404, 410}, json=body,
            headers=_HEADERS,
        )  # fmt: skip
        if answer.status_code in (404, 410):
            raise ConflictError(f"{self.destination} knows no workitem {uid} any more")
        if answer.status_code in _CONFLICTS:
            raise ConflictError(f"{self.destination} answered {_said(answer)} for {uid}")


def _said(answer: httpx.Response) -> str:
    words = answer.headers.get("warning") or answer.text[:200]
    plain = "".join(c if c.isprintable() else " " for c in words).strip()
    return f"{answer.status_code} ({plain})" if plain else str(answer.status_code)
