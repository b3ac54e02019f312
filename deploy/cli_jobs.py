"""The commands ``unibiomed-node jobs``: what there is, what failed, what people decide about it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from db.orders import Order

__all__ = ["app"]

app = typer.Typer(
    name="jobs",
    help="List the jobs of a node, and decide about them.",
    invoke_without_command=True,
)
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="UNIBIOMED_HOME", help="The node's folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Numbers = Annotated[list[int], typer.Argument(metavar="ID...", help="Numbers of jobs.")]
DEFAULT_HOME = Path("unibiomed-home")
_MOST_NUMBERS = 12


@app.callback()
def jobs(
    context: typer.Context,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only jobs in this state (repeatable).")
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="UID", help="Only jobs of this study.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
) -> None:
    """List the jobs of a node, the newest first; or decide about them."""
    if context.invoked_subcommand is not None:
        return
    from db.reports import job_list
    from db.states import JobState
    from deploy.node_database import open_database

    try:
        states = [JobState(word) for word in state or []]
    except ValueError:
        _fail(f"There is no such state; choose from: {', '.join(JobState)}.", 2)
    with _home_errors(), open_database(home) as session:
        listed = job_list(session, states=states, study_instance_uid=study, limit=limit)
    if as_json:
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from deploy.job_display import jobs_table

    Console().print(jobs_table(listed))


@app.command()
def failures(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the failed jobs, those of one cause together, with what to do about it."""
    from db.figures import causes
    from deploy.node_database import open_database

    with _home_errors(), open_database(home) as session:
        found = causes(session)
    if as_json:
        listed = [
            {
                "stage": one.stage,
                "sentence": one.sentence,
                "jobs": one.jobs,
                "last_at": one.last_at.isoformat(),
            }
            for one in found
        ]
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo("No job has failed.")
    for one in found:
        shown = " ".join(str(number) for number in one.jobs[:_MOST_NUMBERS])
        more = " ..." if len(one.jobs) > _MOST_NUMBERS else ""
        count = "1 job" if len(one.jobs) == 1 else f"{len(one.jobs)} jobs"
        last = f"{one.last_at.astimezone():%Y-%m-%d %H:%M}"
        typer.echo(f"{count} in {one.stage or 'an early stage'}, last {last}: {one.sentence}")
        typer.echo(f"  mend it, then: unibiomed-node jobs retry {shown}{more}")


@app.command()
def retry(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Numbers of jobs.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    failed: Annotated[
        bool, typer.Option("--failed", help="All failed jobs, as after a PACS was mended.")
    ] = False,
    from_start: Annotated[
        bool,
        typer.Option(
            "--from-start", help="Interpret again, with new UIDs; else go on where it ended."
        ),
    ] = False,
) -> None:
    """Give failed, cancelled or not applicable jobs another chance, and hurry those that wait."""
    from db.orders import Order

    if not numbers and not failed:
        _fail("Say which jobs: their numbers, or --failed.", 2)
    _give(home, Order.RESTART if from_start else Order.RETRY, numbers or (), failed=failed)


@app.command()
def cancel(numbers: Numbers, home: HomeOption = DEFAULT_HOME) -> None:
    """End jobs; a worker that has one stops. What was sent already stays where it is."""
    from db.orders import Order

    _give(home, Order.CANCEL, numbers)


@app.command()
def prioritise(
    numbers: Numbers,
    home: HomeOption = DEFAULT_HOME,
    to: Annotated[str, typer.Option(help="routine, urgent or stat.")] = "stat",
) -> None:
    """Let jobs come before others, or after them."""
    from db.orders import PRIORITIES, Order

    if to not in PRIORITIES:
        _fail(f"There is no priority {to!r}; choose from: {', '.join(PRIORITIES)}.", 2)
    _give(home, Order(to), numbers)


@app.command()
def withdraw(
    number: Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")],
    because: Annotated[
        str, typer.Option("--because", help="Why, in words; stands in the note and in the log.")
    ],
    reason: Annotated[
        str, typer.Option(help="quality, safety or retention: the code that the PACS acts on.")
    ] = "quality",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Withdraw the results of a job, here and (by IHE IOCM rejection notes) at the destinations.

    The node does not give them out any more; each destination is sent a note that rejects them.
    Destinations without rejection_notes in node.yaml are named, with what to remove there by hand.
    """
    from deploy.node_database import database_url_of
    from dicom_node.errors import DicomNodeError
    from dicom_node.objects.fallback_key_objects import Rejection
    from workflows.audit_messages import into_file
    from workflows.home import Home
    from workflows.node import open_node
    from workflows.withdrawal import withdraw as withdraw_results

    if reason not in list(Rejection):
        _fail(f"There is no reason {reason!r}; choose from: {', '.join(Rejection)}.", 2)
    if not because.strip():
        _fail("Say why (--because): people at the PACS will ask.", 2)
    with _home_errors():
        database_url_of(home)
        node = open_node(Home(home.expanduser().resolve()), role="operator")
        try:
            outcomes = withdraw_results(
                node, number, Rejection(reason), because.strip(), _who(), into_file(node)
            )  # fmt: skip
        except DicomNodeError as error:
            _fail(f"{error.sentence[:1].upper()}{error.sentence[1:]}.")
        finally:
            node.database.dispose()
    typer.echo("This node does not give the results out any more.")
    for outcome in outcomes:
        mark = "withdrawn" if outcome.done else "NOT withdrawn"
        typer.echo(f"{outcome.destination}: {mark}. {outcome.sentence}", err=not outcome.done)
    if not all(outcome.done for outcome in outcomes):
        raise typer.Exit(1)


def _give(home: Path, order: Order, numbers: Iterable[int], *, failed: bool = False) -> None:
    """Give an order, and say what came of it for each job."""
    from sqlalchemy import select

    from db.models import Job
    from db.orders import give
    from db.states import JobState
    from deploy.node_database import changing

    chosen = set(numbers)
    with _home_errors(), changing(home) as session:
        if failed:
            chosen.update(session.scalars(select(Job.id).where(Job.state == JobState.FAILED)))
        outcomes = give(session, order, chosen, _who(), datetime.now(UTC))
    for outcome in outcomes:
        typer.echo(outcome.sentence, err=not outcome.done)
    if not all(outcome.done for outcome in outcomes):
        raise typer.Exit(1)


def _who() -> str:
    """Return who sits at the terminal, as the system knows them."""
    try:
        return f"{getpass.getuser()} at the command line"
    except (KeyError, OSError):
        return "somebody at the command line"


@contextmanager
def _home_errors() -> Iterator[None]:
    """End the command with a sentence when the node's database cannot be used."""
    from sqlalchemy.exc import OperationalError

    from deploy.node_database import NoNodeError
    from workflows.yaml_positions import ConfigurationError

    try:
        yield
    except ConfigurationError as error:
        _fail(str(error), 2)
    except NoNodeError as error:
        _fail(str(error))
    except OperationalError as error:
        _fail(f"The node's database does not answer: {error.orig}. Nothing was changed.")


def _fail(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)
