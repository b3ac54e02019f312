"""Change ``node.yaml`` by command: comments stay, mistakes change nothing, the node is told."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from dicom_node.errors import FinalError
from workflows.configuration import check_configuration, load_configuration
from workflows.home import Home
from workflows.network import admitted_by, server_tls_of, web_tls_of
from workflows.reloading import ask_to_reload
from workflows.settings import settings_of
from workflows.yaml_positions import (
    ConfigurationError,
    ConfigurationProblem,
    parse_marked,
    read_marked,
)

__all__ = ["add_entry", "check_and_reload"]


class _Representer(RoundTripRepresenter):
    """Writes ``null`` as the file has it, where ruamel.yaml would write nothing."""

    def represent_none(self, data: None) -> ScalarNode:
        """Return the node of a null."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def add_entry(folder: Path, section: str, entry: dict[str, Any]) -> None:
    """Add an entry to a list of ``node.yaml``, and have the running node read it again.

    Parameters
    ----------
    folder
        The node's home.
    section
        ``peers`` or ``destinations``.
    entry
        As it stands in the file.

    Raises
    ------
    ConfigurationError
        The file has a mistake, before or after; it is left as it was.
    OSError
        The file cannot be written.
    """
    home = Home(folder.expanduser().resolve())
    settings_of(read_marked(home.node_yaml))
    text = _with_entry(home.node_yaml.read_text(encoding="utf-8"), section, entry)
    settings_of(parse_marked(text, home.node_yaml.name))
    _replace(home.node_yaml, text)
    ask_to_reload(home)


def check_and_reload(folder: Path) -> None:
    """Have the running node read its configuration again, if it has no mistake.

    Raises
    ------
    ConfigurationError
        With every mistake.
    """
    home = Home(folder.expanduser().resolve())
    errors = [one for one in check_configuration(home) if one.severity == "error"]
    if errors:
        raise ConfigurationError(errors)
    configuration = load_configuration(home)
    try:
        admitted_by(configuration)
        server_tls_of(configuration.settings)
        web_tls_of(configuration.settings)
    except FinalError as error:
        mend = "name a PEM file that the node may read"
        problem = ConfigurationProblem(home.node_yaml.name, 1, "tls", error.sentence, mend)
        raise ConfigurationError([problem]) from error
    ask_to_reload(home)


def _with_entry(text: str, section: str, entry: dict[str, Any]) -> str:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    try:
        data = yaml.load(text) or {}
    except YAMLError as error:  # `settings_of` has read it, so this is no mistake of the file
        raise OSError(
            f"node.yaml cannot be edited by command ({error}); edit it by hand"
        ) from error
    if not data.get(section):
        data[section] = []
    data[section].append(entry)
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(path.stat().st_mode)
    temporary.replace(path)
