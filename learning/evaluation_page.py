"""Write an evaluation: tables, figures, and one page that holds them all and needs no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inference.engine import Engine
from learning import evaluation_figures as figures
from learning import metrics
from learning.evaluate import Measured, Picture, Row, write_rows
from learning.evaluation_summary import compare_rows, summarise, write_summary
from learning.meteor import LEFT_OUT

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
    asked = [row for row in measured.rows if not row.images_of]
    calibration = _calibration(asked)
    write_rows(measured.rows, out / "cases.csv")
    drawn = {
        "dice": figures.box_plots(asked, lines, figures.LIGHT),
        "reliability": figures.reliability(asked, figures.LIGHT),
    }
    for name, picture in drawn.items():
        (out / f"{name}.png").write_bytes(picture)
    # Those of the dark theme are of use in the page alone.
    drawn["dice_dark"] = figures.box_plots(asked, lines, figures.DARK)
    drawn["reliability_dark"] = figures.reliability(asked, figures.DARK)
    recorded = {**facts, "calibration_all": calibration, "words": list(words)}
    write_summary(lines, {**recorded, "comparison": comparison}, out)
    (out / "summary.md").write_text(_markdown(facts, calibration, lines, words), encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("evaluation_page.html").render(
        facts=facts,
        lines=lines[:-1],
        mean=lines[-1],
        own_targets=sum(line["presence_auc_own"] is not None for line in lines[:-1]),
        calibration=calibration,
        words=words,
        meteor_left_out=LEFT_OUT if any(line["METEOR"] is None for line in words) else None,
        comparison=comparison,
        pictures={name: _source(picture) for name, picture in drawn.items()},
        worst=_worst(measured.worst),
        truth_colour=figures.TRUTH_COLOUR,
        found_colour=figures.FOUND_COLOUR,
        number=_number,
    )
    path = out / PAGE
    path.write_text(page, encoding="utf-8")
    return path


def _calibration(rows: Sequence[Row]) -> dict[str, float]:
    """Calibration error over all answers together, and what chance alone makes of it."""
    probability = np.array([row.probability for row in rows])
    truth = np.array([row.positive for row in rows])
    mean, high = metrics.calibration_by_chance(probability)
    error, _ = metrics.calibration_error(probability, truth)
    return {"error": error, "chance": mean, "chance_95": high, "answers": len(rows)}


def _worst(pictures: Sequence[Picture]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the worst cases by target, as the page shows them."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for picture in pictures:
        one = {"row": picture.row, "source": _source(figures.overlay(picture))}
        groups.setdefault(picture.row.key, []).append(one)
    return sorted(groups.items())


_MARKDOWN_TARGETS = (
    ("Dice, shown", "dice_positive", 3),
    ("floor", "dice_floor_of_card", 2),
    ("U-Net", "dice_unet_of_card", 3),
    ("Dice, all", "dice_negatives_counted", 3),
    ("HD95 mm", "hausdorff_95_mm", 1),
    ("NSD", "surface_dice", 2),
    ("sens.", "sensitivity", 2),
    ("with uncertain", "sensitivity_with_uncertain", 2),
    ("spec.", "specificity", 2),
    ("AUC, own set", "presence_auc_own", 3),
    ("AUC, modality", "presence_auc_modality", 3),
    ("AUC, all", "presence_auc_all", 3),
    ("ECE", "calibration_error", 3),
    ("by chance", "calibration_chance", 3),
    ("Dice, reference's rule", "published_rule_dice", 3),
)
_MARKDOWN_WORDS = (
    ("accuracy", "accuracy"),
    ("majority", "accuracy_of_majority"),
    ("ROUGE-L", "ROUGE-L"),
    ("majority", "ROUGE-L_of_majority"),
    ("METEOR", "METEOR"),
    ("majority", "METEOR_of_majority"),
    ("BLEU-4", "BLEU-4"),
)


def _markdown(
    facts: dict[str, Any],
    calibration: dict[str, float],
    lines: Sequence[dict[str, Any]],
    words: Sequence[dict[str, Any]],
) -> str:
    """Return the tables alone, for a documentation that must not hold the images."""
    head = ["target", "shown / not", *(title for title, _, _ in _MARKDOWN_TARGETS)]
    rows = [
        [
            str(line["target"]),
            f"{line['positives']} / {line['negatives']}",
            *(_cell(line, name, digits) for _, name, digits in _MARKDOWN_TARGETS),
        ]
        for line in lines
    ]
    text = (
        f"{facts['model']}, weights {facts['digest'][:16]}, on {facts['data']}: {facts['cases']} "
        f"images and volumes of {facts['groups']} patients or clusters. Expected calibration error "
        f"over all {calibration['answers']} answers {calibration['error']:.3f} (by chance alone "
        f"{calibration['chance']:.3f}). NSD at {facts['tolerance_mm']:g} mm.\n\n"
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


def _cell(line: dict[str, Any], name: str, digits: int) -> str:
    """Return a figure; an area under the ROC curve with its number of negatives."""
    text = _number(line[name], digits)
    if text and name.startswith("presence_auc_"):
        text += f" ({line[name.replace('auc', 'negatives')]})"
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
