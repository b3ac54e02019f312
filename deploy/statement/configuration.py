"""Tables of the settings that decide about the network: name, kind of value, default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from deploy.statement.markdown import table
from workflows.destination_settings import AeDestinationSettings, WebDestinationSettings
from workflows.dicomweb_settings import WebUserSettings
from workflows.settings import NodeSettings, PeerSettings
from workflows.worklist_settings import WorklistSettings

_SECTIONS: Final = (
    "node", "listener", "tls", "dicomweb", "storage", "completion", "priors", "retries",
    "results", "retention",
)  # fmt: skip
_ENTRIES: Final[dict[str, type[BaseModel]]] = {
    "peers[]": PeerSettings,
    "destinations[] (AE)": AeDestinationSettings,
    "destinations[] (DICOMweb)": WebDestinationSettings,
    "dicomweb.users[]": WebUserSettings,
    "worklists[]": WorklistSettings,
}


def settings_table() -> str:
    """Return the sections of ``node.yaml`` that others in the network notice."""
    whole = NodeSettings()
    rows: list[tuple[str, str]] = []
    for section in _SECTIONS:
        values = getattr(whole, section)
        for name in type(values).model_fields:
            if f"{section}.{name}[]" not in _ENTRIES:
                rows.append((f"`{section}.{name}`", _shown(getattr(values, name))))
    return table(("setting", "default"), rows)


def entries_table() -> str:
    """Return what an entry of a list holds."""
    return table(("list", "setting", "default"), _entries())


def _entries() -> Iterator[tuple[str, str, str]]:
    for where, model in _ENTRIES.items():
        for name, field in model.model_fields.items():
            is_needed = field.default is PydanticUndefined
            yield where, f"`{name}`", "must be given" if is_needed else _shown(field.default)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"`{value / 2**30:g} GiB`"
    return f"`{value}`" if value != "" else "empty"
