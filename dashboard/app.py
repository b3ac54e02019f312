"""The web application of one node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard import (
    api,
    assets,
    entry,
    intake,
    jobs,
    live,
    metrics,
    model,
    openid,
    overview,
    peers,
    people,
    questions,
    reviews,
    rulebook,
    site,
    studies,
    trail,
    training_data,
    viewer_api,
    withdrawals,
)
from dashboard.errors import answer_errors, unexpected
from dashboard.images import Images
from dashboard.limits import BodyLimit
from dashboard.live import Changes
from dashboard.rendering import load_templates
from workflows.node import Node
from workflows.reloading import Reloading

_SECURITY_HEADERS: Final = {
    # Nothing from elsewhere, and no script or style inside a page: a DICOM string that came
    # through as markup would still do nothing.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def create_app(node: Node) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    node
        The node whose pages it shows.
    """
    changes = Changes(node.database, now=node.now)

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        load_templates()
        async with changes.watching():
            yield

    app = FastAPI(
        title="UniBiomed Node", docs_url=None, redoc_url=None, openapi_url=None, lifespan=run
    )
    app.state.node = node
    app.state.reloading = Reloading(node.home)
    app.state.changes = changes
    app.state.images = Images(node)
    app.state.openid = openid.Waiting()
    app.state.growth = overview.Growth()
    app.state.exports = training_data.Exports()
    app.state.routers = (
        entry.router,
        overview.router,
        jobs.router,
        withdrawals.router,
        live.router,
        openid.router,
        *api.ROUTERS,
        metrics.router,
        intake.router,
        rulebook.router,
        peers.router,
        model.router,
        people.router,
        trail.router,
        site.router,
        viewer_api.router,
        reviews.router,
        training_data.router,
        studies.router,
        questions.router,
    )
    for router in app.state.routers:
        app.include_router(router, responses=api.REFUSALS)
    app.mount(assets.folder_address(), assets.Assets(), name="static")
    answer_errors(app)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders, secure=_is_secure(node))
    return app


def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette answers these outside of all middleware, `SecurityHeaders` included.
    response = unexpected(request, error)
    response.headers.update({**_SECURITY_HEADERS, "Cache-Control": "no-store"})
    return response


def _is_secure(node: Node) -> bool:
    settings = node.settings.dashboard
    return settings.certificate is not None or (settings.public_url or "").startswith("https://")


class SecurityHeaders:
    """Adds the headers that keep a browser on the safe side to every answer.

    Pages are never kept by caches: they name patients.
    """

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        self._headers = dict(_SECURITY_HEADERS)
        if secure:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = {**self._headers, "Cache-Control": "no-store"}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in extra.items()
                        if name.lower().encode() not in present
                    ),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)
