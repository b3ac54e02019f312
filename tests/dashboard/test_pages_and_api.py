"""All that the pages do, the API does: a page without its route in the API fails here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from dashboard.api.description import api_routes, role_of


@dataclass(frozen=True)
class By:
    """The routes of the API that do what a page does.

    `named` says how the API calls a field of the form or address; None: only a page needs it, since
    it is about how the page looks or where it leads.
    """

    routes: tuple[str, ...]
    named: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class NotThere:
    """Why the API has nothing for it."""

    because: str


def by(*routes: str, **named: str | None) -> By:
    return By(routes, named)


FOR_PEOPLE = "programs bring a token with each request and need no login"
PASSWORDS = "a password is a person's: by a token nobody may take an account over"

PAGES: dict[str, By | NotThere] = {
    # In and out
    "GET /login": NotThere(FOR_PEOPLE),
    "POST /login": NotThere(FOR_PEOPLE),
    "POST /logout": NotThere(FOR_PEOPLE),
    "GET /openid": NotThere(FOR_PEOPLE),
    "GET /openid/return": NotThere(FOR_PEOPLE),
    "GET /invitation/{secret}": NotThere(PASSWORDS),
    "POST /invitation/{secret}": NotThere(PASSWORDS),
    # How pages look, and that they hear of changes
    "GET /site.css": NotThere("the colour of the pages"),
    "GET /live": NotThere("it refreshes open pages; programs ask for a list, or set up notices"),
    "POST /account/patients": NotThere("what the pages show of patients; the API has them always"),
    # Reading
    "GET /": by("GET /api/overview"),
    "GET /jobs": by("GET /api/jobs", since="received_since"),
    "GET /jobs/{job_id}": by("GET /api/jobs/{job_id}", "GET /api/jobs/{job_id}/scene"),
    "GET /jobs/{job_id}/ask": by("GET /api/studies", "GET /api/studies/{study_id}"),
    "GET /failures": by("GET /api/failures"),
    "GET /studies": by("GET /api/studies"),
    "GET /studies/{study_id}": by("GET /api/studies/{study_id}"),
    "GET /series/{series_id}": by("GET /api/series/{series_id}", part=None),
    "GET /quarantine": by("GET /api/quarantine"),
    "GET /quarantine/{number}": by("GET /api/quarantine/{number}/header"),
    "GET /rules": by("GET /api/rules"),
    "GET /rules/try": NotThere("it leads from the address of a trial back to the editor"),
    "GET /rules/{number}": by("GET /api/rules/versions/{number}"),
    "GET /peers": by("GET /api/peers"),
    "GET /model": by("GET /api/model"),
    "GET /people": by("GET /api/people"),
    "GET /account": by("GET /api/me", "GET /api/tokens"),
    "GET /audit": by("GET /api/audit", "GET /api/audit/collectors"),
    "GET /settings": by("GET /api/settings"),
    "GET /agreement": by("GET /api/agreement"),
    # Doing
    "POST /jobs/orders": by("POST /api/jobs/orders", job="jobs", back=None),
    "POST /jobs/{job_id}/withdrawal": by("POST /api/jobs/{job_id}/withdrawal"),
    "POST /quarantine/{number}/reinject": by("POST /api/quarantine/{number}/reinject"),
    "POST /quarantine/{number}/discard": by("POST /api/quarantine/{number}/discard"),
    "POST /rules": by("PUT /api/rules"),
    "POST /rules/try": by("POST /api/rules/try", "POST /api/rules/try/file"),
    "POST /peers/{name}/echo": by("POST /api/peers/{name}/echo"),
    "POST /peers/{name}/probe": by("POST /api/peers/{name}/probe"),
    "POST /people/invite": by("POST /api/people/invitations"),
    "POST /people/{number}": by("PUT /api/people/{number}"),
    "POST /people/{number}/unlock": by("POST /api/people/{number}/unlock"),
    "POST /account/password": NotThere(PASSWORDS),
    "POST /account/tokens": by("POST /api/tokens"),
    "POST /account/tokens/{number}/remove": by("DELETE /api/tokens/{number}"),
    "POST /audit/check": by("GET /api/audit/chain"),
    "POST /settings/reload": by("POST /api/settings/reload"),
}


def routes_of(app: FastAPI) -> dict[str, APIRoute]:
    return {
        f"{method} {route.path}": route
        for route in api_routes(app)
        for method in sorted(route.methods or ())
    }


def is_page(key: str) -> bool:
    path = key.split()[1]
    return not path.startswith("/api/") and path != "/metrics"


def fields_of(route: APIRoute) -> set[str]:
    """Name what a route takes beside its path: of the address, of a form, of a JSON body."""
    names = {one.alias for one in route.dependant.query_params}
    for one in route.dependant.body_params:
        model: Any = one.field_info.annotation
        is_model = isinstance(model, type) and issubclass(model, BaseModel)
        names |= set(model.model_fields) if is_model else {one.alias}
    return names


def test_each_page_names_its_route_in_the_api_or_why_there_is_none(app: FastAPI) -> None:
    assert {key for key in routes_of(app) if is_page(key)} == set(PAGES)
    assert all(one.because for one in PAGES.values() if isinstance(one, NotThere))


def test_the_api_takes_what_the_page_takes_from_the_same_people(app: FastAPI) -> None:
    """Each field of a form or address has its counterpart, and no other role is asked for."""
    routes = routes_of(app)
    for key, told in PAGES.items():
        if not isinstance(told, By):
            continue
        there = [routes[one] for one in told.routes]
        taken = set().union(*(fields_of(one) for one in there))
        for name in fields_of(routes[key]):
            counterpart = told.named.get(name, name)
            assert counterpart is None or counterpart in taken, f"{key}: {name}"
        unused = set(told.named) - fields_of(routes[key])
        assert not unused, f"{key} has no {unused}"
        if key != "GET /jobs/{job_id}/ask":  # leads to what a viewer sees, for those who may ask
            assert {role_of(one) for one in there} == {role_of(routes[key])}, key
