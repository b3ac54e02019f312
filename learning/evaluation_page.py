"""Write an evaluation: tables, figures, and one page that holds them all and needs no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inference.engine import Engine
from learning import evaluation_figures as figures
from learning.evaluate import (
    Measured,
    Row,
    compare_rows,
    summarise,
    write_rows,
    write_summary,
)

PAGE = "index.html"


def write_evaluation(
    measured: Measured,
    engine: Engine,
    out: Path,
    *,
    data: str,
    tolerance: float,
    words: Sequence[dict[str, Any]] = (),
    against: tuple[str, Sequence[Row]] | None = None,
) -> Path:
    """Write ``cases.csv``, ``summary`` as CSV, JSON and Markdown, two figures, ``index.html``.

    Parameters
    ----------
    data
        What was measured on, in words.
    tolerance
        Of the surface Dice, mm.
    words
        Lines of `learning.evaluate_words.measure_words`.
    against
        Name and rows of another evaluation to compare with.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        When nothing was measured.
    """
    if not measured.rows:
        raise ValueError(
            "nothing was measured: the data show no target that the model card lists, in a "
            "modality of the card"
        )
    out.mkdir(parents=True, exist_ok=True)
    lines = summarise(measured.rows, engine)
    comparison = [] if against is None else compare_rows(against[1], measured.rows)
    facts = {
        "model": f"{engine.card.name} {engine.card.version}",
        "digest": engine.digest,
        "data": data,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cases": len({row.case for row in measured.rows}),
        "groups": len({row.group for row in measured.rows}),
        "tolerance_mm": tolerance,
        "research_use": engine.card.research_use,
        "against": against[0] if against is not None else None,
    }
    write_rows(measured.rows, out / "cases.csv")
    figures.box_plots(measured.rows, lines, out / "dice.png")
    error = figures.reliability(measured.rows, out / "reliability.png")
    recorded = {**facts, "calibration_error_all": error, "words": list(words)}
    write_summary(lines, {**recorded, "comparison": comparison}, out)
    (out / "summary.md").write_text(_markdown(facts, error, lines, words), encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("evaluation_page.html").render(
        facts=facts,
        lines=lines,
        mean=lines[-1],
        error=error,
        words=words,
        comparison=comparison,
        box_plots=_source((out / "dice.png").read_bytes()),
        reliability=_source((out / "reliability.png").read_bytes()),
        worst=[
            {"row": picture.row, "source": _source(figures.overlay(picture))}
            for picture in measured.worst
        ],
        truth_colour=figures.TRUTH_COLOUR,
        found_colour=figures.FOUND_COLOUR,
        number=_number,
    )
    path = out / PAGE
    path.write_text(page, encoding="utf-8")
    return path


_MARKDOWN_TARGETS = (
    ("Dice, shown", "dice_positive", 3),
    ("floor", "dice_floor_of_card", 2),
    ("Dice, all", "dice_negatives_counted", 3),
    ("HD95 mm", "hausdorff_95_mm", 1),
    ("NSD", "surface_dice", 2),
    ("sens.", "sensitivity", 2),
    ("spec.", "specificity", 2),
    ("AUC", "presence_auc", 3),
    ("ECE", "calibration_error", 3),
    ("Dice, reference's rule", "published_rule_dice", 3),
)
_MARKDOWN_WORDS = (
    ("accuracy", "accuracy"),
    ("majority", "accuracy_of_majority"),
    ("ROUGE-L", "ROUGE-L"),
    ("majority", "ROUGE-L_of_majority"),
    ("BLEU-4", "BLEU-4"),
)


def _markdown(
    facts: dict[str, Any],
    error: float,
    lines: Sequence[dict[str, Any]],
    words: Sequence[dict[str, Any]],
) -> str:
    """Return the tables alone, for a documentation that must not hold the images."""
    head = ["target", "shown / not", *(title for title, _, _ in _MARKDOWN_TARGETS)]
    rows = [
        [
            str(line["target"]),
            f"{line['positives']} / {line['negatives']}",
            *(_number(line[name], digits) for _, name, digits in _MARKDOWN_TARGETS),
        ]
        for line in lines
    ]
    text = (
        f"{facts['model']}, weights {facts['digest'][:16]}, on {facts['data']}: {facts['cases']} "
        f"images and volumes of {facts['groups']} patients or clusters. Expected calibration error "
        f"over all cases {error:.3f}. NSD at {facts['tolerance_mm']:g} mm.\n\n"
    )
    text += _table(head, rows)
    if words:
        head = ["task", "items", *(title for title, _ in _MARKDOWN_WORDS)]
        spoken = [
            [str(w["task"]), str(w["items"]), *(_number(w[name]) for _, name in _MARKDOWN_WORDS)]
            for w in words
        ]
        text += "\n" + _table(head, spoken)
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def read_summary(out: Path) -> dict[str, Any]:
    """Read the summary of an evaluation."""
    document: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return document


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _source(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
