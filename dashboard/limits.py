"""No request is read that is larger than what any page sends."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.errors import problem
from dashboard.rulebook import MOST_UPLOADED

_MOST: Final = 16 * 2**20
_ROOM: Final = 2**20
_UPLOADS: Final = dict.fromkeys(("/rules/try", "/api/rules/try/file"), MOST_UPLOADED + _ROOM)


class BodyLimit:
    """Answers 413 to a larger body: at once where its length is told, else when it is reached."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = _UPLOADS.get(scope["path"], _MOST)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told) > most:
            said = f"This is larger than the {most // 2**20} MiB that the node takes here."
            response = problem(Request(scope), 413, "Too large", said)
            await response(scope, receive, send)
            return
        got = 0

        async def receive_counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_counted, send)
