"""The API: each route as everybody, and as its description says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from dashboard.api.description import api_routes, role_of
from db.accounts import add_user, change_user, list_users
from db.audit import audit_page
from db.catalog import add_quarantined
from db.models_access import Role
from db.operation import quarantine_page
from db.tokens import add_token
from tests.dashboard.conftest import Browser
from tests.factories import write_ct_series
from tests.workflows.nodes import encoded_job
from tests.workflows.whole_node import ct_volume, take_in
from workflows.node import Node

OPEN = {
    ("GET", "/login"), ("POST", "/login"), ("GET", "/site.css"),
    ("GET", "/invitation/{secret}"), ("POST", "/invitation/{secret}"),
    ("GET", "/openid"), ("GET", "/openid/return"),
}  # fmt: skip
"""What people need before they are logged in; everything else names a role."""

ROLES_OF_THE_API = {
    "GET /api/jobs": "viewer",
    "GET /api/jobs/{job_id}": "viewer",
    "POST /api/jobs/orders": "operator",
    "POST /api/jobs/{job_id}/withdrawal": "operator",
    "GET /api/failures": "viewer",
    "GET /api/studies": "viewer",
    "GET /api/studies/{study_id}": "viewer",
    "GET /api/overview": "viewer",
    "GET /api/model": "viewer",
    "GET /api/settings": "admin",
    "POST /api/settings/reload": "admin",
    "GET /api/quarantine": "operator",
    "GET /api/quarantine/{number}/header": "operator",
    "POST /api/quarantine/{number}/reinject": "operator",
    "POST /api/quarantine/{number}/discard": "operator",
    "GET /api/rules": "viewer",
    "GET /api/rules/versions/{number}": "viewer",
    "POST /api/rules/try": "operator",
    "POST /api/rules/try/file": "operator",
    "PUT /api/rules": "admin",
    "GET /api/peers": "operator",
    "POST /api/peers/{name}/echo": "operator",
    "POST /api/peers/{name}/probe": "operator",
    "GET /api/me": "viewer",
    "GET /api/tokens": "viewer",
    "POST /api/tokens": "viewer",
    "DELETE /api/tokens/{number}": "viewer",
    "GET /api/people": "admin",
    "POST /api/people/invitations": "admin",
    "PUT /api/people/{number}": "admin",
    "POST /api/people/{number}/unlock": "admin",
    "GET /api/audit": "admin",
    "GET /api/audit/chain": "admin",
    "GET /api/audit/collectors": "admin",
    "GET /api/openapi.json": "viewer",
    "GET /api/docs": "viewer",
    "GET /metrics": "viewer",
    "GET /api/jobs/{job_id}/scene": "viewer",
    "GET /api/jobs/{job_id}/frames/{index}": "viewer",
    "GET /api/jobs/{job_id}/masks": "viewer",
    "GET /api/jobs/{job_id}/picture.png": "viewer",
    "GET /api/jobs/{job_id}/report.pdf": "viewer",
    "GET /api/jobs/{job_id}/results/{position}/file": "viewer",
    "GET /api/jobs/{job_id}/results/{position}/tree": "viewer",
    "POST /api/jobs/{job_id}/findings/{position}/review": "operator",
    "GET /api/jobs/{job_id}/reviews": "viewer",
    "GET /api/agreement": "viewer",
    "GET /api/training-data": "admin",
    "GET /api/training-data.zip": "admin",
    "GET /api/series/{series_id}": "viewer",
    "GET /api/series/{series_id}/parts/{part}/scene": "viewer",
    "GET /api/series/{series_id}/parts/{part}/frames/{index}": "viewer",
    "GET /api/series/{series_id}/picture.png": "viewer",
    "POST /api/series/{series_id}/parts/{part}/questions": "operator",
    "GET /api/series/{series_id}/parts/{part}/questions": "operator",
    "GET /api/questions/{question_id}": "operator",
    "GET /api/questions/{question_id}/masks": "viewer",
    "POST /api/questions/{question_id}/cancel": "operator",
    "POST /api/questions/{question_id}/send": "operator",
}


def calls(app: FastAPI) -> list[tuple[str, APIRoute]]:
    return [(method, route) for route in api_routes(app) for method in sorted(route.methods or ())]


def token_for(node: Node, role: Role) -> dict[str, str]:
    with node.database.session() as session:
        user = add_user(session, f"program-{role}", role, node.now())
        secret = add_token(session, user.id, "test", role, node.now(), 1).secret
    return {"Authorization": f"Bearer {secret}"}


def test_the_table_of_roles_is_what_the_routes_ask_for(app: FastAPI) -> None:
    found = {
        f"{method} {route.path}": role_of(route)
        for method, route in calls(app)
        if route.path.startswith("/api/") or route.path == "/metrics"
    }
    assert found == ROLES_OF_THE_API


def test_no_route_is_open_but_those_of_the_entry(app: FastAPI) -> None:
    open_routes = {(method, route.path) for method, route in calls(app) if not role_of(route)}
    assert open_routes <= OPEN


@pytest.mark.parametrize("role", [None, *Role])
def test_each_route_refuses_all_whose_role_is_too_small(
    app: FastAPI, node: Node, role: Role | None
) -> None:
    """Each route, as nobody, viewer, operator and admin; what is allowed may fail otherwise."""
    client = TestClient(app, follow_redirects=False, raise_server_exceptions=True)
    headers = token_for(node, role) if role else {}
    tried = 0
    for method, route in calls(app):
        needed = role_of(route)
        if not needed or route.path == "/live":
            continue
        address = route.path
        for name in route.param_convertors:
            address = address.replace(f"{{{name}}}", "999999")
        answer = client.request(method, address, headers=headers)
        what = (method, address, role, answer.status_code)
        if role is None:
            login = answer.headers.get("location", "").startswith("/login")
            assert answer.status_code == 401 or (answer.status_code == 303 and login), what
        elif not role.may(Role(needed)):
            assert answer.status_code == 403, what
        else:
            assert answer.status_code not in (401, 403), what
        tried += 1
    assert tried > 50


def test_lists_are_paged_by_key(node: Node, app: FastAPI) -> None:
    made = [encoded_job(node, [], study=f"1.2.{number}") for number in range(1, 6)]
    client = TestClient(app, headers=token_for(node, Role.VIEWER))
    seen: list[int] = []
    before: int | None = None
    while True:
        params: dict[str, Any] = {"limit": 2} | ({"before": before} if before else {})
        page = client.get("/api/jobs", params=params).json()
        seen += [job["id"] for job in page["jobs"]]
        before = page["next_before"]
        if before is None:
            break
    assert seen == sorted(made, reverse=True)


def test_a_program_finds_the_series_of_a_study(node: Node, app: FastAPI) -> None:
    for number in (1, 2, 3):
        encoded_job(node, [], study=f"1.2.{number}")
    client = TestClient(app, headers=token_for(node, Role.VIEWER))
    first = client.get("/api/studies", params={"limit": 2}).json()
    rest = client.get("/api/studies", params={"before": first["next_before"]}).json()
    listed = [one["study_instance_uid"] for one in first["studies"] + rest["studies"]]
    assert listed == ["1.2.3", "1.2.2", "1.2.1"] and rest["next_before"] is None
    (found,) = client.get("/api/studies", params={"search": "1.2.2"}).json()["studies"]
    study = client.get(f"/api/studies/{found['id']}").json()
    (series,) = study["series"]
    assert series["series_instance_uid"] == "1.2.2.1" and series["instances"] == 1
    assert client.get("/api/studies/77").status_code == 404
    with node.database.reading() as session:
        actions = [one.action for one in audit_page(session).records]
    assert actions == ["study.view", "studies.list", "studies.list", "studies.list"]
    for address in ("/studies", "/api/studies"):
        assert client.get(address, params={"before": 10**30}).status_code == 422


def test_a_program_looks_into_quarantine_and_deletes(node: Node, app: FastAPI) -> None:
    path = node.archive.quarantine(b"x", "could not be read", {})
    with node.database.session() as session:
        add_quarantined(
            session, path=node.archive.relative(path), reason="x", received_at=node.now()
        )
        number = quarantine_page(session)[0][0].id
    client = TestClient(app, headers=token_for(node, Role.OPERATOR))
    assert client.get(f"/api/quarantine/{number}/header").json()["problem"]
    assert client.post(f"/api/quarantine/{number}/discard").status_code == 204
    assert not path.exists()
    assert client.post(f"/api/quarantine/{number}/discard").status_code == 409


def test_a_token_is_no_more_than_its_owner(node: Node, app: FastAPI, browser: Browser) -> None:
    headers = token_for(node, Role.ADMIN)
    client = TestClient(app)
    assert client.get("/api/people", headers=headers).status_code == 200
    with node.database.session() as session:
        add_user(session, "other", Role.ADMIN, node.now())
        owner = next(one for one in list_users(session) if one.name == "program-admin")
        change_user(session, owner.id, role=Role.VIEWER, enabled=True)
    assert client.get("/api/people", headers=headers).status_code == 403
    assert client.get("/api/me", headers=headers).json()["role"] == "viewer"
    with node.database.session() as session:
        change_user(session, owner.id, role=Role.VIEWER, enabled=False)
    assert client.get("/api/me", headers=headers).status_code == 401


def test_metrics_are_read_by_a_scraper(node: Node, app: FastAPI) -> None:
    encoded_job(node, [])
    client = TestClient(app, headers=token_for(node, Role.VIEWER))
    text = client.get("/metrics").text
    assert 'unibiomed_jobs{state="delivering"} 1.0' in text
    assert "unibiomed_disk_free_bytes" in text
    newer = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert newer.text.endswith("# EOF\n")


def test_a_program_makes_and_ends_tokens(node: Node, app: FastAPI) -> None:
    client = TestClient(app, headers=token_for(node, Role.OPERATOR))
    made = client.post("/api/tokens", json={"label": "scraper", "role": "viewer"})
    assert made.status_code == 201
    token = made.json()
    scraper = TestClient(app, headers={"Authorization": f"Bearer {token['token']}"})
    assert token["used_at"] is None
    assert scraper.get("/api/me").json()["role"] == "viewer"
    listed = client.get("/api/tokens").json()
    assert all(one["used_at"] for one in listed)
    assert [one["label"] for one in listed] == ["test", "scraper"]
    assert token["token"] not in str(listed)
    # Neither more, nor longer than the token that asks, which is good for a day.
    assert token["expires_at"] == listed[0]["expires_at"]
    more = client.post("/api/tokens", json={"label": "x", "role": "admin"})
    longer = client.post("/api/tokens", json={"label": "x", "role": "viewer", "days": 30})
    assert (more.status_code, longer.status_code) == (409, 409)
    assert "lives longer" in longer.json()["detail"]
    stronger = scraper.delete(f"/api/tokens/{listed[0]['id']}")
    assert stronger.status_code == 409 and "ends none that is operator" in stronger.text
    assert client.delete(f"/api/tokens/{token['id']}").status_code == 204
    assert client.delete(f"/api/tokens/{token['id']}").status_code == 404
    assert scraper.get("/api/me").status_code == 401
    with node.database.reading() as session:
        actions = [one.action for one in audit_page(session).records]
    assert actions == ["token.remove", "token.add"]


def test_a_token_of_somebody_else_is_not_there(node: Node, app: FastAPI) -> None:
    other = TestClient(app, headers=token_for(node, Role.VIEWER))
    number = other.get("/api/tokens").json()[0]["id"]
    client = TestClient(app, headers=token_for(node, Role.ADMIN))
    assert client.delete(f"/api/tokens/{number}").status_code == 404
    assert other.get("/api/me").status_code == 200


def test_a_program_has_the_settings_read_again(node: Node, app: FastAPI) -> None:
    client = TestClient(app, headers=token_for(node, Role.ADMIN))
    text = node.home.node_yaml.read_text()
    node.home.node_yaml.write_text(text.replace('site: ""', "site: Test bench"))
    assert client.post("/api/settings/reload").status_code == 202
    settings = client.get("/api/settings").json()["settings"]
    assert settings["dashboard"]["site"] == "Test bench"
    node.home.node_yaml.write_text(text.replace('site: ""', "sight: Test bench"))
    refused = client.post("/api/settings/reload")
    assert refused.status_code == 409
    assert "node.yaml" in refused.json()["detail"] and "sight" in refused.json()["detail"]
    assert client.get("/api/settings").json()["settings"]["dashboard"]["site"] == "Test bench"
    with node.database.reading() as session:
        records = audit_page(session, action="settings.reload").records
    assert [one.outcome for one in records] == ["refused", "success"]


def test_a_program_tries_rules_on_a_file(node: Node, app: FastAPI, tmp_path: Path) -> None:
    client = TestClient(app, headers=token_for(node, Role.OPERATOR))
    (image, *_) = write_ct_series(tmp_path / "ct", ct_volume())
    rules = "rules:\n  - name: only MR\n    series: {modality: MR}\n"
    with image.open("rb") as file:
        answer = client.post("/api/rules/try/file", data={"text": rules}, files={"file": file})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["jobs"] == [] and told["left_out"][0]["rule"] == "only MR"
    junk = {"file": ("x.dcm", b"junk" * 99)}
    answer = client.post("/api/rules/try/file", data={"text": rules}, files=junk)
    assert answer.status_code == 422 and "no DICOM file" in answer.json()["detail"]


def test_a_program_learns_the_parts_of_a_series(node: Node, app: FastAPI, tmp_path: Path) -> None:
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    client = TestClient(app, headers=token_for(node, Role.VIEWER))
    study = client.get("/api/studies").json()["studies"][0]["id"]
    (series,) = client.get(f"/api/studies/{study}").json()["series"]
    found = client.get(f"/api/series/{series['id']}").json()
    (part,) = found["parts"]
    assert found["study"] == study and part["kind"] == "volume" and part["modality"] == "CT"
    address = f"/api/series/{series['id']}/parts/{part['part']}/scene"
    assert client.get(address).json()["frames"] == part["frames"]
    assert client.get("/api/series/77").status_code == 404


UNDESCRIBED = {"/metrics", "/api/docs", "/api/openapi.json"}
PATHS = {key.split()[1] for key in ROLES_OF_THE_API} - UNDESCRIBED


def test_random_requests_get_the_answers_that_the_description_names(
    node: Node, app: FastAPI
) -> None:
    # By hand, not by its pytest plugin, which does not know this version of pytest.
    encoded_job(node, ["pacs"])
    headers = token_for(node, Role.ADMIN)
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=headers)
    operations = [one.ok() for one in schema.get_all_operations() if isinstance(one, Ok)]
    asked = set()
    for operation in operations:
        if operation.path not in PATHS:
            continue
        asked.add(operation.path)

        @settings(
            max_examples=5, deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            # The text of rules, and the task of a question, are languages of their own, which a
            # schema of JSON does not tell.
            own_language = "rules" in case.path or "questions" in case.path
            excluded = [positive_data_acceptance] if own_language else []
            case.call_and_validate(headers=headers, excluded_checks=excluded)

        ask()
    assert asked == PATHS
