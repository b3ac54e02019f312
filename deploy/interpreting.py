"""Interpret DICOM files without network, queue and database: the command ``interpret``.

Calls the same functions as the node's workers (`workflows.interpret`), one after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.sending import SendError, files_under
from dicom_node.errors import DicomNodeError
from dicom_node.objects.fallbacks import FORMS, Form
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.series import Source, read_sources
from inference.errors import InferenceError
from inference.tasks import STUDY_TASKS, Task, TaskKind
from workflows import interpret
from workflows.identity import node_identity
from workflows.loading import load_engine
from workflows.model_card import KnownModel, look_at_model
from workflows.rules import Rule, choose_targets, series_words
from workflows.settings import NodeSettings

if TYPE_CHECKING:
    from workflows.engine_thread import Engine

__all__ = ["InterpretError", "interpret_folder"]

Say = Callable[[str], None]


class InterpretError(Exception):
    """Nothing could be interpreted; the text is a sentence."""


def interpret_folder(
    path: Path,
    out: Path,
    *,
    targets: Sequence[str] | None,
    model: Path | None,
    say: Say,
    also: Sequence[str] = (),
    task: str = TaskKind.SEGMENTATION.value,
) -> list[dict[str, Any]]:
    """Interpret a file, or all DICOM files under a folder, and write SEG and SR.

    Parameters
    ----------
    path
        The file or folder.
    out
        Folder for the objects; one sub-folder for each series or image.
    targets
        What to look for; None for all that the model knows in images of that modality.
    model
        Folder of the weights; None for the shipped ones.
    say
        Receives a sentence about what was set aside and what the checks found.
    also
        Forms besides SEG and SR, as a destination's ``objects`` names them.
    task
        A task that needs nobody who asks; see `workflows.rules.StudyTask`.

    Returns
    -------
    list of dict
        For each series or image: ``source`` in words, ``findings`` and ``results`` with the keys
        of `db.reports.job_report`.

    Raises
    ------
    InterpretError
        There is nothing to interpret, or the checks found an error in an object (which is then
        not written).
    """
    if task not in STUDY_TASKS:
        raise InterpretError(f"The task is {task!r}, not one of {', '.join(STUDY_TASKS)}.")
    settings = NodeSettings.model_validate({"model": {"folder": str(model) if model else None}})
    unknown = [form for form in also if form not in FORMS]
    if unknown:
        raise InterpretError(f"There is no form {unknown[0]!r}; choose from: {', '.join(FORMS)}.")
    forms = [form for form in FORMS if form in also]
    try:
        known = look_at_model(settings)
        sources, set_aside = read_sources(files_under(path))
        for aside in set_aside:
            say(f"Set aside {len(aside.paths)} files: {aside.reason}")
        wanted = [
            (source, Task(TaskKind(task), chosen))
            for source in sources
            if (chosen := _targets(source, targets, task, known, say))
        ]
        if not wanted:
            raise InterpretError(f"There is nothing in {path} that the model can interpret.")
        engine = load_engine(settings)
    except (SendError, DicomNodeError, InferenceError) as error:
        raise InterpretError(str(error)) from error
    reports = []
    for number, (source, asked) in enumerate(wanted, start=1):
        folder = out / f"{number:03d}"
        try:
            reports.append(_interpret(source, asked, (engine, known), settings, folder, forms, say))
        except (DicomNodeError, InferenceError) as error:
            # As in the node, where it would be a job of its own: the others go on.
            say(f"Left out {series_words(source)}: {error}")
        except OSError as error:
            raise InterpretError(f"The results cannot be written to {folder}: {error}") from error
    if not reports:
        raise InterpretError(f"Nothing in {path} could be interpreted; the reasons are above.")
    return reports


def _targets(
    source: Source, targets: Sequence[str] | None, task: str, known: KnownModel, say: Say
) -> tuple[str, ...]:
    rule = Rule.model_validate(
        {"name": "interpret", "targets": list(targets or ()) or "all", "task": task}
    )
    chosen, reason = choose_targets(rule, source, known)
    if not chosen:
        say(f"Left out {series_words(source)}: {reason}")
    return chosen


def _interpret(
    source: Source,
    task: Task,
    model: tuple[Engine, KnownModel],
    settings: NodeSettings,
    out: Path,
    also: Sequence[Form],
    say: Say,
) -> dict[str, Any]:
    def quiet(_part: float) -> None:
        return

    prepared = interpret.prepare(source)
    engine, known = model
    question = interpret.question_of(prepared, [task], known.card)
    found = interpret.infer(engine, question, quiet)
    identifiers = ResultIdentifiers.draw(datetime.now(UTC))
    encoded = interpret.encode(
        prepared,
        found,
        identifiers,
        node_identity(settings),
        also=also,
        progress=quiet,
    )
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / one.file_name for one in encoded.objects]
    for one, path in zip(encoded.objects, paths, strict=True):
        path.write_bytes(one.data)
    _check(paths, source, say)
    findings = [
        {
            "task": finding.task,
            "target": finding.target,
            "text": finding.text,
            "phrase": finding.phrase,
            "presence": finding.presence.value,
            "confidence": finding.confidence,
            "predicted_iou": finding.predicted_iou,
            "key_frame": finding.key_frame,
            "segment_number": encoded.segment_numbers.get(index),
            "tracking_uid": identifiers.tracking_uid(index),
            "measurements": (
                encoded.measurements[index].as_json() if index in encoded.measurements else {}
            ),
        }
        for index, finding in enumerate(found.findings)
    ]
    results = [
        {
            "kind": one.kind,
            "sop_class_uid": str(one.dataset.SOPClassUID),
            "sop_instance_uid": str(one.dataset.SOPInstanceUID),
            "series_instance_uid": str(one.dataset.SeriesInstanceUID),
            "file": str(path),
            "size": len(one.data),
            "sha256": hashlib.sha256(one.data).hexdigest(),
        }
        for one, path in zip(encoded.objects, paths, strict=True)
    ]
    return {
        "source": f"{source.modality} {series_words(source)}, {source.shape[0]} frames",
        "study_instance_uid": source.study_instance_uid,
        "series_instance_uid": source.series_instance_uid,
        "notes": list(source.notes),
        "findings": findings,
        "results": results,
    }


def _check(paths: Sequence[Path], source: Source, say: Say) -> None:
    """Hold the objects against the checks; take them away again unless they pass."""
    try:
        problems = interpret.validate(paths, source)
    except DicomNodeError:
        for path in paths:
            path.unlink()
        raise
    for problem in problems:
        say(f"{problem.severity}: {problem.object}: {problem.rule}: {problem.text}")
    if any(problem.severity == "error" for problem in problems):
        for path in paths:
            path.unlink()
        raise InterpretError("The checks found errors in the objects (above); none was kept.")
