"""The command ``unibiomed-node worklists``: how worklists elsewhere answer, and what is claimed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_MOST = 50


def worklists(
    home: Annotated[
        Path, typer.Option("--home", envvar="UNIBIOMED_HOME", help="The node's folder.")
    ] = Path("unibiomed-home"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show how the worklists of node.yaml answer, and the workitems that were claimed there."""
    from deploy.node_database import NoNodeError, open_database
    from workflows.yaml_positions import ConfigurationError

    try:
        with open_database(home) as session:
            told = _told(session)
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    except NoNodeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    if not told["worklists"]:
        typer.echo("No worklist was asked yet: list them under worklists in node.yaml.")
    for one in told["worklists"]:
        typer.echo(f"{one['name']}: {one['says']} (asked again {one['next_at']})")
    for claim in told["workitems"]:
        state = claim["outcome"] or claim["state"]
        typer.echo(f"{claim['claimed_at']}  {state:<12} {claim['uid']}  {claim['says']}")


def _told(session: Session) -> dict[str, Any]:
    from db.performing import contacts, latest_claims

    return {
        "worklists": [
            {
                "name": one.manager,
                "says": f"{one.failures} times no answer: {one.sentence}"
                if one.sentence
                else "answers",
                "failures": one.failures,
                "next_at": one.next_at.isoformat(timespec="seconds"),
            }
            for one in contacts(session)
        ],
        "workitems": [
            {
                "worklist": one.manager,
                "uid": one.workitem_uid,
                "study_instance_uid": one.study_instance_uid,
                "state": one.state,
                "outcome": one.outcome,
                "says": one.sentence,
                "claimed_at": one.claimed_at.isoformat(timespec="seconds"),
            }
            for one in latest_claims(session, _MOST)
        ],
    }
