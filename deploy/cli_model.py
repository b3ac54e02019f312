"""The commands ``unibiomed-node model ...``: fetch, look at and check model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from inference.inspection import Description

__all__ = ["app"]

app = typer.Typer(
    name="model",
    help="Fetch, look at and check model folders.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

FolderArgument = Annotated[
    Path | None, typer.Argument(help="Folder of the model; the shipped nano if none.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_GIGABYTE = 1e9


def _fail(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)


@app.command()
def pull(
    repository: Annotated[
        str, typer.Argument(metavar="[REPO]", help="Repository on the Hugging Face hub.")
    ] = "Luffy503/UniBiomed",
    folder: Annotated[
        Path | None, typer.Option("--to", help="Where to put it; models/NAME if not given.")
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Commit, tag or branch; the commit that the folder has if none."),
    ] = None,
) -> None:
    """Fetch a published model: weights and tokenizer, never code. Goes on where it broke off."""
    from deploy.model_download import DownloadError
    from deploy.model_download import pull as fetch
    from inference.errors import CheckpointError

    place = folder or Path("models") / repository.rsplit("/", 1)[-1]
    try:
        record = fetch(repository, place, revision, typer.echo)
    except (DownloadError, CheckpointError) as error:
        _fail(str(error))
    typer.echo(f"SHA-256 of the weights: {record.digest}")
    typer.echo(f"Check it with: unibiomed-node model verify {place}")


@app.command()
def show(folder: FolderArgument = None, as_json: JsonOption = False) -> None:
    """Show a model: its card, digest, size and the memory that it takes."""
    from deploy.model_download import DownloadError, read_record
    from inference.errors import CheckpointError
    from inference.inspection import describe

    place = folder or _shipped()
    try:
        description, record = describe(place), read_record(place)
    except (CheckpointError, DownloadError) as error:
        _fail(str(error))
    origin = None if record is None else f"{record.repository} at {record.revision}"
    facts = _facts(description, origin)
    if as_json:
        card = description.card
        data = {**facts, "card": None if card is None else card.model_dump(mode="json")}
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    _print_description(place, description, facts)


@app.command()
def verify(folder: FolderArgument = None) -> None:
    """Check a model from its files to its last value; exit code 1 where something is wrong."""
    from deploy.model_download import DownloadError, changed_files
    from inference.inspection import verify as check_all

    place = folder or _shipped()
    checks = [(check.subject, check.problem) for check in check_all(place)]
    try:
        changed = changed_files(place)
        problem = f"changed since the download: {', '.join(changed)}" if changed else None
    except DownloadError as error:
        problem = str(error)
    if problem is not None:
        checks.append(("download", problem))
    for subject, wrong in checks:
        typer.echo(f"{'ok' if wrong is None else 'WRONG':6}{subject}{_because(wrong)}")
    if any(wrong is not None for _, wrong in checks):
        raise typer.Exit(1)


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="Folder of a published model.")],
    version: Annotated[str, typer.Option(help="What tells this copy from another.")] = "unknown",
) -> None:
    """Write the card of a published model that was copied by hand. It lists no target."""
    from inference.card import CARD_FILE, write_card
    from inference.errors import CheckpointError
    from inference.published_card import default_card
    from inference.weight_files import weight_files

    if (folder / CARD_FILE).exists():
        _fail(f"{folder / CARD_FILE} exists already and was left as it is.")
    try:
        weight_files(folder)
    except CheckpointError as error:
        _fail(str(error))
    typer.echo(f"{write_card(default_card(version), folder)} was written; it lists no target.")


@app.command()
def merge(
    trained: Annotated[Path, typer.Argument(help="The .pth file of a training.")],
    base: Annotated[Path, typer.Option("--base", help="Folder of InternVL2.5-1B.")],
    sam: Annotated[Path, typer.Option("--sam2", help="The file sam2_hiera_large.pt.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the whole model.")],
    alpha: Annotated[float, typer.Option("--lora-alpha", help="LoRA's alpha.", min=0.0)] = 256.0,
) -> None:
    """Lay a training file over the models it was trained from, and write the whole model."""
    from inference.errors import CheckpointError
    from inference.published_folder import merge_training

    try:
        merge_training(trained, base, sam, out, alpha)
    except (CheckpointError, OSError) as error:
        _fail(str(error))
    typer.echo(f"{out} was written; give it a card: unibiomed-node model card {out}")


def _shipped() -> Path:
    from importlib import resources

    return Path(str(resources.files("inference") / "weights" / "nano"))


def _because(problem: str | None) -> str:
    return "" if problem is None else f": {problem}"


def _facts(description: Description, origin: str | None) -> dict[str, Any]:
    """Return what `show` prints beside the card, as plain data."""
    return {
        "form": description.form,
        "origin": origin,
        "digest": description.digest,
        "tensors": description.tensors,
        "values": description.values,
        "values_by_part": description.parts,
        "bytes_stored": description.stored_bytes,
        "bytes_in_memory": description.loaded_bytes,
        "card_problem": description.card_problem,
    }


def _print_description(folder: Path, description: Description, facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=str(folder), show_header=False)
    found = description.card
    if found is not None:
        table.add_row("model", f"{found.name} {found.version}")
        table.add_row("licence", found.licence)
        table.add_row("use", f"{found.intended_use} {found.research_use}")
    if facts["origin"]:
        table.add_row("from", facts["origin"])
    table.add_row("SHA-256 of the weights", description.digest)
    table.add_row("parameters", f"{description.values:,} in {description.tensors:,} tensors")
    for part, values in description.parts.items():
        table.add_row(f"  {part}", f"{values:,}")
    table.add_row("on the disk", f"{description.stored_bytes / _GIGABYTE:.2f} GB")
    table.add_row(
        "in memory", f"{description.loaded_bytes / _GIGABYTE:.2f} GB (float32), images come on top"
    )
    console.print(table)
    if found is None:
        console.print(description.card_problem, style="red")
        return
    targets = Table("modality", "target", "Dice (95 %)", "presence AUC", title="Listed targets")
    for item in found.targets:
        score = item.score
        interval = f"{score.dice_interval.low:.2f}..{score.dice_interval.high:.2f}"
        targets.add_row(
            item.modality, item.name, f"{score.dice:.2f} ({interval})", f"{score.presence_auc:.2f}"
        )
    if found.targets:
        console.print(targets)
    else:
        console.print("The card lists no target: the node refuses every question to this model.")
    for task in found.spoken:
        console.print(f"- In its own words: {task.statement}")
    for sentence in found.limitations:
        console.print(f"- {sentence}")
