from __future__ import annotations

import base64
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from dashboard.app import create_app
from dashboard.entry import local_target
from dashboard.server import configured
from db.accounts import invite_first_admin
from db.audit import audit_page
from db.login_hosts import counted_host
from db.models_access import Role
from db.passwords import Proof, prove
from db.session import Database
from tests.dashboard.conftest import PASSWORD, Browser, csrf_of
from tests.workflows.nodes import Clock
from workflows.dashboard_settings import DashboardSettings
from workflows.node import Node

DETAIL = "ParticipantObjectDetail"


def test_without_login_a_page_leads_to_the_login_and_back(browser: Browser) -> None:
    client = browser(None)
    answer = client.get("/jobs?state=failed")
    assert answer.headers["location"] == "/login?next=%2Fjobs%3Fstate%3Dfailed"
    assert client.get("/jobs/7", headers={"X-Live": "1"}).status_code == 401


def test_the_first_admin_comes_by_a_link_that_works_once(app: FastAPI, node: Node) -> None:
    with node.database.session() as session:
        secret = invite_first_admin(session, node.now())
    client = TestClient(app, follow_redirects=False)
    form = {"name": "Ada", "password": PASSWORD, "again": PASSWORD}
    assert client.post(f"/invitation/{secret}", data=form).status_code == 303
    assert "Ada" in client.get("/").text
    other = {**form, "name": "Eve"}
    assert client.post(f"/invitation/{secret}", data=other).status_code == 400
    with node.database.session() as session:
        assert invite_first_admin(session, node.now()) is None


def test_five_wrong_passwords_lock_the_account_for_a_quarter_of_an_hour(
    browser: Browser, clock: Clock
) -> None:
    browser(Role.VIEWER)
    client = browser(None)
    wrong = {"name": "viewer", "password": "wrong"}
    right = {"name": "viewer", "password": PASSWORD}
    for _ in range(5):
        assert client.post("/login", data=wrong).status_code == 401
    assert client.post("/login", data=right).status_code == 401
    clock.forward(15 * 60)
    assert client.post("/login", data=right).status_code == 303


def test_many_wrong_passwords_from_one_address_are_enough(
    browser: Browser, node: Node, clock: Clock
) -> None:
    """Also where each is for another name, and asked of another process of the dashboard."""
    inside = browser(Role.VIEWER)
    right = {"name": "viewer", "password": PASSWORD}
    doors = [TestClient(create_app(node), client=("192.0.2.7", 1)) for _ in range(2)]
    for number in range(19):
        wrong = {"name": f"person{number}", "password": "wrong"}
        assert doors[number % 2].post("/login", data=wrong).status_code == 401
        clock.forward(10)
    last = doors[0].post("/login", data={"name": "viewer", "password": "wrong"})
    assert last.status_code == 429
    for door in doors:
        answer = door.post("/login", data=right)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "900")
        assert "may try again at" in answer.text
    assert inside.get("/").status_code == 200
    other = TestClient(create_app(node), client=("192.0.2.8", 1), follow_redirects=False)
    assert other.post("/login", data=right).status_code == 303
    clock.forward(900)
    assert doors[1].post("/login", data=right, follow_redirects=False).status_code == 303
    with node.database.reading() as session:
        (blocked,) = audit_page(session, action="login.blocked").records
    assert (blocked.target, blocked.host, blocked.outcome) == ("192.0.2.7", "192.0.2.7", "refused")
    assert blocked.details["failures"] == 20


def test_failures_that_are_long_ago_do_not_count(browser: Browser, clock: Clock) -> None:
    client = browser(None)
    for number in range(40):
        wrong = {"name": f"person{number}", "password": "wrong"}
        assert client.post("/login", data=wrong).status_code == 401
        clock.forward(60)


@pytest.mark.parametrize(
    ("proxies", "caller", "seen"),
    [
        (["10.0.0.0/8"], "10.1.2.3", "203.0.113.9"),
        (["10.0.0.0/8"], "192.0.2.7", "192.0.2.7"),  # anybody may write the header
        ([], "127.0.0.1", "127.0.0.1"),
    ],
)
def test_only_known_proxies_say_who_calls(
    app: FastAPI, node: Node, proxies: list[str], caller: str, seen: str
) -> None:
    settings = DashboardSettings.model_validate(
        {"public_url": "https://node.example.org", "proxies": proxies}
    )
    config = configured(app, settings)
    config.load()
    client = TestClient(config.loaded_app, client=(caller, 1))
    wrong = {"name": "somebody", "password": "wrong"}
    client.post("/login", data=wrong, headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"})
    with node.database.reading() as session:
        assert audit_page(session).records[0].host == seen


def test_a_proxy_that_is_not_known_is_told_of_when_it_waits(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    settings = DashboardSettings.model_validate(
        {"public_url": "https://node.example.org", "failed_logins_per_host": 1}
    )
    values = node.settings.model_copy(update={"dashboard": settings})
    node = node.with_configuration(replace(node.configuration, settings=values))
    config = configured(create_app(node), settings)
    config.load()
    wrong = {"name": "somebody", "password": "wrong"}
    said = []
    for caller in ("127.0.0.1", "192.0.2.7"):
        caplog.clear()
        client = TestClient(config.loaded_app, client=(caller, 1))
        answer = client.post("/login", data=wrong, headers={"X-Forwarded-For": "198.51.100.1"})
        assert answer.status_code == 429
        said.append(caplog.text)
    assert "198.51.100.1 waits after 1 wrong passwords" in said[0]
    assert "192.0.2.7 waits" in said[1]
    assert ["dashboard.proxies" in text for text in said] == [False, True]


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("x" * 99, "x" * 64),
    ],
)
def test_what_one_host_may_have_is_counted_as_one(address: str, counted: str) -> None:
    assert counted_host(address) == counted


def test_a_password_is_checked_while_others_write(
    browser: Browser, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = browser(Role.VIEWER)
    other = Database(node.database.url, busy_seconds=0.1)
    checks = 0

    def check(stored: str, password: str) -> Proof:
        nonlocal checks
        with other.session():  # would end with "locked" beside a login that holds the database
            checks += 1
        return prove(stored, password)

    monkeypatch.setattr("dashboard.entry.prove", check)
    for name, status in (("viewer", 303), ("nobody", 401)):
        answer = client.post("/login", data={"name": name, "password": PASSWORD})
        assert answer.status_code == status
    other.dispose()
    assert checks == 2


def test_a_session_ends_by_logout_by_idleness_and_by_age(browser: Browser, clock: Clock) -> None:
    client = browser(Role.VIEWER)
    for _ in range(13):
        clock.forward(3500)
        if client.get("/").status_code != 200:
            break
    else:
        pytest.fail("the session never became too old")
    client.post("/login", data={"name": "viewer", "password": PASSWORD})
    clock.forward(3601)
    assert client.get("/").status_code == 303
    client.post("/login", data={"name": "viewer", "password": PASSWORD})
    client.post("/logout", data={"csrf": csrf_of(client)})
    assert client.get("/").status_code == 303


def test_forged_requests_are_refused(browser: Browser) -> None:
    client = browser(Role.ADMIN)
    csrf = csrf_of(client)
    assert client.post("/logout").status_code == 403
    assert client.post("/logout", data={"csrf": "x"}).status_code == 403
    foreign = {"Origin": "http://elsewhere.example"}
    assert client.post("/logout", data={"csrf": csrf}, headers=foreign).status_code == 403
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/logout", data={"csrf": csrf}, headers=cross).status_code == 403
    login = {"name": "admin", "password": PASSWORD}
    assert client.post("/login", data=login, headers=cross).status_code == 403
    assert client.post("/logout", data={"csrf": csrf}).status_code == 303


def test_cookies_and_headers_keep_the_browser_on_the_safe_side(browser: Browser) -> None:
    client = browser(Role.VIEWER)
    answer = client.post("/login", data={"name": "viewer", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    page = client.get("/")
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil", "x", ""])
def test_login_leads_to_no_other_host(target: str) -> None:
    assert local_target(target) == "/"


def test_logins_are_in_the_audit_trail(browser: Browser, node: Node) -> None:
    client = browser(Role.VIEWER)
    client.post("/login", data={"name": "viewer", "password": "wrong"})
    with node.database.reading() as session:
        found = [(one.account, one.action, one.outcome) for one in audit_page(session).records]
    assert found == [("viewer", "login", "refused"), ("viewer", "login", "success")]


def test_audit_messages_are_written_as_dicom_words_them(browser: Browser, node: Node) -> None:
    client = browser(Role.VIEWER)
    client.post("/login", data={"name": "<b>&", "password": "wrong"})
    lines = (node.home.log / "audit.log").read_text().splitlines()
    messages = [ElementTree.fromstring(line) for line in lines]
    codes = [one.find("EventIdentification/EventID").attrib["csd-code"] for one in messages]  # type: ignore[union-attr]
    assert codes == ["110114", "110114"]
    who = [one.find("ActiveParticipant").attrib["UserID"] for one in messages]  # type: ignore[union-attr]
    assert who == ["viewer", "<b>&"]
    told = [
        {base64.b64decode(detail.attrib["value"]).decode() for detail in one.iter(DETAIL)}
        for one in messages
    ]
    with node.database.reading() as session:
        kept = [one.digest for one in audit_page(session).records]
    assert all(digest in details for digest, details in zip(reversed(kept), told, strict=True))
