"""The command ``unibiomed-node backup``: what a node cannot be set up again without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder, for this backup alone.")],
    home: Annotated[
        Path, typer.Option("--home", envvar="UNIBIOMED_HOME", help="The node's folder.")
    ] = Path("unibiomed-home"),
) -> None:
    """Copy database, node.yaml and rules.yaml, while the node runs; archive/ is copied after it.

    Whatever the copy of the database knows lies in archive/ and work/ by then, and what they hold
    beyond it, a node that starts on them finds by itself.
    """
    import shutil
    import sqlite3

    from sqlalchemy import make_url

    from db.backup import copy_sqlite
    from deploy.node_database import NoNodeError, database_url_of
    from workflows.home import Home
    from workflows.yaml_positions import ConfigurationError

    node = Home(home.expanduser().resolve())
    folder = folder.expanduser().resolve()
    try:
        where = make_url(database_url_of(home))
        embedded = where.get_backend_name() == "sqlite"
        folder.mkdir(parents=True, mode=0o700)
        for path in (node.node_yaml, node.rules_yaml):
            if path.exists():
                shutil.copy2(path, folder)
        if embedded:
            copy_sqlite(Path(where.database or ""), folder / node.database.name)
    except ConfigurationError as error:
        _fail(str(error), 2)
    except NoNodeError as error:
        _fail(str(error))
    except FileExistsError:
        _fail(f"{folder} exists already. Name a new folder, so that no older backup is lost.")
    except sqlite3.Error as error:
        _fail(f"The database was not copied: {error}.")
    except OSError as error:
        _fail(f"The backup was not written: {error}. Is there room, and may this user write there?")
    typer.echo(f"Copied to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}.")
    if not embedded:
        typer.echo("The database is a server's: back it up by pg_dump, now.")
    typer.echo(f"Copy {node.archive} and {node.work} next, and certificates that lie elsewhere.")


def _fail(sentence: str, code: int = 1) -> None:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)
