"""The rules: an editor that checks, the history of versions, and trials before saving."""

from __future__ import annotations

import difflib
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, HTTPException, Request, UploadFile
from fastapi import Path as InPath
from starlette.responses import RedirectResponse, Response

from dashboard.access import Admin, NodeOf, Operator, Viewer
from dashboard.auditing import note
from dashboard.rendering import render, say
from db.operation import keep_rules, rules_version, rules_versions
from dicom_node.errors import FinalError
from workflows.node import Node
from workflows.reloading import ask_to_reload
from workflows.rule_trial import try_file, try_past
from workflows.rules import Plan, Rules, rules_of
from workflows.rules_checks import unheard, unknown_targets
from workflows.settings import load
from workflows.yaml_positions import ConfigurationError, parse_marked

router = APIRouter(include_in_schema=False)
RulesText = Annotated[str, Form(max_length=200_000)]
MOST_UPLOADED: Final = 64 * 2**20
_CHUNK: Final = 2**20
_DAYS: Final = 7


@router.get("/rules")
def rules_page(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """Show the rules in force, their editor and history."""
    return _page(request, node, text_on_disk(node))


@router.post("/rules/try")
def try_rules(
    request: Request,
    node: NodeOf,
    actor: Operator,
    text: RulesText,
    file: UploadFile | None = None,
    days: Annotated[int, Form(ge=1, le=90)] = _DAYS,
) -> Response:
    """Try a text: on a dropped file where there is one, else on what came in lately."""
    rules, problems = check_rules(node, text)
    if rules is None:
        return _page(request, node, text, problems=problems, status=422)
    warnings = worth_a_look(node, rules, text)
    if file is not None and file.filename:
        return _page(request, node, text, warnings=warnings, **_tried_file(node, rules, file))
    past = try_past(node, rules, node.now() - timedelta(days=days))
    return _page(request, node, text, warnings=warnings, past=past, days=days)


@router.post("/rules")
def save_rules(
    request: Request,
    node: NodeOf,
    actor: Admin,
    text: RulesText,
    comment: Annotated[str, Form(max_length=256)] = "",
    before: Annotated[str, Form(max_length=200_000)] = "",
) -> Response:
    """Save the rules; all processes of the node use them from their next study on."""
    text = text.replace("\r\n", "\n")
    _, problems = check_rules(node, text)
    if problems:
        return _page(request, node, text, problems=problems, status=422)
    if not write_rules(request, node, text, before, comment):
        said = ["Somebody changed the rules meanwhile. Below is your text; compare it, then save."]
        return _page(request, node, text, problems=said, status=409)
    return say(RedirectResponse("/rules", 303), "Saved. Studies are held against them from now on.")


def write_rules(request: Request, node: Node, text: str, before: str, comment: str) -> bool:
    """Save a checked text, and have all processes read it; False when another was saved since."""
    on_disk = text_on_disk(node)
    if before.replace("\r\n", "\n").rstrip() != on_disk.rstrip():
        return False
    now = node.now()
    with node.database.session() as session:
        if not rules_versions(session, 1):
            keep_rules(session, on_disk, "", "as found before the first change here", now)
        keep_rules(session, text, request.state.actor.name, comment, now)
        note(session, request, "rules.save", target="rules.yaml", comment=comment)
        _replace(node.home.rules_yaml, text)
    ask_to_reload(node.home)
    return True


@router.get("/rules/try")
def tried_rules(actor: Viewer) -> Response:
    """Lead back to the editor: the address of a trial, opened again, has no text to try."""
    return RedirectResponse("/rules", 303)


@router.get("/rules/{number}")
def version_page(
    request: Request, node: NodeOf, actor: Viewer, number: Annotated[int, InPath(ge=0, le=2**53)]
) -> Response:
    """Show one version, and how it differs from the rules in force."""
    with node.database.reading() as session:
        version = rules_version(session, number)
    if version is None:
        raise HTTPException(404)
    difference = list(
        difflib.unified_diff(
            version.text.splitlines(), text_on_disk(node).splitlines(),
            f"version {number}", "in force", lineterm="",
        )
    )  # fmt: skip
    return render(request, "rules_version.html", version=version, difference=difference)


def _page(request: Request, node: Node, text: str, *, status: int = 200, **found: Any) -> Response:
    with node.database.reading() as session:
        versions = rules_versions(session)
    context: dict[str, Any] = {
        "problems": [], "warnings": [], "plan": None, "past": None, "days": _DAYS,
        "file_problem": "", "file_name": "", **found,
    }  # fmt: skip
    return render(
        request, "rules.html", status_code=status, text=text, before=text_on_disk(node),
        versions=versions, rules=node.configuration.rules.rules,
        targets=sorted({target.name for target in node.model.card.targets}), **context,
    )  # fmt: skip


def text_on_disk(node: Node) -> str:
    """Return the text of ``rules.yaml``; empty without one."""
    try:
        return node.home.rules_yaml.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def check_rules(node: Node, text: str) -> tuple[Rules | None, list[str]]:
    """Read a text as the node would; with a mistake, say file, line and mend of each."""
    try:
        settings = load(node.home.node_yaml)
        return rules_of(parse_marked(text, "rules.yaml"), settings), []
    except ConfigurationError as error:
        return None, [str(problem) for problem in error.problems]


def worth_a_look(node: Node, rules: Rules, text: str) -> list[str]:
    """Say what may stand in a text and is seldom meant."""
    marked = parse_marked(text, "rules.yaml")
    known = {target.name for target in node.model.card.targets}
    return [
        str(problem)
        for problem in (
            *unknown_targets(rules, marked, known),
            *unheard(rules, marked, node.settings),
        )
    ]


def _tried_file(node: Node, rules: Rules, file: UploadFile) -> dict[str, Any]:
    name = (file.filename or "")[:120]
    try:
        return {"plan": try_uploaded(node, rules, file), "file_name": name}
    except FinalError as error:
        return {"file_problem": f"{error.sentence}.", "file_name": name}


def try_uploaded(node: Node, rules: Rules, file: UploadFile) -> Plan:
    """Try a file that somebody sends; it is kept nowhere.

    Raises
    ------
    FinalError
        It is no DICOM, or too large.
    """
    with tempfile.NamedTemporaryFile(dir=node.home.run, suffix=".dcm") as temporary:
        size = 0
        while chunk := file.file.read(_CHUNK):
            size += len(chunk)
            if size > MOST_UPLOADED:
                most = MOST_UPLOADED // 2**20
                raise FinalError(
                    f"The file is larger than {most} MiB. Any one image of the series will do"
                )
            temporary.write(chunk)
        temporary.flush()
        return try_file(node, rules, Path(temporary.name))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        temporary.chmod(path.stat().st_mode)
    temporary.replace(path)
