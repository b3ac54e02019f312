"""The two ways to a destination: C-STORE with C-FIND, and STOW-RS with QIDO-RS.

Delivery knows neither: it hands over files, and asks what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dicom_node.errors import DicomNodeError
from dicom_node.services.association import Destination
from dicom_node.services.dicomweb_client import WebArchive
from dicom_node.services.query_retrieve_scu import confirm, series_at
from dicom_node.services.retrieve_scu import Wanted, get
from dicom_node.services.storage_scu import EchoResult, StoreStatus, send, verify
from dicom_node.services.web_connection import WebDestination
from workflows.destination_settings import (
    AeDestinationSettings,
    DestinationSettings,
    WebDestinationSettings,
)
from workflows.network import destination_of, web_destination_of
from workflows.settings import NodeSettings


class Carrier(Protocol):
    """Brings results to one destination, and asks for them there.

    Attributes
    ----------
    echo_name, store_name, find_name, fetch_name
        The services, as an administrator knows them.
    """

    echo_name: str
    store_name: str
    find_name: str
    fetch_name: str

    def __str__(self) -> str:
        """Return name and address."""

    def verify(self) -> EchoResult:
        """Ask whether the destination is there; failures are told, not raised."""

    def send(
        self, files: Sequence[Path], on_status: Callable[[StoreStatus], None]
    ) -> list[StoreStatus]:
        """Send files in order; what comes after one that was not stored may stay unsent.

        Raises
        ------
        DicomNodeError
            From the connection as a whole.
        """

    def holds(self, study: str, by_series: Mapping[str, Collection[str]]) -> set[str]:
        """Return which of the instances the destination says it has.

        Raises
        ------
        DicomNodeError
            It does not answer the question.
        """

    def series(self, study: str, series: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """Return what the destination answers for series: Modality and Series Description.

        Raises
        ------
        DicomNodeError
            It does not answer the question.
        """

    def fetch(self, wanted: Wanted, folder: Path) -> None:
        """Fetch one instance into a folder, as a file of its own.

        Raises
        ------
        NothingTakenError
            That is not offered there.
        DicomNodeError
            It does not give it.
        """


class DimseCarrier:
    """By associations; see `Carrier`."""

    echo_name, store_name, find_name, fetch_name = "C-ECHO", "C-STORE", "C-FIND", "C-GET"

    def __init__(self, destination: Destination, calling_ae_title: str) -> None:
        self.destination = destination
        self._calling = calling_ae_title

    def __str__(self) -> str:
        return str(self.destination)

    def verify(self) -> EchoResult:
        """Ask by C-ECHO."""
        return verify(self.destination, self._calling)

    def send(
        self, files: Sequence[Path], on_status: Callable[[StoreStatus], None]
    ) -> list[StoreStatus]:
        """Send files over one association."""
        return send(
            files,
            self.destination,
            calling_ae_title=self._calling,
            on_status=on_status,
            # Where the object's own form is not taken, another one that holds the same.
            transcode=True,
        )

    def holds(self, study: str, by_series: Mapping[str, Collection[str]]) -> set[str]:
        """Ask by C-FIND."""
        return confirm(self.destination, self._calling, study, by_series)

    def series(self, study: str, series: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """Ask by C-FIND."""
        return series_at(self.destination, self._calling, study, series)

    def fetch(self, wanted: Wanted, folder: Path) -> None:
        """Fetch by C-GET."""
        get(self.destination, self._calling, wanted, folder)


class WebCarrier:
    """By HTTP; see `Carrier`."""

    echo_name, store_name, find_name, fetch_name = "a search", "STOW-RS", "QIDO-RS", "WADO-RS"

    def __init__(self, destination: WebDestination) -> None:
        self._destination = destination

    def __str__(self) -> str:
        return str(self._destination)

    def verify(self) -> EchoResult:
        """Ask for one study by QIDO-RS."""
        began = time.monotonic()
        try:
            with WebArchive(self._destination) as archive:
                archive.search("/studies", {"limit": "1"})
        except DicomNodeError as error:
            return EchoResult(False, time.monotonic() - began, error.sentence)
        return EchoResult(True, time.monotonic() - began, f"{self._destination} answers")

    def send(
        self, files: Sequence[Path], on_status: Callable[[StoreStatus], None]
    ) -> list[StoreStatus]:
        """Send files one request after the other.

        In one request a server may take the reports and refuse the segmentation that they point to.
        """
        statuses = []
        with WebArchive(self._destination) as archive:
            for file in files:
                [status] = archive.store([file])
                on_status(status)
                statuses.append(status)
                if not status.is_stored:
                    break
        return statuses

    def holds(self, study: str, by_series: Mapping[str, Collection[str]]) -> set[str]:
        """Ask by QIDO-RS."""
        with WebArchive(self._destination) as archive:
            return archive.holds(study, by_series)

    def series(self, study: str, series: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """Ask by QIDO-RS."""
        with WebArchive(self._destination) as archive:
            return {key: said for key, said in archive.series(study).items() if key in series}

    def fetch(self, wanted: Wanted, folder: Path) -> None:
        """Fetch by WADO-RS."""
        path = f"/studies/{wanted.study}/series/{wanted.series}/instances/{wanted.instance}"

        def keep(data: bytes) -> None:
            (folder / f"{wanted.instance}.dcm").write_bytes(data)

        with WebArchive(self._destination) as archive:
            archive.retrieve(path, keep)


def carrier_of(destination: DestinationSettings, settings: NodeSettings) -> Carrier:
    """Return the way to a destination."""
    if isinstance(destination, WebDestinationSettings):
        return WebCarrier(web_destination_of(destination, settings.tls))
    if isinstance(destination, AeDestinationSettings):
        return DimseCarrier(destination_of(destination, settings.tls), settings.node.ae_title)
    raise TypeError(f"no way is known to a {type(destination).__name__}")
