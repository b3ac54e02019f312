"""The addresses of UPS-RS (PS3.18 11)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from dicom_node.incoming import valid_uid
from dicom_node.services.dicomweb.access import WebService, WebUser
from dicom_node.services.dicomweb.bodies import pieces_of
from dicom_node.services.dicomweb.errors import HttpError
from dicom_node.services.dicomweb.negotiation import DICOM_JSON
from dicom_node.services.dicomweb.worklist import (
    INPUT,
    STATE,
    STUDY,
    Worklist,
    answer_of,
    new_workitem,
    text_of,
    transaction_of,
    update_of,
)
from dicom_node.services.dicomweb.worklist_search import conditions_of, fits

_NO_SUCH: Final = "there is no such workitem"
_STATES: Final = ("IN PROGRESS", "COMPLETED", "CANCELED")
_STUDY_NAMES: Final = frozenset(
    {"StudyInstanceUID", STUDY, f"{INPUT}.{STUDY}", "InputInformationSequence.StudyInstanceUID"}
)
_MOST_BYTES: Final = 1 << 18
_MOST_AT_ONCE: Final = 1000
_READ_SECONDS: Final = 30.0


class WorklistRoutes:
    """Answers requests about workitems.

    Parameters
    ----------
    worklist : Worklist
        Keeps them.
    url : str
        What stands before ``/workitems`` and ``/studies``.
    admit : callable
        Request and service to who asks; raises HttpError for others.
    """

    def __init__(
        self, worklist: Worklist, url: str, admit: Callable[[Request, WebService], WebUser]
    ) -> None:
        self._worklist = worklist
        self._url = url
        self._admit = admit

    async def create(self, request: Request) -> Response:
        """Create a workitem (PS3.18 11.4)."""
        who = await run_in_threadpool(self._admit, request, "worklist")
        body, size = await _json_of(request)
        query = request.url.query
        uid_given = request.query_params.get("workitem") or (query if "=" not in query else "")
        uid, study, dataset = new_workitem(body, size, uid_given)
        if not await run_in_threadpool(self._worklist.create, uid, study, dataset, who.name):
            raise HttpError(409, f"there is a workitem {uid} already")
        location = f"{self._url}/workitems/{uid}"
        return Response(status_code=201, headers={"Location": location})

    def search(self, request: Request) -> Response:
        """Search for workitems (PS3.18 11.9)."""
        self._admit(request, "worklist")
        own = {"limit", "offset", "includefield", "fuzzymatching"}
        asked = [
            (name, value) for name, value in request.query_params.multi_items() if name not in own
        ]
        conditions = conditions_of(asked)
        study = next((value for name, value in asked if name in _STUDY_NAMES), "")
        if not valid_uid(study):
            # A list of studies, or any.
            study = ""
        everything = [answer_of(item, self._url) for item in self._worklist.search(study)]
        found = [answer for answer in everything if fits(answer, conditions)]
        start = _number(request.query_params.get("offset", ""), 0)
        most = _number(request.query_params.get("limit", ""), _MOST_AT_ONCE)
        return JSONResponse(found[start : start + most], media_type=DICOM_JSON)

    def retrieve(self, request: Request) -> Response:
        """Return a workitem with its state of now (PS3.18 11.5)."""
        self._admit(request, "worklist")
        item = self._worklist.get(str(request.path_params["uid"]))
        if item is None:
            raise HttpError(404, _NO_SUCH)
        return JSONResponse([answer_of(item, self._url)], media_type=DICOM_JSON)

    async def update(self, request: Request) -> Response:
        """Keep what the performer of a workitem says (PS3.18 11.6)."""
        await run_in_threadpool(self._admit, request, "worklist")
        dataset = await _data_set_of(request)
        transaction = transaction_of(dataset, _transaction_in_address(request))
        uid = str(request.path_params["uid"])
        kept = update_of(dataset)
        if not await run_in_threadpool(self._worklist.update, uid, transaction, kept):
            raise HttpError(404, _NO_SUCH)
        return Response(status_code=200)

    async def change_state(self, request: Request) -> Response:
        """Let another performer claim, complete or cancel a workitem (PS3.18 11.7)."""
        who = await run_in_threadpool(self._admit, request, "worklist")
        dataset = await _data_set_of(request)
        state = text_of(dataset, STATE)
        if state not in _STATES:
            raise HttpError(400, f"the state must be one of {', '.join(_STATES)}")
        transaction = transaction_of(dataset, "")
        uid = str(request.path_params["uid"])
        change = self._worklist.change_state
        if not await run_in_threadpool(change, uid, state, transaction, who.name):
            raise HttpError(404, _NO_SUCH)
        return Response(status_code=200)

    async def cancel(self, request: Request) -> Response:
        """End the work for a workitem, or tell its performer of the wish (PS3.18 11.8)."""
        who = await run_in_threadpool(self._admit, request, "worklist")
        uid = str(request.path_params["uid"])
        item = await run_in_threadpool(self._worklist.get, uid)
        if item is None:
            raise HttpError(404, _NO_SUCH)
        if item.is_final:
            raise HttpError(409, f"the workitem is {item.state} already")
        await run_in_threadpool(self._worklist.cancel, uid, f"cancelled by {who.name} (UPS-RS)")
        return Response(status_code=202)


def _transaction_in_address(request: Request) -> str:
    query = request.url.query
    given = request.query_params.get("transaction-uid") or request.query_params.get("transaction")
    return given or (query if "=" not in query else "")


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else otherwise


async def _data_set_of(request: Request) -> dict[str, Any]:
    body, _ = await _json_of(request)
    dataset = body[0] if isinstance(body, list) and len(body) == 1 else body
    if not isinstance(dataset, dict) or not all(isinstance(one, dict) for one in dataset.values()):
        raise HttpError(400, "the body must be one data set in DICOM JSON (PS3.18 F.2)")
    return dataset


async def _json_of(request: Request) -> tuple[Any, int]:
    body = bytearray()
    async for piece in pieces_of(request, _READ_SECONDS):
        body += piece
        if len(body) > _MOST_BYTES:
            raise HttpError(413, f"a workitem has at most {_MOST_BYTES} bytes")
    try:
        return json.loads(bytes(body)), len(body)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, "the body is no JSON") from error
