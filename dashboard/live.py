"""What changes, told to open pages at once by server-sent events.

One look at the database each second serves all browsers, and none is made while no page is open.
A page that hears of a change asks for itself again and puts the changed parts in: the server says
what is the case in one place, its templates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from dashboard.access import Viewer
from db.changes import changed_since, last_change, under_way
from db.session import DATABASE_ERRORS, Database

router = APIRouter(include_in_schema=False)
LOOK_SECONDS: Final = 1.0
_ALIVE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    name: str
    data: dict[str, Any]

    def encoded(self) -> bytes:
        """Return it as the event stream format writes it (WHATWG HTML, section 9.2)."""
        return f"event: {self.name}\ndata: {json.dumps(self.data)}\n\n".encode()


class Changes:
    """Looks for changed jobs and tells those who listen.

    Parameters
    ----------
    database
        Where to look.
    now
        Clock.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self._listeners: set[asyncio.Queue[Event]] = set()
        self._heard = asyncio.Event()
        self._since: datetime | None = None
        self._progress: dict[int, float | None] = {}
        self._away = False

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look while the application runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @contextlib.contextmanager
    def listening(self) -> Any:
        """Give a queue of events; a listener that does not read loses the oldest."""
        queue: asyncio.Queue[Event] = asyncio.Queue(maxsize=32)
        self._listeners.add(queue)
        self._heard.set()
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    async def _watch(self) -> None:
        while True:
            if not self._listeners:
                self._heard.clear()
                self._since = None
                await self._heard.wait()
            await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        try:
            found = await asyncio.to_thread(self._changed)
        except DATABASE_ERRORS:
            self._away = True
            self._tell(Event("away", {}))
            return
        if self._away:
            self._away = False
            self._tell(Event("back", {}))
        if found:
            self._tell(Event("jobs", {"jobs": found}))

    def _changed(self) -> list[int]:
        """Return the jobs that changed their state, their words or their progress."""
        with self._database.reading() as session:
            if self._since is None:
                self._since = last_change(session)
                return []
            found = changed_since(session, self._since)
            progress = under_way(session)
        if found:
            self._since = max(one.updated_at for one in found)
        moved = {job for job, part in progress.items() if self._progress.get(job) != part}
        self._progress = progress
        return sorted({one.job_id for one in found} | moved)

    def _tell(self, event: Event) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)


@router.get("/live")
async def live(request: Request, actor: Viewer) -> StreamingResponse:
    """Stream the changes to a page."""
    changes: Changes = request.app.state.changes

    async def events() -> AsyncIterator[bytes]:
        with changes.listening() as queue:
            yield b"retry: 2000\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _ALIVE_SECONDS)
                    yield event.encoded()
                except TimeoutError:
                    yield b": alive\n\n"

    return StreamingResponse(
        events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )
