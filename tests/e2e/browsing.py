"""Chromium on a running node's pages, and what it must never do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from db.accounts import add_user
from db.models_access import Role
from deploy.node_database import changing
from tests.e2e.conftest import Node

PASSWORD = "correct horse battery"
SCREENSHOTS = os.environ.get("UNIBIOMED_SCREENSHOTS")
"""Folder for pictures of the pages; none are taken without."""


def find_chromium() -> Path:
    """Return Debian's Chromium; skip where it is not installed."""
    for name in ("/usr/bin/chromium", "/usr/bin/chromium-browser"):
        if Path(name).exists():
            return Path(name)
    pytest.skip("needs chromium (see tests/outside_peers.sh)")


_AS_INSTALLED = """home => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode())
        text.data = text.data.replaceAll(home, "/var/lib/unibiomed");
}"""
_SEEN_PICTURES = """Promise.all([...document.images]
    .filter(image => image.getBoundingClientRect().top < innerHeight)
    .map(image => image.decode().catch(() => {})))"""


class Pages:
    """One person's browser window.

    Attributes
    ----------
    page
        Playwright's page.
    """

    def __init__(self, page: Any, url: str, home: Path) -> None:
        self.page = page
        self.url = url
        self.home = home
        self.wrong: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console {message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        own = urlsplit(self.url).netloc
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != own:
            self.wrong.append(f"request to another host: {request.url}")

    def open(self, address: str) -> None:
        """Go to a page of the node."""
        self.page.goto(self.url + address)

    def picture(self, name: str, *, full: bool = False) -> None:
        """Keep a screenshot, where a folder for them is named; the home is where docs have it."""
        if SCREENSHOTS:
            self.page.evaluate(_AS_INSTALLED, str(self.home))
            self.page.evaluate(_SEEN_PICTURES)
            self.page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=full)


def enter(browser: Any, node: Node, name: str, **context: Any) -> Pages:
    """Log an account in, in a window that shares nothing with others of the browser."""
    window = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    window.set_default_timeout(60_000)
    pages = Pages(window.new_page(), node.ready["dashboard"], node.home)
    pages.open("/login")
    pages.page.fill("[name=name]", name)
    pages.page.fill("[name=password]", PASSWORD)
    pages.page.click("main form button")
    pages.page.wait_for_url(pages.url + "/")
    return pages


@contextmanager
def logged_in(node: Node, name: str, role: Role, **context: Any) -> Iterator[Pages]:
    """Open a browser window of a new account; fails at its end if the pages did wrong."""
    from playwright.sync_api import sync_playwright

    with changing(node.home) as session:
        add_user(session, name, role, datetime.now(UTC), password=PASSWORD)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(find_chromium()), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            pages = enter(browser, node, name, **context)
            yield pages
            assert pages.wrong == [], pages.wrong
        finally:
            browser.close()
