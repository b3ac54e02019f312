"""The part of ``node.yaml`` that says who is told when a job ends."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from workflows.setting_values import FileName, Host, Name, Port, Secret, Settings

NoticeKind = Literal["failed", "delivered", "critical"]


class MailSettings(Settings):
    """``mail``: the server and the addresses."""

    host: Host
    port: Port = 25
    security: Literal["none", "starttls", "tls"] = "starttls"
    user: Annotated[str, Field(min_length=1)] | None = None
    password: Secret | None = None
    sender: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    certificate: FileName | None = None


class NoticeSettings(Settings):
    """One entry of ``notices``: a web address or a mailbox, and what it is told of.

    ``critical`` is what a rule calls so.
    """

    name: Name
    about: Annotated[tuple[NoticeKind, ...], Field(min_length=1)] = ("failed",)
    url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    secret: Secret | None = None
    certificate: FileName | None = None
    mail: MailSettings | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (self.mail is None):
            text = "a notice goes to one place: a url, or mail"
            mend = "write one of the two; for both ways, make two entries"
            raise PydanticCustomError("notice_way", text, {"mend": mend})
        return self
