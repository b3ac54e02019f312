"""What the model found, kept on disk between inferring and encoding.

One ``.npz`` per job: the masks as packed bits, and a JSON text with everything else. It is
durable before the job's state moves on, so that a crash afterwards never infers twice. No pickle:
reading it cannot run code.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference.findings import Finding, Interpretation, Mask, Presence
from inference.tasks import Task, TaskKind

FILE_NAME: Final = "interpretation.npz"
_FORMAT: Final = 1


class StoredInterpretationError(Exception):
    """The file is absent, cut off, or does not belong to this source."""


@dataclass(frozen=True, slots=True)
class StoredInterpretation:
    """An interpretation and the frames it speaks of.

    Attributes
    ----------
    interpretation
        What the model said.
    sop_instance_uids
        SOP Instance UID of each frame, in the order of the masks.
    task
        What was asked for.
    not_applicable
        Why the model was not asked; empty where it was.
    """

    interpretation: Interpretation
    sop_instance_uids: tuple[str, ...]
    task: Task
    not_applicable: str = ""


def write(folder: Path, stored: StoredInterpretation) -> Path:
    """Write the file so that it is there whole, or not at all, also after a power cut.

    Parameters
    ----------
    folder
        The job's folder under ``work``; made when missing.
    stored
        What to keep.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        The disk is full or fails; nothing is left of the attempt.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    masks = {
        f"mask_{index}": np.packbits(finding.mask)
        for index, finding in enumerate(stored.interpretation.findings)
        if finding.mask is not None
    }
    masks |= {
        f"probabilities_{index}": finding.probabilities
        for index, finding in enumerate(stored.interpretation.findings)
        if finding.probabilities is not None
    }
    text = json.dumps(_as_json(stored), ensure_ascii=True).encode()
    path = folder / FILE_NAME
    temporary = folder / f".{FILE_NAME}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            # mypy sees **masks as a value for allow_pickle.
            np.savez_compressed(file, document=np.frombuffer(text, np.uint8), **masks)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        # A full disk is not made fuller by what could not be finished.
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    _sync_folder(folder.parent)
    return path


def read(folder: Path) -> StoredInterpretation:
    """Read what `write` wrote.

    Raises
    ------
    StoredInterpretationError
        With a sentence that says what is wrong with the file.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            document = json.loads(arrays["document"].tobytes())
            if document.get("format") != _FORMAT:
                text = f"{path} is of format {document.get('format')}, this version reads {_FORMAT}"
                raise StoredInterpretationError(text)
            findings = tuple(
                _finding(
                    entry,
                    arrays[f"mask_{index}"] if entry["mask_shape"] else None,
                    arrays.get(f"probabilities_{index}"),
                )
                for index, entry in enumerate(document["findings"])
            )
    except FileNotFoundError as error:
        raise StoredInterpretationError(f"{path} is missing") from error
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        text = f"{path} cannot be read ({type(error).__name__}: {error})"
        raise StoredInterpretationError(text) from error
    interpretation = Interpretation(
        findings=findings,
        model_name=document["model_name"],
        model_version=document["model_version"],
        model_digest=document["model_digest"],
        intensity=document["intensity"],
        frames=document["frames"],
    )
    return StoredInterpretation(
        interpretation,
        tuple(document["sop_instance_uids"]),
        _task(document),
        document.get("not_applicable", ""),
    )


def read_if_same(
    folder: Path, sop_instance_uids: Sequence[str], task: Task, model_digest: str
) -> Interpretation | None:
    """Return what an earlier attempt found, if it is whole and answers the same question."""
    try:
        stored = read(folder)
    except StoredInterpretationError:
        return None
    same = (
        stored.sop_instance_uids == tuple(sop_instance_uids)
        and stored.task == task
        and stored.interpretation.model_digest == model_digest
    )
    return stored.interpretation if same else None


def _as_json(stored: StoredInterpretation) -> dict[str, Any]:
    interpretation = stored.interpretation
    return {
        "format": _FORMAT,
        "model_name": interpretation.model_name,
        "model_version": interpretation.model_version,
        "model_digest": interpretation.model_digest,
        "intensity": interpretation.intensity,
        "frames": interpretation.frames,
        "sop_instance_uids": list(stored.sop_instance_uids),
        "task": stored.task.to_json(),
        "not_applicable": stored.not_applicable,
        "findings": [
            {
                "target": finding.target,
                "text": finding.text,
                "phrase": finding.phrase,
                "prompt": finding.prompt,
                "presence": finding.presence.value,
                "confidence": float(finding.confidence),
                "key_frame": None if finding.key_frame is None else int(finding.key_frame),
                "predicted_iou": (
                    None if finding.predicted_iou is None else float(finding.predicted_iou)
                ),
                "task": finding.task,
                "mask_shape": None if finding.mask is None else list(finding.mask.shape),
            }
            for finding in interpretation.findings
        ],
    }


def _finding(
    entry: dict[str, Any],
    packed: NDArray[np.uint8] | None,
    probabilities: NDArray[np.uint8] | None,
) -> Finding:
    mask: Mask | None = None
    if packed is not None:
        shape = tuple(entry["mask_shape"])
        count = int(np.prod(shape))
        mask = np.unpackbits(packed, count=count).astype(np.bool_).reshape(shape)
    return Finding(
        target=entry["target"],
        text=entry["text"],
        phrase=entry["phrase"],
        prompt=entry["prompt"],
        presence=Presence(entry["presence"]),
        confidence=entry["confidence"],
        mask=mask,
        key_frame=entry["key_frame"],
        predicted_iou=entry["predicted_iou"],
        task=entry.get("task", TaskKind.SEGMENTATION.value),
        probabilities=probabilities,
    )


def _task(document: dict[str, Any]) -> Task:
    """Read what was asked; before there were tasks, a job asked for targets."""
    if "task" in document:
        return Task.from_json(document["task"])
    return Task.segment(*document["targets"])


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (POSIX: the entry belongs to the folder, not to the file)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
