"""What README and docs tell people to type exists: commands, options, settings and rules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from deploy.cli import app
from workflows.rules import Rules
from workflows.settings import NodeSettings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDENTIFIERS = [str(page.relative_to(ROOT)) for page in PAGES]
_COMMAND = re.compile(r"unibiomed-node((?: [^\n`|#;&')]+)+)")
_YAML = re.compile(r"^( *)```yaml\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_OTHERS = {"scrape_configs"}
"""First keys of examples that are another program's."""


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words after ``unibiomed-node`` of each call that a page shows."""
    for match in _COMMAND.finditer(text):
        words = match.group(1).replace("[", " ").replace("]", " ").replace(",", " ")
        yield shlex.split(words.replace('"', "'").rstrip("'") if words.count('"') % 2 else words)


def unknown(words: list[str]) -> str | None:
    """Return what of a call the command line does not know."""
    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words[0]]
        words = words[1:]
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        return words[0]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    options = [word.partition("=")[0].rstrip(".:") for word in words if word.startswith("--")]
    return next((one for one in options if one not in {*known, "--help"}), None)


@pytest.mark.parametrize("page", PAGES, ids=IDENTIFIERS)
def test_every_command_and_option_exists(page: Path) -> None:
    strangers = [
        (words, stranger)
        for words in commands(page.read_text(encoding="utf-8"))
        if (stranger := unknown(words)) is not None
    ]
    assert strangers == []


@pytest.mark.parametrize("page", PAGES, ids=IDENTIFIERS)
def test_every_example_of_settings_and_rules_is_taken(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "secret")
    for indent, block in _YAML.findall(text):
        lines = [line.removeprefix(indent) for line in block.splitlines()]
        example = yaml.safe_load("\n".join(lines))
        if _OTHERS & set(example):
            continue
        Rules.model_validate({"rules": example.pop("rules", [])})
        NodeSettings.model_validate(example)


def test_the_pages_are_read() -> None:
    shown = [words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]
    assert len(shown) > 60 and ["jobs", "retry", "--failed"] in shown
    assert unknown(["jobs", "retri"]) == "retri" and unknown(["up", "--house", "x"]) == "--house"
