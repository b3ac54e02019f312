"""The command ``unibiomed-node export-reviews``: verdicts of readers as training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli_jobs import DEFAULT_HOME, HomeOption

__all__ = ["export_reviews"]


def export_reviews(
    folder: Annotated[Path, typer.Argument(help="Where to put it; made when missing.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write accepted, mended and rejected findings as training data for `learning`.

    The files hold patients' images: keep them as you keep the archive.
    """
    from db.audit import record
    from deploy.node_database import changing
    from workflows.audit_messages import into_file
    from workflows.home import Home
    from workflows.node import open_node
    from workflows.training_export import export_reviews as export
    from workflows.yaml_positions import ConfigurationError

    place = Home(home.expanduser().resolve())
    if not place.node_yaml.exists():
        typer.echo(f"{home} is no node's home: it has no node.yaml.", err=True)
        raise typer.Exit(2)
    try:
        node = open_node(place, role="export")
        told = export(node, folder)
        with changing(place.root) as session:
            record(
                session,
                at=node.now(),
                account="command line",
                action="reviews.export",
                details={"findings": told.written.total()},
                on_kept=into_file(node),
            )
        node.database.dispose()
    except (ConfigurationError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    for name, count in sorted(told.written.items()):
        typer.echo(f"{folder / name}: {count} findings")
    for reason, count in sorted(told.left_out.items()):
        typer.echo(f"Left out {count} findings: {reason}.")
    if not told.written:
        typer.echo("Nobody has judged a finding whose images are still here.")
