"""The part of ``node.yaml`` that says which collectors of syslog get the audit trail."""

from __future__ import annotations

from typing import Literal

from dicom_node.services.tls import ProfileName
from workflows.setting_values import FileName, Host, Name, Port, Settings


class CollectorSettings(Settings):
    """One entry of ``audit``: a collector, and how it is reached.

    By ``tls`` (RFC 5425) as PS3.15 section A.6 and IHE ATNA ask, or, in a network that is safe by
    other means, ``tcp`` (RFC 6587) or ``udp`` (RFC 5426), which tells nobody what it loses.
    """

    name: Name
    host: Host
    port: Port = 6514
    transport: Literal["tls", "tcp", "udp"] = "tls"
    tls_profile: ProfileName | None = None
    certificate: FileName | None = None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port} ({self.transport})"
