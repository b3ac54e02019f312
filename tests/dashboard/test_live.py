"""The stream of events of a real server, and when it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from db.accounts import add_user, change_password, change_user
from db.models_access import Role
from db.tokens import add_token
from tests.dashboard.conftest import PASSWORD
from tests.workflows.nodes import Clock, encoded_job
from workflows.node import Node

PEOPLE = ("leaves", "is shut", "rises", "changes the password", "rests", "stays")


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    """Serve the pages on a port of the system's choice."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def names(response: Iterator[str]) -> Iterator[str]:
    """Name the events of a stream until it ends."""
    for line in response:
        if line.startswith("event: "):
            yield line.removeprefix("event: ")


def test_a_stream_ends_with_the_login(address: str, node: Node, clock: Clock) -> None:
    with node.database.session() as session:
        numbers = {
            name: add_user(
                session, name.replace(" ", "-"), Role.VIEWER, node.now(), password=PASSWORD
            ).id
            for name in PEOPLE
        }
        add_user(session, "admin", Role.ADMIN, node.now(), password=PASSWORD)
        token = add_token(session, numbers["rests"], "x", Role.VIEWER, node.now(), 1)
    with ExitStack() as opened:
        clients = {name: opened.enter_context(httpx.Client(timeout=60)) for name in PEOPLE}
        streams = {}
        for name, client in clients.items():
            if name == "rests":
                client.headers["Authorization"] = f"Bearer {token.secret}"
            else:
                form = {"name": name.replace(" ", "-"), "password": PASSWORD}
                assert client.post(f"{address}/login", data=form).status_code == 303
            answer = opened.enter_context(client.stream("GET", f"{address}/live"))
            streams[name] = answer.iter_lines()
            assert next(streams[name]) == "retry: 2000"
        page = clients["leaves"].get(f"{address}/jobs").text
        csrf = page.partition('<meta name="csrf" content="')[2].partition('"')[0]
        left = clients["leaves"].post(f"{address}/logout", data={"csrf": csrf})
        assert left.headers["location"] == "/login"
        with node.database.session() as session:
            change_user(session, numbers["is shut"], role=Role.VIEWER, enabled=False)
            change_user(session, numbers["rises"], role=Role.OPERATOR, enabled=True)
            change_password(session, numbers["changes the password"], PASSWORD, PASSWORD[::-1])
        for name in ("leaves", "is shut", "rises", "changes the password"):
            assert list(names(streams[name])) == ["over"], name
        encoded_job(node, [])
        assert next(names(streams["stays"])) == "jobs"
        clock.forward(24 * 3600)  # the token is void, and who stayed did nothing for long
        for name in ("rests", "stays"):
            assert list(names(streams[name]))[-1] == "over", name
