"""The description of the interface: OpenAPI, and a page of it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from dashboard.access import Viewer, require
from dashboard.rendering import render
from db.models_access import Role

router = APIRouter(prefix="/api")


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request, actor: Viewer) -> Response:
    """Return the OpenAPI description."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
def docs(request: Request, actor: Viewer) -> Response:
    """Show what there is, without any script from elsewhere."""
    return render(request, "api.html", groups=described(request))


def described(request: Request) -> dict[str, list[dict[str, Any]]]:
    """Group the routes of the description by tag, each with the role that it needs."""
    roles = {
        (method, route.path): role_of(route)
        for route in api_routes(request.app)
        for method in route.methods or ()
    }
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in request.app.openapi()["paths"].items():
        for method, told in methods.items():
            groups.setdefault((told.get("tags") or ["other"])[0], []).append(
                {"method": method.upper(), "path": path, "summary": told.get("description", ""),
                 "role": roles.get((method.upper(), path), ""),
                 "parameters": [one["name"] for one in told.get("parameters", [])]}
            )  # fmt: skip
    return groups


def api_routes(app: Any) -> list[APIRoute]:
    """Return all routes of the application."""
    return [
        route
        for router in app.state.routers
        for route in router.routes
        if isinstance(route, APIRoute)
    ]


def role_of(route: APIRoute) -> str:
    """Return the role that a route asks for; empty where it asks for none."""
    needs = [one.call.role for one in route.dependant.dependencies if isinstance(one.call, require)]
    return str(max(needs, key=list(Role).index)) if needs else ""
