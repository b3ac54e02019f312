"""The listener process: ``python -m workflows.listener``.

Composes the DICOM services with the catalog: what comes in is stored, registered, acknowledged;
what is released is announced to the workers. Reads the folder from UNIBIOMED_HOME, writes
``run/listener.json`` once it accepts associations, ends with 0 on SIGTERM and SIGINT, and reads
the peers and certificates anew on ``unibiomed-node reload`` and on SIGHUP.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import queue as queues
import signal
import ssl
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from db.jobs import JobState
from db.session import Database
from dicom_node.errors import FinalError
from dicom_node.peers import Peers, Refusal
from dicom_node.services.announcements import AnnouncementScp
from dicom_node.services.association import Destination
from dicom_node.services.commitment import UNKNOWN_TRANSACTION, CommitmentScp
from dicom_node.services.disallowed import DisallowedServices
from dicom_node.services.events import AssociationEnded
from dicom_node.services.query_retrieve_scp import QueryRetrieveScp
from dicom_node.services.storage_scp import Service, StorageScp
from workflows import queue
from workflows.announcing import NodeAnnouncements
from workflows.callers import Callers
from workflows.catalog import NodeCatalog
from workflows.committing import NodeLedger
from workflows.configuration import Configuration
from workflows.counting import Counting
from workflows.dispatch import Dispatch
from workflows.intake import Registrar
from workflows.network import admitted_by, known_entity, listener_settings_of, server_tls_of
from workflows.node import Node, open_node
from workflows.own_moves import ExpectedInstances
from workflows.process import HomeNotSetError, WorkerProcess
from workflows.reconciliation import reconcile
from workflows.reloading import Reloading
from workflows.settings import NodeSettings
from workflows.yaml_positions import ConfigurationError

_LOG = logging.getLogger(__name__)
CANNOT_START: Final = 2
BROKEN: Final = 70
"""Exit code of a listener that cannot register any more; its supervisor starts it anew."""
_LOOK_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 10.0


class Announcer:
    """Sends "look at this study" from a thread of its own.

    A broker that is away then holds up nobody; what cannot be sent is found by the sweep.
    """

    def __init__(self, app: Celery, after_seconds: float) -> None:
        self._app = app
        self._after_seconds = after_seconds
        self._studies: queues.SimpleQueue[Sequence[int] | None] = queues.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Send what waits, and end."""
        self._studies.put(None)
        self._thread.join(timeout)

    def released(self, study_ids: Sequence[int]) -> None:
        """Announce studies that nobody sends any more; returns at once."""
        self._studies.put(study_ids)

    def _run(self) -> None:
        while (study_ids := self._studies.get()) is not None:
            # A little late rather than a little early: early, the study would still wait.
            seconds = self._after_seconds + 0.05
            queue.send(
                self._app,
                [
                    Dispatch(None, JobState.WAITING, study_id, after_seconds=seconds)
                    for study_id in study_ids
                ],
            )


@dataclass(frozen=True)
class Admission:
    """Who is let in, and by which certificates; and who is called at an AE title."""

    peers: Peers
    tls: ssl.SSLContext | None
    settings: NodeSettings

    @classmethod
    def by(cls, configuration: Configuration) -> Admission:
        """Read it from a configuration and the certificates that it names.

        Raises
        ------
        dicom_node.errors.FinalError
            A certificate cannot be used.
        """
        settings = configuration.settings
        return cls(admitted_by(configuration), server_tls_of(settings), settings)


class AdmissionInForce:
    """Replaced as a whole when the configuration is read again; associations go on meanwhile."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def peers(self) -> Peers:
        """Return the table of peers."""
        return self._admission.peers

    def tls(self) -> ssl.SSLContext:
        """Return the context of the port for TLS."""
        if self._admission.tls is None:
            raise OSError("tls.port was taken out of node.yaml; the port closes with a restart")
        return self._admission.tls

    def settings(self) -> NodeSettings:
        """Return the settings."""
        return self._admission.settings

    def entity(self, ae_title: str) -> Destination | None:
        """Return whom to call at an AE title."""
        return known_entity(self._admission.settings, ae_title)

    def take_from(self, configuration: Configuration) -> None:
        """Put what a configuration says in force; errors as `Admission.by`."""
        self._admission = Admission.by(configuration)


class Reconciliation:
    """Tells the database what the archive holds, in a thread of its own.

    The walk takes minutes where millions of files lie; senders need not wait for it, because it
    looks only at what was there before this start.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._before = node.now()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciliation", daemon=True)

    def start(self) -> None:
        """Begin to walk."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End after the folder that is looked at; the next start goes on."""
        self._stopping.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        node = self._node
        while not self._stopping.is_set():
            try:
                reconcile(
                    node.database,
                    node.archive,
                    now=node.now,
                    before=self._before,
                    stopped=self._stopping.is_set,
                )
                _LOG.info("the archive was held against the database")
                return
            except (SQLAlchemyError, OSError) as error:
                # Whatever it is, files wait here that the database should know.
                _LOG.warning("reconciling is tried again: %s", type(error).__name__)
                self._stopping.wait(_AGAIN_SECONDS)


class Listener:
    """One listening process.

    Parameters
    ----------
    node
        What it works with.
    """

    def __init__(self, node: Node) -> None:
        settings = node.settings
        self._node = node
        self._stop_seconds = settings.listener.stop_timeout_seconds
        app = Celery("unibiomed")
        app.conf.update(queue.options(node.configuration))
        self._announcer = Announcer(app, settings.completion.after_release_seconds)
        self._database = Database(node.database.url, flush_commits=False)
        self._registrar = Registrar(
            self._database,
            listener=node.receiver(),
            on_released=self._announcer.released,
            archive=node.archive,
        )
        self._reconciliation = Reconciliation(node)
        self.admission = AdmissionInForce(Admission.by(node.configuration))
        self._catalog = NodeCatalog(node.database, node.archive)
        self._callers = Callers(node.home.callers_json, node.now)
        self._counting = Counting(node.database)
        self._scp = StorageScp(
            listener_settings_of(settings),
            node.archive,
            self.admission.peers,
            tls=self.admission.tls,
            on_stored=self._registrar.on_stored,
            on_quarantined=self._registrar.on_quarantined,
            on_released=self._ended,
            on_refused=self._refused,
            services=self._services(),
            held_syntaxes=self._catalog.held_syntaxes,
            moved_to=ExpectedInstances(node).folder_for,
        )

    def start(self) -> None:
        """Accept associations.

        Raises
        ------
        OSError
            When the port cannot be had.
        """
        self._announcer.start()
        self._registrar.start()
        self._scp.start()
        self._write_ready()
        self._reconciliation.start()

    def stop(self) -> None:
        """Take no more, let running associations end within their time, and write the rest."""
        self._node.home.listener_json.unlink(missing_ok=True)
        self._scp.stop(self._stop_seconds)
        self._counting.write()
        self._registrar.stop()
        self._announcer.stop(self._stop_seconds)
        self._reconciliation.stop(self._stop_seconds)
        self._database.dispose()
        self._node.database.dispose()

    def _services(self) -> list[Service]:
        """Give what callers find beside storage."""
        node = self._node
        ae_title = node.settings.node.ae_title
        ledger = NodeLedger(node.database, self.admission.settings, node.now)
        return [
            QueryRetrieveScp(self._catalog, ae_title, self.admission.entity),
            CommitmentScp(
                ledger,
                # Counted with the refused callers, where an administrator looks.
                lambda calling, host, sentence: self._registrar.on_refused(
                    Refusal(calling, ae_title, host, 0, 0, UNKNOWN_TRANSACTION, sentence)
                ),
            ),
            AnnouncementScp(NodeAnnouncements(node.database, node.now)),
            DisallowedServices(self.admission.peers, self._registrar.on_refused),
        ]

    @property
    def alive(self) -> bool:
        """Whether what is received can still be registered."""
        return self._registrar.alive

    @property
    def port(self) -> int:
        """The port, also where the settings let the system choose."""
        return self._scp.port

    @property
    def tls_port(self) -> int | None:
        """The port with TLS, if any."""
        return self._scp.tls_port

    def note_calls(self) -> None:
        """Write down who called since the last time, and what was counted."""
        self._callers.write()
        self._counting.write()

    def _refused(self, refusal: Refusal) -> None:
        refusal.count()
        self._registrar.on_refused(refusal)

    def _ended(self, ended: AssociationEnded) -> None:
        self._callers.note(ended)
        self._registrar.on_released(ended)

    def _write_ready(self) -> None:
        """Say that associations are accepted, in a file that is there whole or not at all."""
        node = self._node.settings.node
        ready = {
            "pid": os.getpid(),
            "host": node.host,
            "port": self.port,
            "tls_port": self.tls_port,
            "ae_title": node.ae_title,
        }
        path = self._node.home.listener_json
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(ready), encoding="utf-8")
        temporary.replace(path)


def main() -> int:
    """Run until SIGTERM; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stdout,
    )
    # At level info it writes several lines for each association, and some name what was asked for.
    logging.getLogger("pynetdicom").setLevel(logging.WARNING)
    # What is no PDU aborts the association, which the listener tells in a line of its own.
    logging.getLogger("pynetdicom.dul").setLevel(logging.CRITICAL)
    # It remarks on values that break the standard, and quotes them: a patient's name may be one.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    stopping = threading.Event()
    reloading = threading.Event()
    wake = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        (reloading if number == signal.SIGHUP else stopping).set()
        wake.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        home = WorkerProcess().home
        reload_word = Reloading(home)
        listener = Listener(open_node(home, role="listener"))
        listener.start()
    except FinalError as error:
        print(f"The listener cannot start: {error.sentence}", file=sys.stderr)
        return CANNOT_START
    except (ConfigurationError, HomeNotSetError) as error:
        print(f"The listener cannot start: {error}", file=sys.stderr)
        return CANNOT_START
    except OSError as error:
        port = "node.port in node.yaml may be taken by another program"
        print(f"The listener cannot start: {error} ({port}).", file=sys.stderr)
        return CANNOT_START
    # What a start leaves in memory stays; looking through it again would hold up all associations.
    gc.collect()
    gc.freeze()
    while not stopping.is_set():
        wake.wait(_LOOK_SECONDS)
        wake.clear()
        if not listener.alive:
            _LOG.critical("what is received cannot be registered any more; starting anew")
            listener.stop()
            return BROKEN
        listener.note_calls()
        if reload_word.is_asked() or reloading.is_set():
            reloading.clear()
            # In force before the log says that it was read.
            reload_word.read(listener.admission.take_from)
    _LOG.info("stopping: no new associations")
    listener.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
