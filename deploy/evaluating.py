"""Evaluate a checkpoint on whatever data are at hand: the command ``evaluate``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from deploy.annotated_dicom import dicom_cases
from dicom_node.errors import DicomNodeError
from inference.card import ModelCard
from inference.engine import Engine
from inference.errors import InferenceError
from learning.cases import Case, DataError, published_cases, recipe_cases
from learning.datasets import Side
from learning.evaluate import Row, measure, read_rows
from learning.evaluate_words import measure_words
from learning.evaluation_page import write_evaluation
from learning.provisional import provisional
from learning.recipe import load_recipe


class EvaluationError(Exception):
    """It cannot be evaluated; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate; the options of the command."""

    checkpoint: Path
    data: Path
    out: Path
    config: Path = Path("configs/nano.yaml")
    all_groups: bool = False
    names: tuple[str, ...] = ()
    limit: int | None = None
    every: int = 1
    tolerance: float = 2.0
    worst: int = 4
    words: bool = True
    against: Path | None = None
    unlisted: bool = False
    other_modalities: bool = True
    device: str = "auto"


def run(request: Request) -> Path:
    """Measure and write; return the page.

    Raises
    ------
    EvaluationError
        With a sentence that says what is wrong with the model, the data or the folder.
    """
    try:
        against = _earlier(request.against)
        engine = Engine.load(request.checkpoint, request.device)
        if request.unlisted:
            engine = engine.with_card(provisional(engine.card))
        stream, described = _cases(request, engine.card)
        with tqdm(desc="images and volumes", unit="", dynamic_ncols=True) as bar:
            measured = measure(
                engine,
                stream(),
                tolerance=request.tolerance,
                worst=request.worst,
                other_modalities=request.other_modalities,
                progress=lambda number, _name: _show(bar, number),
            )
        words = []
        if request.words:
            with tqdm(stream(), desc="answers in words", unit="", dynamic_ncols=True) as cases:
                words = measure_words(engine, cases)
        return write_evaluation(
            measured,
            engine,
            request.out,
            data=described,
            tolerance=request.tolerance,
            words=words,
            against=against,
        )
    except ValidationError as error:
        raise EvaluationError(f"{request.config} is no recipe: {error}") from error
    except (InferenceError, DicomNodeError, DataError, OSError, ValueError) as error:
        raise EvaluationError(str(error)) from error


def _show(bar: Any, number: int) -> None:
    bar.n = number
    bar.refresh()


def _earlier(folder: Path | None) -> tuple[str, list[Row]] | None:
    return None if folder is None else (folder.name, read_rows(folder / "cases.csv"))


def _cases(request: Request, card: ModelCard) -> tuple[Callable[[], Iterator[Case]], str]:
    """Return what reads the cases, as often as it is called, and what they are in words."""

    def some(read: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
        return lambda: itertools.islice(
            itertools.islice(read(), 0, None, request.every), request.limit
        )

    part = "" if request.every == 1 else f", each {request.every}th image or volume"
    part += "" if request.limit is None else f", at most {request.limit}"
    data = request.data
    if data.suffix == ".json":
        return some(lambda: published_cases(data)), f"the test split of {data.name}{part}"
    if not data.is_dir():
        raise EvaluationError(f"{data} is neither a folder nor a JSON file")
    if any(data.glob("*/labels.csv")):
        if not request.config.is_file():
            raise EvaluationError(
                f"{request.config} is missing: --config names the recipe that says what the masks "
                "of the sets mean"
            )
        recipe = load_recipe(request.config)
        groups = "all groups" if request.all_groups else "the held-out groups"
        sides = tuple(Side) if request.all_groups else (Side.TEST,)
        reader = some(lambda: recipe_cases(recipe, data, sides=sides))
        return reader, f"{groups} of {request.config.name}{part}"
    named = _names(request.names)
    return some(lambda: dicom_cases(data, card, named)), f"DICOM series of {data.name}{part}"


def _names(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read 'label=target' pairs."""
    result = {}
    for pair in pairs:
        label, separator, target = pair.partition("=")
        if not (label and separator and target):
            raise EvaluationError(f"--name {pair!r} is not 'label=target'")
        result[label.strip()] = target.strip()
    return result
