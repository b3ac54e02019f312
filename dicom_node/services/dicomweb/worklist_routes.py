"""The addresses of UPS-RS (PS3.18 11)."""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from dicom_node.services.dicomweb.bodies import pieces_of
from dicom_node.services.dicomweb.errors import HttpError
from dicom_node.services.dicomweb.worklist import STATE, Worklist, answer_of, new_workitem

DICOM_JSON: Final = "application/dicom+json"
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
        Request to the name of who asks; raises HttpError for others.
    """

    def __init__(self, worklist: Worklist, url: str, admit: Any) -> None:
        self._worklist = worklist
        self._url = url
        self._admit = admit

    def add_to(self, app: FastAPI) -> None:
        """Add the addresses to an application."""
        one = "/workitems/{uid}"
        app.add_api_route("/workitems", self.create, methods=["POST"])
        app.add_api_route("/workitems", self.search, methods=["GET"])
        app.add_api_route(one, self.retrieve, methods=["GET"])
        app.add_api_route(one + "/state", self.change_state, methods=["PUT"])
        app.add_api_route(one + "/cancelrequest", self.cancel, methods=["POST"])

    async def create(self, request: Request) -> Response:
        """Create a workitem (PS3.18 11.4)."""
        who = await run_in_threadpool(self._admit, request)
        body, size = await _json_of(request)
        query = request.url.query
        uid_given = request.query_params.get("workitem") or (query if "=" not in query else "")
        uid, study, dataset = new_workitem(body, size, uid_given)
        if not await run_in_threadpool(self._worklist.create, uid, study, dataset, who):
            raise HttpError(409, f"there is a workitem {uid} already")
        location = f"{self._url}/workitems/{uid}"
        return Response(status_code=201, headers={"Location": location})

    def search(self, request: Request) -> Response:
        """Search for workitems by state and study (PS3.18 11.9)."""
        self._admit(request)
        asked = request.query_params
        study = asked.get("StudyInstanceUID") or asked.get("00404021.0020000D") or ""
        state = asked.get("ProcedureStepState") or asked.get(STATE) or ""
        found = [item for item in self._worklist.search(study) if not state or item.state == state]
        limit = asked.get("limit", "")
        most = int(limit) if limit.isdecimal() and len(limit) < 9 else _MOST_AT_ONCE
        answers = [answer_of(item, self._url) for item in found[:most]]
        return JSONResponse(answers, media_type=DICOM_JSON)

    def retrieve(self, request: Request) -> Response:
        """Return a workitem with its state of now (PS3.18 11.5)."""
        self._admit(request)
        item = self._worklist.get(str(request.path_params["uid"]))
        if item is None:
            raise HttpError(404, "there is no such workitem")
        return JSONResponse([answer_of(item, self._url)], media_type=DICOM_JSON)

    def change_state(self, request: Request) -> Response:
        """Refuse: the node claims and completes its workitems itself (PS3.18 11.7)."""
        self._admit(request)
        if self._worklist.get(str(request.path_params["uid"])) is None:
            raise HttpError(404, "there is no such workitem")
        raise HttpError(
            409, "this node performs its workitems itself; ask for their end by cancelrequest"
        )

    async def cancel(self, request: Request) -> Response:
        """End the work for a workitem (PS3.18 11.8)."""
        who = await run_in_threadpool(self._admit, request)
        uid = str(request.path_params["uid"])
        item = await run_in_threadpool(self._worklist.get, uid)
        if item is None:
            raise HttpError(404, "there is no such workitem")
        if item.is_final:
            raise HttpError(409, f"the workitem is {item.state} already")
        await run_in_threadpool(self._worklist.cancel, uid, f"cancelled by {who} (UPS-RS)")
        return Response(status_code=202)


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
