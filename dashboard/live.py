"""What changes, told to open pages at once by server-sent events.

One look at the database each second serves all browsers, and none is made while no page is open.
The same look ends the streams of those who logged out, were shut out or have another role now.
A page that hears of a change asks for itself again and puts the changed parts in: the server says
what is the case in one place, its templates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from dashboard.access import Viewer, is_still
from db.changes import changed_since, last_change, under_way
from db.session import DATABASE_ERRORS, Database

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

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


OVER: Final = Event("over", {})
"""The last event of a stream: who listens is not logged in any more, or in another role."""


@dataclass(eq=False, frozen=True, slots=True)
class Listener:
    """An open page: its events, and whether who opened it may (still) hear them."""

    queue: asyncio.Queue[Event]
    is_welcome: Callable[[Session], bool]

    def tell(self, event: Event) -> None:
        """Hand an event over; a listener that does not read loses the oldest."""
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(event)


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
        self._listeners: set[Listener] = set()
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
    def listening(self, is_welcome: Callable[[Session], bool]) -> Iterator[asyncio.Queue[Event]]:
        """Give a queue of events, whose last is `OVER` once the listener is welcome no more."""
        listener = Listener(asyncio.Queue(maxsize=32), is_welcome)
        self._listeners.add(listener)
        self._heard.set()
        try:
            yield listener.queue
        finally:
            self._listeners.discard(listener)

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
            found, gone = await asyncio.to_thread(self._news, list(self._listeners))
        except DATABASE_ERRORS:
            self._away = True
            self._tell(Event("away", {}))
            return
        if self._away:
            self._away = False
            self._tell(Event("back", {}))
        for listener in gone:
            self._listeners.discard(listener)
            listener.tell(OVER)
        if found:
            self._tell(Event("jobs", {"jobs": found}))

    def _news(self, listeners: list[Listener]) -> tuple[list[int], list[Listener]]:
        """Return the jobs that changed, and the listeners that are not welcome any more."""
        with self._database.reading() as session:
            gone = [one for one in listeners if not one.is_welcome(session)]
            return self._changed(session), gone

    def _changed(self, session: Session) -> list[int]:
        """Return the jobs that changed their state, their words or their progress."""
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
        for listener in self._listeners:
            listener.tell(event)


@router.get("/live")
async def live(request: Request, actor: Viewer) -> StreamingResponse:
    """Stream the changes to a page, for as long as its person is logged in, in the same role."""
    changes: Changes = request.app.state.changes

    async def events() -> AsyncIterator[bytes]:
        with changes.listening(lambda session: is_still(session, request, actor)) as queue:
            yield b"retry: 2000\n\n"
            event = None
            while event is not OVER:
                try:
                    event = await asyncio.wait_for(queue.get(), _ALIVE_SECONDS)
                    yield event.encoded()
                except TimeoutError:
                    yield b": alive\n\n"

    return StreamingResponse(
        events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )
