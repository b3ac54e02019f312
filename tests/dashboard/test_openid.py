"""Login by OpenID Connect against a provider that really signs, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from dashboard.app import create_app
from tests.workflows.nodes import Clock, make_node
from workflows.node import Node

KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})


class Provider(ThreadingHTTPServer):
    """An issuer of ID tokens: discovery, keys, and codes that work once with their verifier."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.key = KEY
        self.claims: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}

    def consent(self, address: str) -> tuple[str, str]:
        """Do what a person does at the provider's page; return state and code."""
        query = {key: value[0] for key, value in parse_qs(urlsplit(address).query).items()}
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return query["state"], code


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        issuer = self.server.issuer
        if self.path == "/keys":
            self._answer({"keys": [KEY.as_dict(private=False)]})
        else:
            self._answer({
                "issuer": issuer, "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token", "jwks_uri": f"{issuer}/keys",
            })  # fmt: skip

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        form = {key: value[0] for key, value in parse_qs(body).items()}
        asked = self.server.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or challenge != asked["code_challenge"]:
            self._answer({"error": "invalid_grant"}, 400)
            return
        now = int(time.time())
        claims = {
            "iss": self.server.issuer, "aud": "node", "sub": "42", "nonce": asked["nonce"],
            "iat": now, "exp": now + 300, "preferred_username": "ada", "groups": ["radiology"],
            **self.server.claims,
        }  # fmt: skip
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.server.key)
        self._answer({"access_token": "x", "token_type": "Bearer", "id_token": token})

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def provider() -> Iterator[Provider]:
    running = Provider()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def client(provider: Provider, tmp_path: Any, sqlite_database: Any) -> Iterator[TestClient]:
    openid = {
        "issuer": provider.issuer, "client_id": "node", "client_secret": "s",
        "roles": {"radiology": "viewer", "it": "admin"},
    }  # fmt: skip
    node: Node = make_node(tmp_path, sqlite_database, Clock(), dashboard={"openid": openid})
    node.home.write_defaults()
    with TestClient(create_app(node), follow_redirects=False) as client:
        yield client


def come_back(client: TestClient, provider: Provider) -> Any:
    begun = client.get("/openid?next=/jobs")
    state, code = provider.consent(begun.headers["location"])
    return client.get("/openid/return", params={"state": state, "code": code})


def test_a_group_of_the_provider_is_a_role_here(client: TestClient, provider: Provider) -> None:
    assert "Single sign-on" in client.get("/login").text
    answer = come_back(client, provider)
    assert answer.headers["location"] == "/jobs"
    assert client.get("/api/me").json() == {"name": "ada", "role": "viewer", "by_token": False}
    provider.claims = {"groups": ["it", "radiology"]}
    come_back(client, provider)
    assert client.get("/api/me").json()["role"] == "admin"


@pytest.mark.parametrize(
    "claims",
    [
        {"groups": ["cleaning"]},
        {"groups": []},
        {"aud": "another"},
        {"nonce": "another"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1},
    ],
)
def test_what_the_provider_does_not_vouch_for_is_refused(
    client: TestClient, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.claims = claims
    assert come_back(client, provider).headers["location"] == "/login"
    assert client.get("/").status_code == 303


def test_a_token_signed_by_somebody_else_is_refused(client: TestClient, provider: Provider) -> None:
    provider.key = RSAKey.generate_key(2048, {"kid": "one"})
    assert come_back(client, provider).headers["location"] == "/login"


def test_a_code_works_once_and_only_in_the_browser_that_began(
    client: TestClient, provider: Provider
) -> None:
    begun = client.get("/openid")
    state, code = provider.consent(begun.headers["location"])
    other = TestClient(client.app, follow_redirects=False)
    params = {"state": state, "code": code}
    assert other.get("/openid/return", params=params).headers["location"] == "/login"
    assert client.get("/openid/return", params=params).headers["location"] == "/"
    assert client.get("/openid/return", params=params).headers["location"] == "/login"


def test_a_provider_that_is_away_is_said(client: TestClient, provider: Provider) -> None:
    provider.shutdown()
    provider.server_close()
    answer = client.get("/openid")
    assert answer.headers["location"] == "/login"
    assert "does%20not%20answer" in answer.headers["set-cookie"]
