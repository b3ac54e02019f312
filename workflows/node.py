"""What the stages of a job work with: configuration, database, archive, model card."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property

from db.session import Database
from dicom_node.archive import Archive
from workflows.configuration import Configuration, load_configuration
from workflows.home import Home
from workflows.known_silences import KnownSilences
from workflows.model_card import KnownModel, look_at_model
from workflows.settings import NodeSettings


def utc_now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Node:
    """One process's view of the node.

    Attributes
    ----------
    configuration
        Settings and rules.
    database, archive
        Where jobs and objects live.
    role
        What the process does, for the owner of leases.
    now
        Clock, for tests.
    silences
        What the process's log has told of destinations that give no answer.
    """

    configuration: Configuration
    database: Database
    archive: Archive
    role: str = "worker"
    now: Callable[[], datetime] = field(default=utc_now)
    silences: KnownSilences = field(default_factory=KnownSilences)

    def with_configuration(self, configuration: Configuration) -> Node:
        """Return the node with settings and rules that were read again.

        Database, archive and model stay what they are: other ones need a restart.
        """
        return replace(self, configuration=configuration)

    @property
    def settings(self) -> NodeSettings:
        """The settings."""
        return self.configuration.settings

    @property
    def home(self) -> Home:
        """The node's folder."""
        return self.configuration.home

    @property
    def owner(self) -> str:
        """Name of this process among all workers; stands in its leases."""
        return f"{self.role}@{socket.gethostname()}:{os.getpid()}"

    def receiver(self, part: str = "") -> str:
        """Name of a part of the node that takes instances in, the same at each start of it."""
        return f"{socket.gethostname()}:{self.home.root.resolve()}{part}"[-128:]

    @cached_property
    def model(self) -> KnownModel:
        """What the model knows; read once, without torch."""
        return look_at_model(self.settings)


def open_node(home: Home, *, role: str = "worker") -> Node:
    """Open the node in a folder.

    Raises
    ------
    workflows.yaml_positions.ConfigurationError
        A configuration file has a mistake.
    """
    configuration = load_configuration(home)
    home.make_folders()
    return Node(
        configuration,
        Database(configuration.database_url),
        Archive(home.archive, reserve_bytes=configuration.settings.storage.reserve),
        role,
    )
