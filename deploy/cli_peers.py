"""The commands ``unibiomed-node peers`` and ``reload``: who may talk to the node, and does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

__all__ = ["app", "reload"]

app = typer.Typer(
    name="peers",
    help="Who may talk to this node, and whether that works.",
    no_args_is_help=True,
)
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="UNIBIOMED_HOME", help="The node's folder.")
]
DEFAULT_HOME = Path("unibiomed-home")


@app.command("list")
def show(
    home: HomeOption = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List peers and destinations, when each called last, and who was refused."""
    from deploy.peer_display import peers_table
    from deploy.peer_list import PeerListError, peer_list

    try:
        listed = peer_list(home)
    except PeerListError as error:
        _fail(str(error), 2)
    if as_json:
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    for part in peers_table(listed):
        console.print(part)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    ae_title: Annotated[str, typer.Argument(help="Its AE title, exactly as it calls itself.")],
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[
        str | None, typer.Option(help="Address, network or name it calls from; any if none.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Where it listens, for calls to it.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may do (repeatable): echo, store, query, retrieve, commit, notify."
        ),
    ] = None,
    max_associations: Annotated[
        int | None, typer.Option(help="How many associations it may have at a time.")
    ] = None,
    requires_tls: Annotated[
        bool, typer.Option("--requires-tls", help="Refuse it without TLS.")
    ] = False,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file; it must call with this very certificate.")
    ] = None,
) -> None:
    """Add a peer to node.yaml, checked, and have the running node let it in at once."""
    from deploy.configuration_edit import add_entry
    from workflows.yaml_positions import ConfigurationError

    entry = {
        "name": name,
        "ae_title": ae_title,
        "host": host,
        "port": port,
        "allow": allow or None,
        "max_associations": max_associations,
        "requires_tls": requires_tls or None,
        "certificate": None if certificate is None else str(certificate.expanduser().resolve()),
    }
    try:
        add_entry(home, "peers", {key: value for key, value in entry.items() if value is not None})
    except ConfigurationError as error:
        _fail(f"{error}\nNothing was changed.", 2)
    except OSError as error:
        _fail(f"{error}. Nothing was changed.")
    typer.echo(f"{name} ({ae_title}) may talk to this node.")


@app.command()
def test(
    name: Annotated[str, typer.Argument(help="Name of a destination or peer in node.yaml.")],
    home: HomeOption = DEFAULT_HOME,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Whether to leave a test object there.")
    ] = True,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for a call from the other side; 0: do not.")
    ] = 60.0,
) -> None:
    """Try a connection: C-ECHO both ways, a test object stored there and read back."""
    from deploy.peer_test import UnknownPeerError, try_peer
    from workflows.yaml_positions import ConfigurationError

    marks = {True: "ok", False: "FAILED", None: "not tried"}
    failed = False
    try:
        for step in try_peer(home, name, store=store, wait_seconds=wait, say=typer.echo):
            typer.echo(f"{marks[step.ok]:>9}  {step.what}: {step.sentence}")
            failed |= step.ok is False
    except (ConfigurationError, UnknownPeerError) as error:
        _fail(str(error), 2)
    if failed:
        raise typer.Exit(1)


def reload(home: HomeOption = DEFAULT_HOME) -> None:
    """Check node.yaml and rules.yaml, and have the running node read them again."""
    from deploy.configuration_edit import check_and_reload
    from workflows.yaml_positions import ConfigurationError

    try:
        check_and_reload(home)
    except ConfigurationError as error:
        _fail(f"{error}\nThe node goes on with what it read before.", 2)
    typer.echo(
        "The node reads peers, destinations, certificates and rules again. Ports, model, database "
        "and broker need a restart."
    )


def _fail(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)
