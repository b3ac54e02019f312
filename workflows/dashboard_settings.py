"""The part of ``node.yaml`` that is about the web pages."""

from __future__ import annotations

import socket
from typing import Annotated, Literal

from pydantic import Field

from workflows.setting_values import Address, Count, Flag, Host, Name, Secret, Settings, TimeZone


class OpenIdSettings(Settings):
    """``dashboard.openid``: log in by an OpenID Connect provider, beside local accounts.

    `role_claim` names the claim of the ID token that lists the person's groups; `roles` says which
    group is which role. Somebody in none of them is not let in.
    """

    issuer: Annotated[str, Field(pattern=r"^https?://\S+$")]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: Secret
    label: Name = "Single sign-on"
    name_claim: Annotated[str, Field(min_length=1)] = "preferred_username"
    role_claim: Annotated[str, Field(min_length=1)] = "groups"
    roles: dict[str, Literal["viewer", "operator", "admin"]] = Field(default_factory=dict)


class DashboardSettings(Settings):
    """``dashboard``: the web pages.

    Without `certificate` and `key` the pages are plain HTTP, meant for this computer or for a
    proxy in front; `public_url` is then the address that people see, and decides whether cookies
    are for TLS only. `proxies` are believed what they say of who calls (``X-Forwarded-For``).
    """

    enabled: Flag = True
    host: Host = "127.0.0.1"
    port: Annotated[int, Field(strict=True, ge=0, le=65535)] = 8088
    public_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")] | None = None
    proxies: tuple[Address, ...] = ("127.0.0.1", "::1")
    certificate: Annotated[str, Field(min_length=1)] | None = None
    key: Annotated[str, Field(min_length=1)] | None = None
    site: Annotated[str, Field(max_length=64)] = ""
    colour: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#0f766e"
    time_zone: TimeZone | None = None
    session_hours: Annotated[float, Field(strict=True, gt=0, le=168)] = 12.0
    idle_minutes: Annotated[float, Field(strict=True, gt=0, le=10080)] = 60.0
    failed_logins_per_host: Count | None = 20
    patients_hidden: Flag = True
    viewer_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    openid: OpenIdSettings | None = None

    def address(self, port: int | None = None) -> str:
        """Return the address that people type; `port` is the one that was had for ``port: 0``."""
        if self.public_url is not None:
            return self.public_url
        scheme = "https" if self.certificate else "http"
        host = self.host
        if host in ("0.0.0.0", "::"):  # noqa: S104 - every address; the host's name is one of them
            host = socket.gethostname()
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or self.port}"
