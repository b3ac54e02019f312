"""The command ``unibiomed-node conformance``: the statements for integration engineers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def conformance(
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for both pages (Markdown); printed if none is given."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", help="Folder with both pages: fail when they are not up to date."),
    ] = None,
) -> None:
    """Write the DICOM conformance statement and the IHE integration statement of this version."""
    from deploy.statement.page import PAGES, page

    stale = []
    for name in PAGES:
        made = page(name)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(made, encoding="utf-8")
        if check is not None:
            path = check / name
            if not path.exists() or path.read_text(encoding="utf-8") != made:
                stale.append(str(path))
        if out is None and check is None:
            typer.echo(made)
    if stale:
        typer.echo(
            f"Not what this version does: {', '.join(stale)}. Write anew: unibiomed-node "
            f"conformance --out {check}",
            err=True,
        )
        raise typer.Exit(1)
