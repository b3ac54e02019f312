"""The command ``unibiomed-node probe``: what a destination takes, kept for the jobs to come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

__all__ = ["probe"]


def probe(
    name: Annotated[str, typer.Argument(metavar="PEER", help="Name of a destination.")],
    home: Annotated[
        Path, typer.Option("--home", envvar="UNIBIOMED_HOME", help="The node's folder.")
    ] = Path("unibiomed-home"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Ask a destination which objects it takes, in which transfer syntaxes, and remember it.

    Nothing is sent. From then on the node writes the form that the destination takes (label map or
    not, compressed or not, Comprehensive 3D SR or Enhanced SR), and says so in the job's log. A
    DICOMweb server tells its services alone.
    """
    from deploy.node_database import NoNodeError, database_url_of
    from workflows.home import Home
    from workflows.node import open_node
    from workflows.probing import SOP_CLASSES, TRANSFER_SYNTAXES, probe_destination
    from workflows.yaml_positions import ConfigurationError

    try:
        database_url_of(home)
        node = open_node(Home(home.expanduser().resolve()), role="operator")
    except ConfigurationError as error:
        _fail(str(error), 2)
    except NoNodeError as error:
        _fail(str(error))
    try:
        destination = node.settings.destination(name)
        if destination is None:
            known = ", ".join(one.name for one in node.settings.destinations) or "none"
            _fail(f"There is no {name!r} among the destinations in node.yaml ({known}).", 2)
        answer = probe_destination(node, destination)
    finally:
        node.database.dispose()
    if answer.sentence:
        _fail(f"{answer.sentence}. What it answered before stays.")
    taken = None
    if answer.accepted is not None:
        accepted = answer.accepted
        taken = {
            what: [words for uid, words in TRANSFER_SYNTAXES.items() if uid in accepted[kind]]
            for kind, what in SOP_CLASSES.items()
        }
    if as_json:
        told = {"destination": name, "accepted": taken, "told": answer.told}
        typer.echo(json.dumps(told, indent=2))
        return
    width = max(map(len, SOP_CLASSES.values()))
    for what, syntaxes in (taken or {}).items():
        typer.echo(f"{what:<{width}}  {', '.join(syntaxes) or 'not taken'}")
    for sentence in answer.told:
        typer.echo(sentence)


def _fail(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)
