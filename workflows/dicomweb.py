"""The DICOMweb server's process: ``python -m workflows.dicomweb``.

Composes the server with catalog, archive and database, as `workflows.listener` does for DIMSE.
Writes ``run/dicomweb.json`` once it answers, ends with 0 on SIGTERM, and reads the users anew when
the configuration is read again.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Final

from celery import Celery

from db.session import Database
from dicom_node.errors import FinalError
from dicom_node.services.dicomweb.access import WebAccess, WebUser, digest
from dicom_node.services.dicomweb.server import WebServices, WebSettings, create_app
from dicom_node.services.dicomweb.serving import WebServer, listen
from dicom_node.services.tls import fingerprints
from workflows import queue
from workflows.catalog import NodeCatalog
from workflows.configuration import Configuration
from workflows.counting import Counting
from workflows.dicomweb_settings import WebUserSettings
from workflows.intake import Registrar
from workflows.listener import Announcer
from workflows.network import web_tls_of
from workflows.node import Node, open_node
from workflows.process import HomeNotSetError, WorkerProcess
from workflows.reloading import Reloading
from workflows.worklist import NodeWorklist
from workflows.yaml_positions import ConfigurationError

_LOG = logging.getLogger(__name__)
CANNOT_START: Final = 2
BROKEN: Final = 70
"""Exit code of a server that cannot register any more; its supervisor starts it anew."""
_LOOK_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 5.0


def access_of(configuration: Configuration) -> WebAccess:
    """Return the table of those who may use DICOMweb.

    Raises
    ------
    dicom_node.errors.FinalError
        A certificate's file cannot be read.
    """
    return WebAccess(_user(one) for one in configuration.settings.dicomweb.users)


def _user(user: WebUserSettings) -> WebUser:
    return WebUser(
        name=user.name,
        allow=frozenset(user.allow),
        token=None if user.token is None else digest(user.token),
        user=user.user,
        password=None if user.password is None else digest(user.password),
        certificates=fingerprints([Path(user.certificate)] if user.certificate else []),
    )


class WebProcess:
    """One serving process.

    Parameters
    ----------
    node
        What it works with.
    """

    def __init__(self, node: Node) -> None:
        settings = node.settings.dicomweb
        self._node = node
        self._access = access_of(node.configuration)
        self._taken = listen(settings.host, settings.port)
        app = Celery("unibiomed")
        app.conf.update(queue.options(node.configuration))
        self._announcer = Announcer(app, node.settings.completion.after_release_seconds)
        self._database = Database(node.database.url, flush_commits=False)
        self._registrar = Registrar(
            self._database,
            listener=node.receiver(":dicomweb"),
            on_released=self._announcer.released,
            archive=node.archive,
        )
        self._url = _address(node, self._taken.getsockname()[1])
        services = WebServices(
            settings=WebSettings(
                ae_title=node.settings.node.ae_title,
                most_bytes=settings.longest_body,
                read_timeout=settings.read_timeout_seconds,
                url=self._url,
            ),
            catalog=NodeCatalog(node.database, node.archive),
            archive=node.archive,
            access=lambda: self._access,
            on_stored=self._registrar.on_stored,
            on_quarantined=self._registrar.on_quarantined,
            on_released=self._registrar.on_released,
            on_refused=self._registrar.on_refused,
            worklist=NodeWorklist(node.database, node.now, node.settings.node.station),
        )
        tls = web_tls_of(node.settings)
        self._server = WebServer(create_app(services), self._taken, tls, self._write_ready)
        self._reloading = Reloading(node.home)
        self._counting = Counting(node.database)
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._look, name="watch", daemon=True)

    def run(self) -> int:
        """Serve until SIGTERM; returns the exit code."""
        self._announcer.start()
        self._registrar.start()
        self._watch.start()
        try:
            self._server.serve_until_stopped()
        finally:
            self._node.home.dicomweb_json.unlink(missing_ok=True)
            alive = self._registrar.alive
            self._stopping.set()
            self._watch.join(_STOP_SECONDS)
            self._registrar.stop()
            self._counting.write()
            self._announcer.stop(_STOP_SECONDS)
            self._taken.close()
            self._database.dispose()
            self._node.database.dispose()
        return 0 if alive else BROKEN

    def _look(self) -> None:
        """Read the users again when asked, and end when nothing can be registered any more."""
        while not self._stopping.wait(_LOOK_SECONDS):
            self._counting.write()
            if self._reloading.is_asked():
                self._access = self._reloading.read(access_of) or self._access
            if not self._registrar.alive:
                _LOG.critical("what is received cannot be registered any more; starting anew")
                self._server.should_exit = True
                return

    def _write_ready(self, port: int) -> None:
        path = self._node.home.dicomweb_json
        temporary = path.with_suffix(f".{os.getpid()}")
        ready = {"pid": os.getpid(), "port": port, "url": self._url}
        temporary.write_text(json.dumps(ready), encoding="utf-8")
        temporary.replace(path)


def _address(node: Node, port: int) -> str:
    """Return what clients call."""
    settings = node.settings.dicomweb
    host = settings.host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - every address; the host's name is one of them
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return settings.public_url or f"{'https' if settings.tls else 'http'}://{shown}:{port}"


def main() -> int:
    """Run until SIGTERM; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stdout,
    )
    try:
        process = WebProcess(open_node(WorkerProcess().home, role="dicomweb"))
    except FinalError as error:
        print(f"The DICOMweb server cannot start: {error.sentence}", file=sys.stderr)
        return CANNOT_START
    except (ConfigurationError, HomeNotSetError) as error:
        print(f"The DICOMweb server cannot start: {error}", file=sys.stderr)
        return CANNOT_START
    except OSError as error:
        port = "dicomweb.port in node.yaml may be taken"
        print(f"The DICOMweb server cannot start: {error} ({port}).", file=sys.stderr)
        return CANNOT_START
    # Uvicorn raises the signal that ended it once more; by then all is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return process.run()


if __name__ == "__main__":
    sys.exit(main())
