"""The settings of a node: the typed form of ``node.yaml``, and where things lie under its home.

Every model refuses keys that do not exist, so that a misspelt setting is an error and not a
silent default. `load` turns what pydantic says into file, line and mend.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field

from dicom_node.peers import Service
from dicom_node.services.tls import ProfileName
from workflows.audit_settings import CollectorSettings
from workflows.dashboard_settings import DashboardSettings
from workflows.destination_settings import (
    AnyDestination,
    DestinationSettings,
)
from workflows.dicomweb_settings import DicomWebSettings
from workflows.notice_settings import NoticeSettings
from workflows.setting_values import (
    AeTitle,
    BrokerUrl,
    Count,
    DatabaseUrl,
    Days,
    FileName,
    Flag,
    Host,
    Name,
    PeerHost,
    Port,
    Seconds,
    Secret,
    Settings,
    Size,
    UidRoot,
)
from workflows.settings_checks import problems_of
from workflows.worklist_settings import WorklistSettings
from workflows.yaml_positions import (
    ConfigurationError,
    MarkedYaml,
    read_marked,
    validate,
)

_LONGEST_SOCKET_PATH: Final = 100
"""Bytes. Unix sockets allow 107 (``sun_path``), and Redis puts a suffix on temporary ones."""


SettingsT = TypeVar("SettingsT", bound=Settings)


class NodeIdentitySettings(Settings):
    """``node``: who this node is in the network and in the objects it writes."""

    name: Name = "UniBiomed Node"
    ae_title: AeTitle = "UNIBIOMED"
    host: Host = "0.0.0.0"  # noqa: S104 - a PACS node listens to the network
    port: Annotated[int, Field(strict=True, ge=0, le=65535)] = 11112
    institution: Annotated[str, Field(max_length=64)] = ""
    station: Annotated[str, Field(max_length=16)] = "UNIBIOMED"
    serial_number: Annotated[str, Field(max_length=64)] = "1"


class ListenerLimits(Settings):
    """``listener``: limits of the DICOM listener; times in seconds, PDU in bytes."""

    max_associations: Count = 20
    check_called_ae_title: Flag = True
    max_pdu: Annotated[int, Field(strict=True, ge=4096, le=2**27)] = 131072
    acse_timeout_seconds: Seconds = 30.0
    dimse_timeout_seconds: Seconds = 60.0
    network_timeout_seconds: Seconds = 60.0
    idle_timeout_seconds: Seconds = 300.0
    stop_timeout_seconds: Seconds = 10.0


class TlsSettings(Settings):
    """``tls``: the port for associations with TLS, and how the node proves who it is."""

    port: Annotated[int, Field(strict=True, ge=0, le=65535)] | None = None
    plain: Flag = True
    profile: ProfileName = "bcp195-rfc9325"
    certificate: FileName | None = None
    key: FileName | None = None
    key_password: Secret | None = None
    authorities: FileName | None = None
    mutual: Flag = True


class StorageSettings(Settings):
    """``storage``: free disk space, in bytes, below which nothing more is taken in."""

    reserve: Size = 5 * 2**30


class CompletionSettings(Settings):
    """``completion``: when a study counts as complete; `workflows.completion` explains them."""

    quiet_seconds: Seconds = 20.0
    after_release_seconds: Annotated[float, Field(strict=True, ge=0, le=3600)] = 2.0
    open_association_seconds: Seconds = 120.0
    expected_seconds: Seconds = 600.0
    ask: Name | None = None


class PriorSettings(Settings):
    """``priors``: the destination that earlier studies are fetched from, and how many."""

    destination: Name | None = None
    most: Annotated[int, Field(strict=True, ge=1, le=10)] = 1


class DatabaseSettings(Settings):
    """``database``: without URL, SQLite in the node's home."""

    url: DatabaseUrl | None = None


class BrokerSettings(Settings):
    """``broker``: without URL, the Redis server that the node brings along."""

    url: BrokerUrl | None = None


class ModelSettings(Settings):
    """``model``: which weights, and what they run on."""

    folder: Annotated[str, Field(min_length=1)] | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    threads: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    concurrent_jobs: Annotated[int, Field(strict=True, ge=1, le=16)] = 3
    prepared_memory: Size | None = None


class WorkerSettings(Settings):
    """``workers``: processes that read, encode and check (``io``), and processes that deliver."""

    io: Annotated[int, Field(strict=True, ge=1, le=256)] = 2
    deliver: Annotated[int, Field(strict=True, ge=1, le=256)] = 2


class JobSettings(Settings):
    """``jobs``: leases, deadlines and the sweep, in seconds."""

    lease_seconds: Seconds = 60.0
    deadline_seconds: Seconds = 3600.0
    attempts: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    sweep_seconds: Annotated[float, Field(strict=True, ge=0.2, le=300)] = 5.0
    resend_seconds: Seconds = 30.0
    aging_seconds: Seconds = 3600.0

    @property
    def heartbeat_seconds(self) -> float:
        """How often a worker renews its lease: four beats fit into one lease."""
        return self.lease_seconds / 4


class RetrySettings(Settings):
    """``retries``: what failed for a passing reason is tried again.

    Fast retries happen within one attempt, for the network; slow ones put the job back, with a
    pause that doubles from `first_seconds` to `longest_seconds`.
    """

    fast_attempts: Annotated[int, Field(strict=True, ge=1, le=20)] = 3
    fast_seconds: Seconds = 1.0
    attempts: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 300
    rejected_attempts: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 12
    first_seconds: Seconds = 10.0
    longest_seconds: Seconds = 900.0
    prove_hours: Annotated[float, Field(strict=True, ge=0, le=24 * 30)] = 48.0


class ResultSettings(Settings):
    """``results``: what the objects hold that the node writes.

    `codes` is for sites in countries without a SNOMED CT licence: DICOM lists codes that it may use
    everywhere (``dicom``); for others a broader one of these stands, the words stay.
    `uid_root` is for sites that give UIDs under a root of their own: an arc of it for this node
    alone, as what comes in under it counts as the node's own; without, they lie under 2.25.
    `say_not_applicable` sends reports that a series was not interpreted, and why, where a rule had
    chosen it and the model turned it down; else only the job says so. `without_validator` says what
    becomes of objects where dciodvfy or dcentvfy is missing, which only a broken install is.
    """

    codes: Literal["all", "dicom"] = "all"
    uid_root: UidRoot | None = None
    say_not_applicable: Flag = False
    without_validator: Literal["hold", "send"] = "hold"


class RetentionSettings(Settings):
    """``retention``: how long things are kept, in days; ``null`` keeps them for ever.

    The quarantine has a size, too: what fills it is nothing that anybody planned for.
    """

    studies_days: Days | None = 14
    free_below: Size | None = None
    results_days: Days | None = 90
    jobs_days: Days | None = 365
    quarantine_days: Days | None = 30
    quarantine_size: Size | None = 10 * 2**30


class PeerSettings(Settings):
    """One entry of ``peers``: an AE that may talk to this node.

    `tls` says how the node calls it; without, by TLS where it must call by TLS itself.
    """

    name: Name
    ae_title: AeTitle
    host: PeerHost | None = None
    port: Port | None = None
    allow: tuple[Service, ...] = ("echo", "store")
    quiet_seconds: Seconds | None = None
    release_completes: Flag = True
    max_associations: Count | None = None
    requires_tls: Flag = False
    certificate: FileName | None = None
    tls: Flag | None = None


class NodeSettings(Settings):
    """All of ``node.yaml``."""

    node: NodeIdentitySettings = NodeIdentitySettings()
    listener: ListenerLimits = ListenerLimits()
    tls: TlsSettings = TlsSettings()
    dicomweb: DicomWebSettings = DicomWebSettings()
    storage: StorageSettings = StorageSettings()
    completion: CompletionSettings = CompletionSettings()
    priors: PriorSettings = PriorSettings()
    database: DatabaseSettings = DatabaseSettings()
    broker: BrokerSettings = BrokerSettings()
    model: ModelSettings = ModelSettings()
    workers: WorkerSettings = WorkerSettings()
    jobs: JobSettings = JobSettings()
    retries: RetrySettings = RetrySettings()
    results: ResultSettings = ResultSettings()
    retention: RetentionSettings = RetentionSettings()
    dashboard: DashboardSettings = DashboardSettings()
    notices: tuple[NoticeSettings, ...] = ()
    audit: tuple[CollectorSettings, ...] = ()
    peers: tuple[PeerSettings, ...] = ()
    destinations: tuple[AnyDestination, ...] = ()
    worklists: tuple[WorklistSettings, ...] = ()

    def destination(self, name: str) -> DestinationSettings | None:
        """Return the destination of this name, or None when ``node.yaml`` has none."""
        return next((entry for entry in self.destinations if entry.name == name), None)

    def located(self, folder: Path) -> NodeSettings:
        """Return the same with the paths of all certificates and keys absolute."""

        def beside(entry: SettingsT, *names: str) -> SettingsT:
            written = {name: getattr(entry, name) for name in names}
            return entry.model_copy(
                update={name: str(folder / path) for name, path in written.items() if path}
            )

        return self.model_copy(
            update={
                "tls": beside(self.tls, "certificate", "key", "authorities"),
                "dicomweb": self.dicomweb.model_copy(
                    update={
                        "users": tuple(beside(one, "certificate") for one in self.dicomweb.users)
                    }
                ),
                "audit": tuple(beside(one, "certificate") for one in self.audit),
                "peers": tuple(beside(peer, "certificate") for peer in self.peers),
                "destinations": tuple(beside(one, "certificate") for one in self.destinations),
                "worklists": tuple(beside(one, "certificate") for one in self.worklists),
            }
        )


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one node and everything that lies in it."""

    root: Path

    @property
    def archive(self) -> Path:
        """Received and written DICOM objects."""
        return self.root / "archive"

    @property
    def database(self) -> Path:
        """SQLite file of an embedded node."""
        return self.root / "database.sqlite"

    @property
    def run(self) -> Path:
        """Sockets, ``ready.json``, ``listener.json``: of no use after the node has stopped."""
        return self.root / "run"

    @property
    def work(self) -> Path:
        """What a job found and has not delivered yet, one folder for each job."""
        return self.root / "work"

    @property
    def log(self) -> Path:
        """Logs of the supervised processes."""
        return self.root / "log"

    @property
    def node_yaml(self) -> Path:
        """The settings."""
        return self.root / "node.yaml"

    @property
    def rules_yaml(self) -> Path:
        """The rules."""
        return self.root / "rules.yaml"

    @property
    def ready_json(self) -> Path:
        """Written by the supervisor once the whole node is up."""
        return self.run / "ready.json"

    @property
    def listener_json(self) -> Path:
        """Written by the listener once it accepts associations."""
        return self.run / "listener.json"

    @property
    def dashboard_json(self) -> Path:
        """Written by the dashboard once it answers; only the node's user can read it."""
        return self.run / "dashboard.json"

    @property
    def dicomweb_json(self) -> Path:
        """Written by the DICOMweb server once it answers."""
        return self.run / "dicomweb.json"

    @property
    def callers_json(self) -> Path:
        """Who called the listener last."""
        return self.run / "callers.json"

    @property
    def reload_stamp(self) -> Path:
        """Touched when the configuration should be read again; every process looks at it."""
        return self.run / "reload"

    @property
    def redis_socket(self) -> Path:
        """Socket of the embedded Redis; in the temporary folder where the home lies too deep."""
        socket = self.run / "redis.sock"
        if len(os.fsencode(socket)) <= _LONGEST_SOCKET_PATH:
            return socket
        digest = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"unibiomed-{digest}" / "redis.sock"

    def work_folder(self, job_id: int) -> Path:
        """Return where a job keeps what it found."""
        return self.work / str(job_id)

    def database_url(self, settings: NodeSettings) -> str:
        """Return the database's URL: the administrator's, or SQLite in this home."""
        return settings.database.url or f"sqlite:///{self.database.resolve()}"

    def broker_url(self, settings: NodeSettings) -> str:
        """Return the broker's URL: the administrator's, or the embedded Redis."""
        return settings.broker.url or f"redis+socket://{self.redis_socket}"

    def make_folders(self) -> None:
        """Make what is missing, readable for the node's user only (patient data)."""
        for folder in (self.root, self.archive, self.run, self.work, self.log):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write_defaults(self) -> list[Path]:
        """Write the commented default files where they are missing; return those written."""
        written = []
        for path, text in (
            (self.node_yaml, default_node_text()),
            (self.rules_yaml, default_rules_text()),
        ):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                written.append(path)
        return written


def default_node_text() -> str:
    """Return the ``node.yaml`` that a first start writes."""
    return (resources.files("workflows") / "default_node.yaml").read_text(encoding="utf-8")


def default_rules_text() -> str:
    """Return the ``rules.yaml`` that a first start writes."""
    return (resources.files("workflows") / "default_rules.yaml").read_text(encoding="utf-8")


def load(path: Path) -> NodeSettings:
    """Read ``node.yaml``; raises as `settings_of`."""
    return settings_of(read_marked(path)).located(path.parent)


def settings_of(marked: MarkedYaml) -> NodeSettings:
    """Build the settings from ``node.yaml``.

    Raises
    ------
    ConfigurationError
        With file, line and mend of every mistake.
    """
    settings = validate(NodeSettings, marked)
    problems = list(problems_of(settings, marked))
    if problems:
        raise ConfigurationError(problems)
    return settings
