"""The settings in force, and whether the files have a mistake."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import Admin, NodeOf
from dashboard.auditing import note
from dashboard.rendering import render, say, size
from workflows.configuration import check_configuration
from workflows.node import Node
from workflows.reloading import ask_to_reload
from workflows.settings import NodeSettings
from workflows.yaml_positions import ConfigurationProblem

_SIZES: Final = ("reserve", "longest_body", "quarantine_size", "prepared_memory", "free_below")
router = APIRouter(include_in_schema=False)
RELOADED: Final = "All processes read the configuration again; ports need a restart."
_SECRET: Final = ("secret", "password", "token", "url", "passphrase")


@router.get("/settings")
def settings_page(request: Request, node: NodeOf, actor: Admin) -> Response:
    """Show what ``node.yaml`` says, and every mistake in the files as they are now."""
    return render(
        request,
        "settings.html",
        sections=sections_of(node.settings),
        problems=check_configuration(node.home),
        file=node.home.node_yaml,
    )


@router.post("/settings/reload")
def reload(request: Request, node: NodeOf, actor: Admin) -> Response:
    """Have all processes read the configuration again, if it has no mistake."""
    errors = reload_files(request, node)
    response = RedirectResponse("/settings", 303)
    if errors:
        return say(response, f"Nothing was changed: {errors[0]}", bad=True)
    return say(response, RELOADED)


def reload_files(request: Request, node: Node) -> list[ConfigurationProblem]:
    """Have all processes read the files again; with mistakes, return them and change nothing."""
    errors = [one for one in check_configuration(node.home) if one.severity == "error"]
    if not errors:
        ask_to_reload(node.home)
    with node.database.session() as session:
        note(
            session, request, "settings.reload", target="node.yaml, rules.yaml",
            outcome="refused" if errors else "success",
        )  # fmt: skip
    return errors


def sections_of(settings: NodeSettings) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return sections with their values as text, without secrets."""
    made: list[tuple[str, list[tuple[str, str]]]] = []
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, dict):
            made.append((name, [(key, _text(key, one)) for key, one in value.items()]))
        elif isinstance(value, list):
            made.append((name, [(str(one.get("name", "")), _entry(one)) for one in value]))
        else:
            made.append((name, [(name, _text(name, value))]))
    return made


def _entry(entry: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {_text(key, value)}"
        for key, value in entry.items()
        if value is not None and key != "name"
    )


def _named(key: str, value: Any) -> str:
    text = _text(key, value)
    return f"{value['name']}: {text}" if isinstance(value, dict) and "name" in value else text


def _text(key: str, value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return _entry(value)
    if any(word in key for word in _SECRET) and key not in ("public_url", "viewer_url"):
        return "set (not shown)"
    if value == "":
        return "none"
    if key in _SIZES:
        return size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        # Entries may hold secrets at any depth: none is turned into text as a whole.
        return "; ".join(_named(key, one) for one in value) or "none"
    return str(value)
