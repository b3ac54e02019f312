"""Who the node is in the objects that it writes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from dicom_node.objects.identifiers import UUID_ROOT
from dicom_node.objects.provenance import NodeIdentity, device_uid_of
from workflows.settings import NodeSettings


def node_identity(settings: NodeSettings) -> NodeIdentity:
    """Return who the node is in the objects that it writes."""
    return NodeIdentity(
        software_version=version("unibiomed-node"),
        serial_number=settings.node.serial_number,
        station_name=settings.node.station,
        institution_name=settings.node.institution,
    )


def own_equipment(settings: NodeSettings) -> tuple[str, str]:
    """Return Manufacturer and Manufacturer's Model Name of the node's own objects."""
    identity = node_identity(settings)
    return identity.manufacturer, identity.model_name


def uid_root(settings: NodeSettings) -> str:
    """Return what the UIDs of results begin with; ends in a point."""
    root = settings.results.uid_root
    return UUID_ROOT if root is None else f"{root}."


def own_devices(digests: Iterable[str]) -> frozenset[str]:
    """Return the Device UIDs that results by these weights carry."""
    return frozenset(device_uid_of(digest) for digest in digests if digest)
