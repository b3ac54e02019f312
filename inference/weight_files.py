"""Which files of a checkpoint folder hold the weights, and their digest. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from inference.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""Hugging Face's list of shards: ``weight_map`` from tensor name to file name."""


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Files that hold the weights: one file, or the shards of the index, sorted by name.

    Raises
    ------
    CheckpointError
        When there is none, the index cannot be read, or a shard that it names is missing.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: a checkpoint is a folder of files")
    index, single = folder / INDEX_FILE, folder / WEIGHTS_FILE
    if index.is_file():
        names = sorted(set(_weight_map(index).values()))
    elif single.is_file():
        names = [single.name]
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise CheckpointError(
            f"{folder} is no checkpoint: it holds neither {WEIGHTS_FILE} nor {INDEX_FILE}"
        )
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{index} names {len(absent)} of {len(names)} shards that are not there: "
            f"{', '.join(absent[:8])}; download the folder again"
        )
    return tuple(folder / name for name in names)


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights, hexadecimal.

    Of one file it is the file's own, so that ``sha256sum`` agrees; of shards it is that of the
    lines ``<sha256>  <name>`` in the order of the names, as ``sha256sum *.safetensors | sha256sum``
    has it.

    Raises
    ------
    CheckpointError
        When there are no weights or they cannot be read.
    """
    files = weight_files(folder)
    digests = [file_digest(path) for path in files]
    if len(files) == 1:
        return digests[0]
    lines = (f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises
    ------
    CheckpointError
        When the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: {error!r}") from error
    if not isinstance(found, dict) or not all(_plain(name) for name in found.values()):
        raise CheckpointError(f"{index} is not an index of shards: it names no plain file names")
    return found


def _plain(name: object) -> bool:
    """Whether a name from the index stays inside the folder."""
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name
