"""Open the database of a node's home, whether the node runs or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

__all__ = ["NoNodeError", "changing", "database_url_of", "open_database"]


class NoNodeError(Exception):
    """The folder is no node's home; the text is a sentence."""


def open_database(folder: Path) -> AbstractContextManager[Session]:
    """Open the database of the node at `folder` for reading.

    Raises
    ------
    NoNodeError
        No node has ever started there.
    workflows.yaml_positions.ConfigurationError
        ``node.yaml`` has a mistake.
    """
    return _session(database_url_of(folder), writes=False)


def changing(folder: Path) -> AbstractContextManager[Session]:
    """Open it for one change, committed at the end; errors as `open_database`."""
    return _session(database_url_of(folder), writes=True)


def database_url_of(folder: Path) -> str:
    """Return where the database of the node at `folder` is; errors as `open_database`."""
    from workflows.home import Home
    from workflows.settings import load

    home = Home(folder.expanduser().resolve())
    if not home.node_yaml.exists():
        raise NoNodeError(
            f"{folder} is no node's home: it has no node.yaml. "
            f"Start one with: unibiomed-node up --home {folder}"
        )
    settings = load(home.node_yaml)
    if settings.database.url is None and not home.database.exists():
        raise NoNodeError(
            f"The node at {folder} has not run yet: it has no database. "
            f"Start it with: unibiomed-node up --home {folder}"
        )
    return home.database_url(settings)


@contextmanager
def _session(url: str, *, writes: bool) -> Iterator[Session]:
    from db.session import Database

    database = Database(url)
    try:
        with database.session() if writes else database.reading() as session:
            yield session
    finally:
        database.dispose()
