"""The command ``unibiomed-node disk``: how full the archive's disk is, and when it will be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def disk(
    home: Annotated[
        Path, typer.Option("--home", envvar="UNIBIOMED_HOME", help="The node's folder.")
    ] = Path("unibiomed-home"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show how full the archive's disk is, and on which day it will be full."""
    from db.promises import promised_studies
    from workflows.disk_forecast import base_of, forecast_disk, intake_of
    from workflows.home import Home
    from workflows.node import open_node
    from workflows.yaml_positions import ConfigurationError

    root = Home(home.expanduser().resolve())
    if not root.node_yaml.exists():
        typer.echo(f"There is no node in {home}.", err=True)
        raise typer.Exit(1)
    try:
        node = open_node(root)
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    now = node.now()
    found = forecast_disk(node, intake_of(node, now))
    with node.database.reading() as session:
        promised = promised_studies(session)
    node.database.dispose()
    day = found.full_at(now)
    if as_json:
        told = {
            "total": found.total,
            "free": found.free,
            "per_day": found.per_day,
            "mean_of_days": found.per_day_of,
            "full_in_days": found.full_in_days,
            "full_at": None if day is None else day.isoformat(timespec="seconds"),
            "says": found.sentence,
            "committed_studies": promised,
        }
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo(f"{found.free / 2**30:.1f} of {found.total / 2**30:.1f} GiB are free for images.")
    when = ""
    if day is not None:
        base = base_of(found.per_day_of or 0.0)
        when = f"It is full on {day:%Y-%m-%d} ({base})."
    typer.echo(found.sentence or when)
    if promised:
        archive = node.settings.retention.archive
        until = (
            f"until {archive} holds them" if archive else "as retention.archive names no archive"
        )
        typer.echo(f"{promised} studies stay, to which the node committed, {until}.")
