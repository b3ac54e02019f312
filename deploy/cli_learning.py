"""The commands ``unibiomed-node train`` and ``unibiomed-node evaluate``."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Annotated, NoReturn

import typer

__all__ = ["evaluate", "train"]

_PACKAGES = (
    "accelerate", "matplotlib", "monai", "nltk", "peft", "rouge_score", "sacrebleu", "sklearn",
)  # fmt: skip


def _fail(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)


def _needs_learning() -> None:
    """Name what is not installed, before an import fails in the middle of the work."""
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        _fail(
            f"{', '.join(absent)} not installed: training and evaluation need the extra "
            "'learning'; run: pip install 'unibiomed-node[learning]'"
        )


def train(
    config: Annotated[
        Path, typer.Argument(help="The recipe, such as configs/nano.yaml or configs/adapt.yaml.")
    ],
    data: Annotated[
        Path, typer.Option("--data", help="Folder of the training sets that the recipe names.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the run and its checkpoints.")],
) -> None:
    """Train a model by a recipe; begun runs go on from their last checkpoint.

    Several GPUs: torchrun --nproc-per-node N -m deploy.cli train CONFIG --data DIR --out DIR.
    """
    from pydantic import ValidationError

    _needs_learning()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        _train(config, data, out)
    except ValidationError as error:
        _fail(f"{config} is no recipe: {error}", 2)
    except OSError as error:
        _fail(str(error))


def _train(config: Path, data: Path, out: Path) -> None:
    from deploy.annotated_dicom import open_dicom
    from inference.errors import CheckpointError
    from learning.adapt import adapt, is_adaptation
    from learning.cases import DataError
    from learning.train import train as train_by_recipe

    if not is_adaptation(config):
        train_by_recipe(config, data, out)
        return
    try:
        adapt(config, data, out, open_dicom)
    except (CheckpointError, DataError) as error:
        _fail(str(error))


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the model.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="Sets of a recipe (folders with labels.csv), a published JSON, or a folder of "
            "DICOM series with SEG or RTSTRUCT."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, figures and the page.")],
    config: Annotated[
        Path, typer.Option("--config", help="The recipe that says what the masks of sets mean.")
    ] = Path("configs/nano.yaml"),
    all_groups: Annotated[
        bool, typer.Option("--all-groups", help="Also what the recipe trains on.")
    ] = False,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="'label of a segment=target of the card', for DICOM; repeat."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many images and volumes.")
    ] = None,
    every: Annotated[
        int, typer.Option("--every", min=1, help="Of the images and volumes only each Nth.")
    ] = 1,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0.0, help="Of the surface Dice, in mm.")
    ] = 2.0,
    worst: Annotated[
        int, typer.Option("--worst", min=0, help="Worst cases to show for each target.")
    ] = 4,
    words: Annotated[bool, typer.Option(help="Also regions, closed questions and reports.")] = True,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Folder of another evaluation of the same data."),
    ] = None,
    unlisted: Annotated[
        bool,
        typer.Option("--unlisted", help="Also targets that the card names but does not list."),
    ] = False,
    other_modalities: Annotated[
        bool,
        typer.Option(help="Also ask images for targets of another modality, as further negatives."),
    ] = True,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")] = "auto",
) -> None:
    """Measure a model: tables (CSV, JSON), figures, and one page that holds them all."""
    _needs_learning()
    from deploy.evaluating import EvaluationError, Request, run

    request = Request(
        checkpoint=checkpoint,
        data=data,
        out=out,
        config=config,
        all_groups=all_groups,
        names=tuple(names or ()),
        limit=limit,
        every=every,
        tolerance=tolerance,
        worst=worst,
        words=words,
        against=against,
        unlisted=unlisted,
        other_modalities=other_modalities,
        device=device,
    )
    try:
        page = run(request)
    except EvaluationError as error:
        _fail(str(error))
    typer.echo(f"The page: {page}")
