"""The command ``unibiomed-node``.

Every command imports what it needs when it runs, so that ``--help`` answers at once and no
command loads torch that does not need it.

Exit codes: 0 done; 1 it did not work, and the last line says why; 2 the command line or a
configuration file has a mistake.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from deploy.cli_backup import backup
from deploy.cli_conformance import conformance
from deploy.cli_disk import disk
from deploy.cli_jobs import app as jobs_app
from deploy.cli_learning import evaluate, train
from deploy.cli_lint import lint
from deploy.cli_model import app as model_app
from deploy.cli_peers import app as peers_app
from deploy.cli_peers import reload
from deploy.cli_probe import probe
from deploy.cli_reviews import export_reviews
from deploy.cli_worklists import worklists
from dicom_node.plain_text import one_line

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

__all__ = ["app", "main"]

app = typer.Typer(
    name="unibiomed-node",
    help="A PACS-integrated node: studies come in by C-STORE, the grounded model UniBiomed reads "
    "them, DICOM SEG and SR go back. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(model_app)
app.add_typer(peers_app)
app.add_typer(jobs_app)

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="UNIBIOMED_HOME",
        help="The node's folder: settings, rules, database, archive, logs.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DEFAULT_HOME = Path("unibiomed-home")


def main() -> None:
    """Run the command line; known errors end as one sentence and an exit code."""
    app()


def _fail(sentence: str, code: int = 1) -> NoReturn:
    _say(sentence, err=True)
    raise typer.Exit(code)


@app.command()
def up(home: HomeOption = DEFAULT_HOME) -> None:
    """Start the whole node and keep it running until Ctrl-C or SIGTERM.

    Redis, the DICOM listener, the workers and the periodic tasks run as one supervised tree. The
    first start writes commented node.yaml and rules.yaml.
    """
    from deploy.embedded import StartError, run
    from deploy.ownership import AlreadyRunningError
    from workflows.yaml_positions import ConfigurationError

    try:
        run(home, _say)
    except ConfigurationError as error:
        _fail(str(error), 2)
    except (AlreadyRunningError, StartError, OSError) as error:
        _fail(str(error))


@app.command("check-config")
def check_config(home: HomeOption = DEFAULT_HOME) -> None:
    """Check node.yaml and rules.yaml; name file, line and mend of every mistake."""
    from workflows.configuration import check_configuration
    from workflows.home import Home

    problems = check_configuration(Home(home.expanduser().resolve()))
    for problem in problems:
        typer.echo(problem, err=True)
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(2)
    typer.echo(f"The node starts with these settings and rules ({home}).")


@app.command()
def send(
    path: Annotated[Path, typer.Argument(help="A DICOM file, or a folder of them.")],
    to: Annotated[str, typer.Option("--to", metavar="AE@HOST:PORT", help="Where to send.")],
    sender: Annotated[
        str, typer.Option("--from", metavar="AE", help="The AE title to send as.")
    ] = "UNIBIOMED-SEND",
) -> None:
    """Send DICOM files by C-STORE."""
    from deploy.sending import AddressError, SendError, send_folder

    try:
        sent = send_folder(path, to, sender, _say)
    except AddressError as error:
        _fail(str(error), 2)
    except SendError as error:
        _fail(str(error))
    typer.echo(f"{to} took {sent.stored} of {sent.total} objects.")
    if sent.stored < sent.total:
        raise typer.Exit(1)


@app.command()
def job(
    number: Annotated[int, typer.Argument(metavar="ID", help="The job's number.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show one job: stages with times, findings with measurements, results and their delivery."""
    from db.reports import job_report

    with _reading(home) as session:
        report = job_report(session, number)
    if report is None:
        _fail(f"There is no job {number} in {home}; see: unibiomed-node jobs --home {home}")
    if as_json:
        _print_json(report)
        return
    from deploy.job_display import job_page

    _print_rich(*job_page(report))


app.command()(train)
app.command()(evaluate)
app.command("export-reviews")(export_reviews)
app.command()(reload)
app.command()(lint)
app.command()(probe)
app.command()(worklists)
app.command()(conformance)
app.command()(disk)
app.command()(backup)


@app.command()
def interpret(
    path: Annotated[Path, typer.Argument(help="A DICOM file, or a folder of them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the SEG and SR objects.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", help="What to look for (repeatable); all the model knows if none."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Folder of the weights; the shipped ones if none."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            help="Write besides (repeatable): secondary_capture, report_document, key_objects, "
            "structure_set.",
        ),
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="segmentation, disease_recognition or grounded_report.")
    ] = "segmentation",
    as_json: JsonOption = False,
) -> None:
    """Interpret DICOM files without network and queue, the same way as the node does."""
    from deploy.interpreting import InterpretError, interpret_folder

    try:
        reports = interpret_folder(
            path, out, targets=target or None, model=model, say=_say, also=also or (), task=task
        )
    except InterpretError as error:
        _fail(str(error))
    if as_json:
        _print_json(reports)
        return
    from deploy.job_display import findings_table, results_table

    for report in reports:
        _say(report["source"])
        _print_rich(findings_table(report["findings"]), results_table(report["results"]))


@app.command()
def demo(
    study: Annotated[
        Path | None,
        typer.Argument(help="A folder of DICOM files; a simulated CT phantom if none is given."),
    ] = None,
    home: Annotated[
        Path, typer.Option("--home", help="Where the demo's node lives; made anew each time.")
    ] = Path("demo-home"),
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Folder of the weights; the shipped ones if none."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds after which the demo gives up.")] = 900.0,
) -> None:
    """Run one study through a whole node and a PACS on this machine, and show what happens."""
    from deploy.demo import DemoError, run

    try:
        run(study, home, model=model, seconds=timeout)
    except DemoError as error:
        _fail(str(error))


@app.command()
def doctor(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Check everything the node needs on this machine, and say how to mend what is missing."""
    from deploy.doctor import examine

    findings = examine(home)
    if as_json:
        _print_json([finding.as_json() for finding in findings])
    else:
        from deploy.job_display import doctor_table

        _print_rich(doctor_table(findings))
    if any(finding.verdict == "broken" for finding in findings):
        raise typer.Exit(1)


@app.command("version")
def show_version() -> None:
    """Print the version."""
    from deploy import version

    typer.echo(version())


def _say(sentence: str, *, err: bool = False) -> None:
    # Sentences quote what strangers wrote: a series' description must not command the terminal.
    typer.echo("\n".join(one_line(line) for line in sentence.split("\n")), err=err)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_rich(*parts: Any) -> None:
    from rich.console import Console

    console = Console()
    for part in parts:
        console.print(part)


def _reading(home: Path) -> AbstractContextManager[Session]:
    """Open the node's database for reading, whether the node runs or not."""
    from deploy.node_database import NoNodeError, open_database
    from workflows.yaml_positions import ConfigurationError

    try:
        return open_database(home)
    except ConfigurationError as error:
        _fail(str(error), 2)
    except NoNodeError as error:
        _fail(str(error))


if __name__ == "__main__":
    main()
