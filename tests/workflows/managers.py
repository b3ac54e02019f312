"""A worklist manager: our own DICOMweb server over another node's database, by real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from dicom_node.errors import RetriableError
from dicom_node.services.dicomweb.access import WebAccess, WebUser, digest
from dicom_node.services.dicomweb.server import WebServices, WebSettings, create_app
from dicom_node.services.dicomweb.serving import WebServer, listen
from workflows.catalog import NodeCatalog
from workflows.node import Node
from workflows.worklist import NodeWorklist

TOKEN = "a-token-of-the-manager"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Forgetful(NodeWorklist):
    """Does what it is asked, and loses the answer as often as it is told to."""

    losses = 0

    def change_state(self, uid: str, state: str, transaction_uid: str, who: str) -> bool:
        done = super().change_state(uid, state, transaction_uid, who)
        if self.losses > 0:
            self.losses -= 1
            raise RetriableError("the answer is lost")
        return done


@dataclass
class Manager:
    """A running manager."""

    url: str
    worklist: Forgetful
    app: FastAPI

    def create(self, uid: str, study: str, **more: Any) -> None:
        made = httpx.post(
            f"{self.url}/workitems?{uid}",
            json=[workitem(study, **more)],
            headers=BEARER,
            timeout=60,
        )
        assert made.status_code == 201, made.text

    def get(self, uid: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/workitems/{uid}", headers=BEARER, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()[0]
        return found

    def state(self, uid: str) -> str:
        return str(self.get(uid)["00741000"]["Value"][0])

    def cancel(self, uid: str) -> None:
        answer = httpx.post(f"{self.url}/workitems/{uid}/cancelrequest", headers=BEARER, timeout=60)
        assert answer.status_code == 202, answer.text


def workitem(study: str, station: str = "UNIBIOMED", code: str = "110003") -> dict[str, Any]:
    """Return a workitem in DICOM JSON, addressed to a station."""

    def coded(value: str, scheme: str) -> dict[str, Any]:
        item = {
            "00080100": {"vr": "SH", "Value": [value]},
            "00080102": {"vr": "SH", "Value": [scheme]},
            "00080104": {"vr": "LO", "Value": [value]},
        }
        return {"vr": "SQ", "Value": [item]}

    return {
        "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
        "00404041": {"vr": "CS", "Value": ["READY"]},
        "00404025": coded(station, "99TEST"),
        "00404018": coded(code, "DCM"),
        "00404021": {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": [study]}}]},
    }


def settings_for(url: str, **changes: Any) -> dict[str, Any]:
    """Return the entry of ``node.yaml`` for a manager."""
    return {
        "name": "manager",
        "url": url,
        "token": TOKEN,
        "station": "UNIBIOMED",
        "poll_seconds": 10.0,
        "answer_timeout_seconds": 10.0,
        **changes,
    }


def ignored(_: object) -> None:
    """Take a notice of the server, and do nothing."""


@contextmanager
def manager_of(node: Node) -> Iterator[Manager]:
    """Serve a node's worklist and archive, in a thread."""
    taken = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    worklist = Forgetful(node.database, node.now, "MANAGER")
    rights = frozenset({"query", "retrieve", "worklist"})
    access = WebAccess([WebUser("performers", rights, token=digest(TOKEN))])  # type: ignore[arg-type]
    services = WebServices(
        WebSettings("MANAGER", url),
        NodeCatalog(node.database, node.archive),
        node.archive,
        lambda: access,
        on_stored=ignored,
        on_quarantined=ignored,
        on_released=ignored,
        on_refused=ignored,
        worklist=worklist,
    )
    ready = threading.Event()
    app = create_app(services)
    server = WebServer(app, taken, None, lambda _: ready.set())
    thread = threading.Thread(target=server.serve_until_stopped)
    thread.start()
    try:
        assert ready.wait(60)
        yield Manager(url, worklist, app)
    finally:
        server.should_exit = True
        thread.join(20)
        taken.close()
