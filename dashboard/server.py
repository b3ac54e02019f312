"""The dashboard's process: ``python -m dashboard.server``.

Reads the folder from UNIBIOMED_HOME, writes ``run/dashboard.json`` once it answers (address, and
the link for the first administrator while there is none), ends with 0 on SIGTERM.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from dashboard.app import create_app
from db.accounts import invite_first_admin
from db.session import DATABASE_ERRORS
from workflows.dashboard_settings import DashboardSettings
from workflows.home import Home
from workflows.node import Node, open_node
from workflows.yaml_positions import ConfigurationError

CANNOT_START: Final = 2
HOME_VARIABLE: Final = "UNIBIOMED_HOME"
_STOP_SECONDS: Final = 3
_LOG = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Uvicorn, telling where it listens once it does."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then say so."""
        await super().startup(sockets=sockets)
        if sockets and not self.should_exit:
            write_ready(self._node, sockets[0].getsockname()[1])


def write_ready(node: Node, port: int) -> None:
    """Write ``run/dashboard.json``, whole or not at all, for the node's user only."""
    url = node.settings.dashboard.address(port)
    ready = {"pid": os.getpid(), "port": port, "url": url}
    with node.database.session() as session:
        secret = invite_first_admin(session, node.now())
    if secret is not None:
        ready["first_admin"] = f"{url}/invitation/{secret}"
    path = node.home.dashboard_json
    temporary = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump(ready, file)
    temporary.replace(path)


def listen(settings: DashboardSettings) -> socket.socket:
    """Take the port, before anything else is begun.

    Raises
    ------
    OSError
        It cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=128)
    # Connections inherit it. asyncio sets it only on sockets that name TCP as their protocol, which
    # these do not: each answer's second piece would wait 40 ms for the browser's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def configured(app: FastAPI, settings: DashboardSettings) -> uvicorn.Config:
    """Say how the application is served; what proxies say of who calls is believed of known ones.

    Anybody else could write any address there, and so go round what counts by address.
    """
    return uvicorn.Config(
        app,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.public_url is not None and bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        timeout_graceful_shutdown=_STOP_SECONDS,
    )


def main() -> int:
    """Run until SIGTERM; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stdout,
    )
    # It writes one line for each request it makes; the audit trail says what matters.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        node = open_node(Home(Path(os.environ[HOME_VARIABLE])), role="dashboard")
        settings = node.settings.dashboard
        taken = listen(settings)
    except KeyError:
        print(f"Set {HOME_VARIABLE} to the node's folder, as `unibiomed-node up` does.")
        return CANNOT_START
    except ConfigurationError as error:
        print(f"The dashboard cannot start: {error}")
        return CANNOT_START
    except OSError as error:
        print(f"The dashboard cannot start: {error} (dashboard.port in node.yaml may be taken).")
        return CANNOT_START
    try:
        Server(configured(create_app(node), settings), node).run(sockets=[taken])
    except DATABASE_ERRORS as error:
        _LOG.error("the database does not answer: %s", type(error).__name__)
        return 1
    finally:
        node.home.dashboard_json.unlink(missing_ok=True)
        node.database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
