"""The commands ``unibiomed-node retry`` and ``cancel``: what people decide about jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["cancel", "retry"]

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="UNIBIOMED_HOME", help="The node's folder.")
]
DEFAULT_HOME = Path("unibiomed-home")


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
    from db.jobs import hurry, reopen
    from deploy.node_database import changing

    if not numbers and not failed:
        _fail("Say which jobs: their numbers, or --failed.", 2)
    left = 0
    with _home_errors(), changing(home) as session:
        for number in _chosen(session, numbers or (), failed):
            now = datetime.now(UTC)
            state = reopen(session, number, "retried by hand", now=now, from_start=from_start)
            if state is not None:
                typer.echo(f"Job {number} goes on: {state}.")
            elif hurry(session, number, now):
                typer.echo(f"Job {number} is tried at once.")
            else:
                left += 1
                _say_why_left(session, number)
    if left:
        raise typer.Exit(1)


def cancel(
    number: Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")],
    home: HomeOption = DEFAULT_HOME,
    reason: Annotated[str, typer.Option(help="Kept with the job.")] = "cancelled by hand",
) -> None:
    """End a job; a worker that has it stops. What was sent already stays where it is."""
    from db.jobs import JobState, finish
    from db.models import Job
    from deploy.node_database import changing

    with _home_errors(), changing(home) as session:
        if session.get(Job, number) is None:
            _fail(f"There is no job {number} in {home}.")
        if not finish(session, number, JobState.CANCELLED, reason, now=datetime.now(UTC)):
            _fail(f"Job {number} has ended already.")
    typer.echo(f"Job {number} is cancelled.")


def _chosen(session: Session, numbers: Sequence[int], failed: bool) -> list[int]:
    """Return the jobs in question, each once, the oldest first."""
    from sqlalchemy import select

    from db.jobs import JobState
    from db.models import Job

    chosen = set(numbers)
    if failed:
        chosen.update(session.scalars(select(Job.id).where(Job.state == JobState.FAILED)))
    return sorted(chosen)


def _say_why_left(session: Session, number: int) -> None:
    from db.models import Job

    job = session.get(Job, number)
    if job is None:
        reason = "there is no such job"
    elif job.finished_at is None:
        reason = f"a worker has it ({job.state})"
    else:
        reason = f"it is {job.state}, or another job does the same work by now"
    typer.echo(f"Job {number} is left as it is: {reason}.", err=True)


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
