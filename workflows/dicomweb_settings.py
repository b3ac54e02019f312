"""The part of ``node.yaml`` that is about the DICOMweb server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from workflows.setting_values import FileName, Flag, Host, Name, Seconds, Secret, Settings, Size


class WebUserSettings(Settings):
    """One entry of ``dicomweb.users``: who may use DICOMweb, and how it proves itself."""

    name: Name
    allow: tuple[Literal["query", "retrieve", "store", "worklist"], ...] = ("query", "retrieve")
    token: Secret | None = None
    user: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    password: Secret | None = None
    certificate: FileName | None = None

    @model_validator(mode="after")
    def _can_prove_itself(self) -> WebUserSettings:
        mend = "give it a token, user and password, or a certificate"
        if (self.user is None) != (self.password is None):
            text = "user and password belong together"
            raise PydanticCustomError("web_user", text, {"mend": mend})
        if self.token is None and self.user is None and self.certificate is None:
            text = "nothing tells this user from a stranger"
            raise PydanticCustomError("web_user", text, {"mend": mend})
        return self


class DicomWebSettings(Settings):
    """``dicomweb``: the server, which runs once somebody is listed under ``users``.

    With `tls` it speaks TLS by the certificate of the section ``tls``; without, it is meant for
    this computer or for a proxy in front, and `public_url` is then what clients call.
    """

    host: Host = "127.0.0.1"
    port: Annotated[int, Field(strict=True, ge=0, le=65535)] = 8089
    tls: Flag = False
    public_url: Annotated[str, Field(pattern=r"^https?://\S+[^\s/]$")] | None = None
    longest_body: Size = 8 * 2**30
    read_timeout_seconds: Seconds = 60.0
    users: tuple[WebUserSettings, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether anybody could use it."""
        return bool(self.users)
