"""The first page: what came in, what waits, what runs, what failed, what was delivered."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.access import NodeOf, Viewer
from dashboard.rendering import render
from db.figures import state_counts

router = APIRouter(include_in_schema=False)


@router.get("/")
def overview(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """Show the node at a glance."""
    with node.database.reading() as session:
        counts = state_counts(session)
    return render(request, "overview.html", counts=counts)


@router.get("/site.css")
def site_colour(node: NodeOf) -> Response:
    """Give the site's colour, and black or white on it, whichever is read better (WCAG 2.2)."""
    colour = node.settings.dashboard.colour
    on_site = "#ffffff" if _luminance(colour) < 0.183 else "#10181d"
    return Response(f":root {{ --site: {colour}; --on-site: {on_site}; }}\n", media_type="text/css")


def _luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.2, definition of relative luminance)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
