"""The kinds of value that stand in the configuration files, each with its own complaint."""

from __future__ import annotations

import ipaddress
import os
import re
import zoneinfo
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

_UNITS: Final[Mapping[str, int]] = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


class Settings(BaseModel):
    """Base: unknown keys are errors, values do not change after they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _ae_title(value: str) -> str:
    """Hold a text to the value representation AE (PS3.5 section 6.2)."""
    mend = "write 1 to 16 characters: capital letters, digits, '_' and '-' work everywhere"
    if not value.strip():
        raise PydanticCustomError("ae_title", "an AE title cannot be empty", {"mend": mend})
    if len(value) > 16:
        text = "an AE title has at most 16 characters, this one has {count}"
        raise PydanticCustomError("ae_title", text, {"mend": mend, "count": len(value)})
    if "\\" in value or not value.isascii() or not value.isprintable():
        text = "an AE title is printable ASCII without a backslash"
        raise PydanticCustomError("ae_title", text, {"mend": mend})
    if value != value.strip():
        text = "spaces around an AE title have no meaning in DICOM"
        raise PydanticCustomError("ae_title", text, {"mend": f"write {value.strip()!r}"})
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[\w][\w .+-]{0,63}", value):
        text = "a name is 1 to 64 letters, digits, spaces, '.', '_', '+' or '-'"
        raise PydanticCustomError("name", text, {"mend": "choose a plain name"})
    return value


def _network(value: str) -> str:
    """Let host names and addresses pass; check what is written as a network."""
    if "/" not in value:
        return value
    try:
        return str(ipaddress.ip_network(value, strict=True))
    except ValueError as error:
        mend = "write it as 10.1.0.0/16, with the host bits zero"
        text = f"is not a network ({error})"
        raise PydanticCustomError("network", "{text}", {"text": text, "mend": mend}) from error


def _address(value: str) -> str:
    """Check an address or a network: what stands here is compared, and never looked up by name."""
    try:
        return str(ipaddress.ip_network(value) if "/" in value else ipaddress.ip_address(value))
    except ValueError as error:
        mend = "write an address such as 10.1.2.3, or a network such as 10.1.0.0/16"
        text = f"is no address ({error})"
        raise PydanticCustomError("address", "{text}", {"text": text, "mend": mend}) from error


def _bytes(value: Any) -> Any:
    """Turn ``"5 GiB"`` into a number of bytes; numbers pass."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b)\s*", value, re.IGNORECASE)
    if match is None:
        mend = "write a number and a unit, such as 5 GiB or 500 MB"
        raise PydanticCustomError("size", "is not a size", {"mend": mend})
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _expanded(value: str) -> str:
    """Put environment variables in: ``${NAME}``. Secrets then need not stand in the file."""

    def look_up(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            text = "the environment variable {name} is not set"
            mend = f"set {name} for the node's processes, or write the value here"
            raise PydanticCustomError("environment", text, {"name": name, "mend": mend})
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", look_up, value)


def _time_zone(value: str) -> str:
    if value not in zoneinfo.available_timezones():
        mend = "write it as Europe/Berlin; a list is at the IANA time zone database"
        raise PydanticCustomError("time_zone", "is not a time zone", {"mend": mend})
    return value


def _uid_root(value: str) -> str:
    if value == "2.25" or value.startswith("2.25."):
        text = "is where everybody's UUIDs lie"
        mend = "leave results.uid_root out for UIDs under 2.25, or name an arc of your own"
        raise PydanticCustomError("uid_root", text, {"mend": mend})
    return value


def _url(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.match(rf"({'|'.join(re.escape(scheme) for scheme in schemes)})://", value):
            mend = f"begin it with {' or '.join(scheme + '://' for scheme in schemes)}"
            text = "is not a URL that the node understands"
            raise PydanticCustomError("url", text, {"mend": mend})
        return value

    return AfterValidator(check)


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Name = Annotated[str, AfterValidator(_name)]
Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_.:-]+$")]
PeerHost = Annotated[
    str, Field(max_length=253, pattern=r"^[A-Za-z0-9_.:/-]+$"), AfterValidator(_network)
]
Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Count = Annotated[int, Field(strict=True, ge=1, le=100_000)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=7 * 86400)]
Days = Annotated[int, Field(strict=True, ge=1, le=36500)]
Size = Annotated[int, BeforeValidator(_bytes), Field(strict=True, ge=0)]
UidRoot = Annotated[
    # With a UUID's 39 digits and a point it must stay within 64 characters (PS3.5 9.1).
    str, Field(max_length=24, pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$"), AfterValidator(_uid_root)
]
"""The beginning of UIDs that nobody but this node gives, such as 1.2.276.0.99.7."""
Flag = Annotated[bool, Field(strict=True)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Secret = Annotated[str, AfterValidator(_expanded), Field(min_length=1)]
FileName = Annotated[str, Field(min_length=1, max_length=4096)]
"""Path of a file; a relative one lies in the node's folder."""
DatabaseUrl = Annotated[
    str,
    AfterValidator(_expanded),
    _url("postgresql", "postgresql+psycopg", "postgres", "sqlite"),
]
BrokerUrl = Annotated[
    str, AfterValidator(_expanded), _url("redis", "rediss", "redis+socket", "sentinel")
]
