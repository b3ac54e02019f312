"""One entry of ``destinations`` in ``node.yaml``: where results are sent, and by which way."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from dicom_node.services.tls import ProfileName
from workflows.setting_values import (
    AeTitle,
    FileName,
    Flag,
    Host,
    Name,
    Port,
    Seconds,
    Secret,
    Settings,
)

ResultKind = Literal[
    "segmentation",
    "measurement_report",
    "grounded_report",
    "structure_set",
    "secondary_capture",
    "report_document",
    "key_objects",
]
RESULTS: Final[tuple[ResultKind, ...]] = ("segmentation", "measurement_report", "grounded_report")
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$", max_length=2048)]


class DestinationSettings(Settings):
    """What all destinations have."""

    name: Name
    seg_encoding: Literal["auto", "binary", "labelmap", "fractional"] = "auto"
    garbles_unaligned: Flag = False
    objects: Annotated[tuple[ResultKind, ...], Field(min_length=1)] = RESULTS
    rejection_notes: Flag = False
    confirm: Literal["find", "commitment", "none"] = "find"
    confirm_seconds: Seconds = 60.0
    connection_timeout_seconds: Seconds = 10.0
    acse_timeout_seconds: Seconds = 30.0
    dimse_timeout_seconds: Seconds = 60.0
    network_timeout_seconds: Seconds = 60.0
    tls_profile: ProfileName | None = None
    certificate: FileName | None = None


class AeDestinationSettings(DestinationSettings):
    """An application entity: results go by C-STORE, and are read back by C-FIND."""

    ae_title: AeTitle
    host: Host
    port: Port
    tls: Flag = False
    commitment_from: tuple[AeTitle, ...] = ()
    """What its reports of storage commitment call themselves, where that is another AE title."""

    @property
    def reporters(self) -> tuple[str, ...]:
        """AE titles whose reports of storage commitment count as this destination's."""
        return self.commitment_from or (self.ae_title,)

    @property
    def title(self) -> str:
        """What it is, for people."""
        return self.ae_title

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port}"


class OAuth2Settings(Settings):
    """``oauth2``: tokens by the client credentials grant."""

    token_url: HttpUrl
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: Secret
    scope: str = ""


class WebServiceSettings(Settings):
    """A DICOMweb service elsewhere: where it is, and how the node proves who it is there."""

    url: HttpUrl
    token: Secret | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: Secret | None = None
    oauth2: OAuth2Settings | None = None

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.user is None) != (self.password is None):
            text, mend = "user and password belong together", "write both, or none of them"
            raise PydanticCustomError("credentials", text, {"mend": mend})
        if sum(one is not None for one in (self.token, self.user, self.oauth2)) > 1:
            text = "there is more than one kind of credentials"
            mend = "keep one of token, user with password, and oauth2"
            raise PydanticCustomError("credentials", text, {"mend": mend})
        return self


class WebDestinationSettings(DestinationSettings, WebServiceSettings):
    """A DICOMweb server: results go by STOW-RS, and are read back by QIDO-RS."""

    confirm: Literal["find", "none"] = "find"

    @property
    def title(self) -> str:
        """What it is, for people."""
        return "DICOMweb"

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.url

    @property
    def tls(self) -> bool:
        """Whether it is called by TLS."""
        return self.url.startswith("https://")


def _kind(value: Any) -> str:
    """Tell the kinds apart by what only one of them has."""
    has_url = "url" in value if isinstance(value, dict) else hasattr(value, "url")
    return "web" if has_url else "ae"


AnyDestination = Annotated[
    Annotated[AeDestinationSettings, Tag("ae")] | Annotated[WebDestinationSettings, Tag("web")],
    Discriminator(_kind),
]
