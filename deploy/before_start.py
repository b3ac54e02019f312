"""What a node looks at and makes ready before its programs start, and says what is wrong."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import make_url

from workflows.configuration import Configuration
from workflows.queue import silence_of
from workflows.settings import NodeSettings

__all__ = [
    "StartError",
    "look_at_the_broker",
    "look_at_the_card",
    "own_folder",
    "prepare_database",
]


class StartError(Exception):
    """The node could not start; the text is a sentence for the administrator."""


def look_at_the_card(settings: NodeSettings, say: Callable[[str], None]) -> None:
    """Say so when the model cannot be used; receiving works without, and what came can wait."""
    from inference.card import read_card
    from inference.errors import CheckpointError
    from workflows.model_card import model_folder

    try:
        read_card(model_folder(settings))
    except CheckpointError as error:
        say(f"Studies are received, but cannot be interpreted: {error}")


def look_at_the_broker(configuration: Configuration, say: Callable[[str], None]) -> None:
    """Say so when a Redis of the user's own is away; what comes in waits in the database."""
    url = configuration.settings.broker.url
    if url is None or (silence := silence_of(configuration)) is None:
        return
    where = make_url(url).render_as_string(hide_password=True)
    say(
        f"Studies are received, but not interpreted or delivered until Redis at {where} answers "
        f"({silence}). Is it up, is broker.url in node.yaml right? The work goes on by itself."
    )


def own_folder(folder: Path) -> None:
    """Make a folder for the socket that only this user can enter.

    Raises
    ------
    StartError
        It lies where all users write, and another one made it first: whoever owns it could put a
        server of his own there, which all workers would believe.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise StartError(
            f"{folder}, which is for the socket of Redis, is not a folder of this user alone. "
            "Remove it; or choose a home with a shorter path, or another folder by TMPDIR."
        )


def prepare_database(url: str, *, alone: bool) -> None:
    """Bring the schema up to date; with a database of its own, free what dead workers held.

    Raises
    ------
    StartError
        The database is away, damaged, or of a newer version.
    """
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    from db.jobs import forget_workers
    from db.session import Database

    where = make_url(url).render_as_string(hide_password=True)
    database = Database(url)
    try:
        database.upgrade()
        if alone:
            with database.session() as session:
                forget_workers(session, datetime.now(UTC))
    except DBAPIError as error:
        said = str(error.orig).partition("\n")[0]
        raise StartError(
            f"The database {where} cannot be used: {said}. Nothing was changed; is the server up, "
            "is database.url in node.yaml right, is the disk full?"
        ) from error
    except CommandError as error:
        raise StartError(
            f"The database {where} was made by another version of this node ({error}). Install "
            "that version again, or restore the backup made before the update."
        ) from error
    finally:
        database.dispose()
