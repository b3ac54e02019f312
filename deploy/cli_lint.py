"""The command ``unibiomed-node lint``: the gate's rules over anybody's result objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from dicom_node.objects.lint import FileVerdict, Lint

__all__ = ["lint"]

MOST_LINES = 6  # of one rule about one file


def lint(
    path: Annotated[
        Path | None, typer.Argument(help="A DICOM file, or a folder of them with their images.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    templates: Annotated[
        bool,
        typer.Option("--templates", help="Ask PixelMed's validator too (Java, slow)."),
    ] = False,
    returned: Annotated[
        Path | None,
        typer.Option(help="Folder with the same objects as an archive gave them back."),
    ] = None,
    job: Annotated[
        int | None,
        typer.Option(help="Check what this job of a node wrote, and how it was delivered."),
    ] = None,
    home: Annotated[
        Path, typer.Option("--home", envvar="UNIBIOMED_HOME", help="The node's folder, for --job.")
    ] = Path("unibiomed-home"),
    show_rules: Annotated[bool, typer.Option("--rules", help="List all rules and end.")] = False,
) -> None:
    """Check SEG, SR and KO objects, of any maker: IHE AI Results, viewers, dciodvfy, dcentvfy.

    Images in the same folder serve as the sources that the results are compared with. Ends with 0
    when no object has an error, 1 when one has, 2 when there is nothing to check.
    """
    from dicom_node.errors import RetriableError
    from dicom_node.objects import lint as linting

    if show_rules:
        _print_rules(as_json)
        return
    if job is not None:
        found = _of_job(home, job, templates)
    elif path is None or not path.exists():
        _fail("Name a DICOM file or a folder." if path is None else f"There is no {path}.", 2)
    else:
        try:
            found = linting.lint(
                _files(path), templates=templates, returned=_files(returned) if returned else ()
            )
        except RetriableError as error:
            _fail(error.sentence)
    if as_json:
        typer.echo(json.dumps(as_plain(found), indent=2, ensure_ascii=False))
    else:
        _print(found)
    if not found.verdicts:
        _fail(f"There is no SEG, SR or KO object in {path}.", 2)
    if not found.passes:
        raise typer.Exit(1)


def _of_job(home: Path, number: int, templates: bool) -> Lint:
    """Judge a job of the node in a folder."""
    from deploy.node_database import NoNodeError, database_url_of
    from dicom_node.errors import DicomNodeError
    from workflows.examination import examine_job
    from workflows.home import Home
    from workflows.node import open_node
    from workflows.yaml_positions import ConfigurationError

    try:
        database_url_of(home)
        node = open_node(Home(home.expanduser().resolve()), role="operator")
    except ConfigurationError as error:
        _fail(str(error), 2)
    except NoNodeError as error:
        _fail(str(error))
    try:
        return examine_job(node, number, templates=templates)
    except DicomNodeError as error:
        _fail(f"{error.sentence[:1].upper()}{error.sentence[1:]}.", 2)
    finally:
        node.database.dispose()


def as_plain(found: Lint) -> dict[str, Any]:
    """Return the verdicts as JSON takes them."""
    return {
        "passes": found.passes,
        "sources": found.sources,
        "other_files": found.others,
        "unreadable": {str(path): reason for path, reason in found.unreadable.items()},
        "objects": [
            {
                "file": str(one.path),
                "kind": one.verdict.kind,
                "maker": one.maker,
                "passes": one.verdict.passes,
                "problems": [
                    {"rule": problem.rule, "severity": problem.severity, "text": problem.text}
                    for problem in one.verdict.problems
                ],
                "held": list(one.verdict.held),
                "unchecked": dict(one.verdict.unchecked),
            }
            for one in found.verdicts
        ],
    }


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(one for one in path.rglob("*") if one.is_file())


def _print(found: Lint) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    for one in found.verdicts:
        for line in lines_of(one):
            console.print(line)
    for path, reason in found.unreadable.items():
        console.print(f"[yellow]NOT READ[/] {escape(str(path))}: {escape(reason)}")
    failed = sum(not one.verdict.passes for one in found.verdicts)
    console.print(
        f"{len(found.verdicts)} checked, {failed} with errors; {found.sources} source images and "
        f"{found.others} other DICOM files beside them."
    )


def lines_of(one: FileVerdict) -> list[str]:
    """Return what is said of one file, with rich's marks for colour."""
    from rich.markup import escape

    from dicom_node.objects.conformance import rules

    texts = {rule.id: rule for rule in rules()}
    verdict = one.verdict
    word = "[green]PASS[/]" if verdict.passes else "[red]FAIL[/]"
    maker = f" by {one.maker}" if one.maker else ""
    head = f"{word} {one.path.name}: {verdict.kind or 'all together'}{maker}"
    lines = [f"{word} [bold]{escape(head.split(' ', 1)[1])}[/], {len(verdict.held)} rules held to"]
    together: dict[tuple[str, str], list[str]] = {}
    for problem in verdict.problems:
        together.setdefault((problem.severity, problem.rule), []).append(problem.text)
    for (severity, name), said in sorted(together.items()):
        colour = "red" if severity == "error" else "yellow"
        rule = texts.get(name)
        what = f"{rule.text} ({rule.source})" if rule else ""
        lines.append(f"  [{colour}]{severity} {name}[/] {escape(what)}")
        lines += [f"      {escape(text)}" for text in said[:MOST_LINES]]
        if len(said) > MOST_LINES:
            lines.append(f"      ... and {len(said) - MOST_LINES} more (--json has them all)")
    if verdict.unchecked:
        lines.append(f"  not checked: {escape(_unchecked(verdict.unchecked))}")
    return lines


def _unchecked(reasons: Any) -> str:
    by_reason: dict[str, list[str]] = {}
    for rule, reason in sorted(reasons.items()):
        by_reason.setdefault(reason, []).append(rule)
    return "; ".join(f"{', '.join(ids)} ({reason})" for reason, ids in by_reason.items())


def _print_rules(as_json: bool) -> None:
    from dicom_node.objects.conformance import rules

    if as_json:
        listed = [
            {"id": rule.id, "text": rule.text, "source": rule.source, "kinds": sorted(rule.kinds)}
            for rule in rules()
        ]
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    for rule in rules():
        typer.echo(f"{rule.id}: {rule.text} [{rule.source}]")


def _fail(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)
