"""Scripts and styles are kept by browsers for good, and nothing is under their address but they."""

from __future__ import annotations

import re
import socket
from contextlib import closing

import pytest

from dashboard.assets import folder_address
from dashboard.server import listen
from db.models_access import Role
from dicom_node.services.dicomweb.serving import listen as listen_for_dicomweb
from tests.dashboard.conftest import Browser
from workflows.dashboard_settings import DashboardSettings


def test_what_a_page_asks_for_is_there_and_never_asked_for_again(browser: Browser) -> None:
    seen = browser(Role.VIEWER)
    page = seen.get("/jobs").text
    addresses = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
    assert len(addresses) > 3
    for address in addresses:
        assert address.startswith(folder_address() + "/")
        answer = seen.get(address)
        assert answer.status_code == 200 and "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Type"].split(";")[0] in (
            "text/css", "text/javascript", "image/svg+xml",
        )  # fmt: skip
        assert seen.head(address).content == b""


@pytest.mark.parametrize(
    "address",
    [
        "/static/0123456789abcdef/page.js",
        f"{folder_address()}/",
        f"{folder_address()}/none.js",
        f"{folder_address()}/../app.py",
        f"{folder_address()}/%2e%2e/app.py",
        f"{folder_address()}//etc/passwd",
    ],
)
def test_nothing_else_is_there_and_nobody_keeps_that_answer(browser: Browser, address: str) -> None:
    answer = browser(None).get(address)
    assert answer.status_code in (303, 404)
    assert answer.headers["Cache-Control"] == "no-store"


def test_only_reading_is_possible(browser: Browser) -> None:
    assert browser(None).post(f"{folder_address()}/page.js").status_code == 405


@pytest.mark.parametrize("served", ["dashboard", "dicomweb"])
def test_answers_go_out_without_waiting_for_acknowledgements(served: str) -> None:
    if served == "dashboard":
        listener = listen(DashboardSettings(port=0))
    else:
        listener = listen_for_dicomweb("127.0.0.1", 0)
    address = ("127.0.0.1", listener.getsockname()[1])
    with closing(listener), socket.create_connection(address, 10):
        accepted, _ = listener.accept()
        with closing(accepted):
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
