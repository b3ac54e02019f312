"""The settings of a node: the typed form of ``node.yaml``.

Every model refuses keys that do not exist, so that a misspelt setting is an error and not a
silent default. `load` turns what pydantic says into file, line and mend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

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
    """``priors``: the destination that earlier studies are fetched from, how many, and how.

    `sent_by` is for archives that send what they are asked to move under another AE title.
    """

    destination: Name | None = None
    most: Annotated[int, Field(strict=True, ge=1, le=10)] = 1
    by: Literal["auto", "get", "move"] = "auto"
    sent_by: tuple[AeTitle, ...] = ()
    longest_seconds: Seconds = 600.0


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

    The quarantine has a size, too: what fills it is nothing that anybody planned for. `archive` is
    the destination that has to hold what the node committed to before that is deleted here.
    """

    studies_days: Days | None = 14
    free_below: Size | None = None
    archive: Name | None = None
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

    def certificates(self) -> list[tuple[str, str]]:
        """Return whose certificate each file is that is named here, and the file's path."""
        mails = [(f"mail server of {one.name}", one.mail) for one in self.notices if one.mail]
        named = [
            ("this node, DICOM", self.tls.certificate),
            ("this node, dashboard", self.dashboard.certificate),
            *((one.name, one.certificate) for one in self.peers),
            *((one.name, one.certificate) for one in self.dicomweb.users),
            *((one.name, one.certificate) for one in self.destinations),
            *((one.name, one.certificate) for one in self.worklists),
            *((one.name, one.certificate) for one in self.notices),
            *((one.name, one.certificate) for one in self.audit),
            *((owner, mail.certificate) for owner, mail in mails),
        ]
        return [(owner, path) for owner, path in named if path is not None]

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
                "dashboard": beside(self.dashboard, "certificate", "key"),
                "dicomweb": self.dicomweb.model_copy(
                    update={
                        "users": tuple(beside(one, "certificate") for one in self.dicomweb.users)
                    }
                ),
                "notices": tuple(
                    beside(one, "certificate").model_copy(
                        update={"mail": one.mail and beside(one.mail, "certificate")}
                    )
                    for one in self.notices
                ),
                "audit": tuple(beside(one, "certificate") for one in self.audit),
                "peers": tuple(beside(peer, "certificate") for peer in self.peers),
                "destinations": tuple(beside(one, "certificate") for one in self.destinations),
                "worklists": tuple(beside(one, "certificate") for one in self.worklists),
            }
        )


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
