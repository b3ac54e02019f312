"""A dashboard on a real database and archive, asked without a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.testclient import TestClient

from dashboard.app import create_app
from db.accounts import add_user
from db.models_access import Role
from db.session import Database
from tests.databases import *  # noqa: F403
from tests.workflows.nodes import Clock, make_node
from workflows.node import Node

PASSWORD = "correct horse battery"
Browser = Callable[[Role | None], TestClient]


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with argon2id as the node does, but in a millisecond: nearly every test here logs in.

    What a real hash costs, and that it is renewed, tests/db/test_passwords.py holds.
    """
    quick = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr("db.passwords._HASHER", quick)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(tmp_path: Path, sqlite_database: Database, clock: Clock) -> Node:
    node = make_node(tmp_path, sqlite_database, clock)
    node.home.write_defaults()
    return node


@pytest.fixture
def app(node: Node) -> FastAPI:
    return create_app(node)


@pytest.fixture
def browser(app: FastAPI, node: Node) -> Iterator[Browser]:
    """Give a client that is logged in with a role, or not at all."""
    opened: list[TestClient] = []

    def enter(role: Role | None = None) -> TestClient:
        client = TestClient(app, follow_redirects=False)
        opened.append(client)
        if role is not None:
            with node.database.session() as session:
                add_user(session, str(role), role, node.now(), password=PASSWORD)
            answer = client.post("/login", data={"name": str(role), "password": PASSWORD})
            assert answer.status_code == 303
        return client

    yield enter
    for client in opened:
        client.close()


def csrf_of(client: TestClient) -> str:
    """Return what forms of this session bring along."""
    found = re.search(r'<meta name="csrf" content="([^"]*)"', client.get("/jobs").text)
    assert found is not None
    return found[1]
