"""What a checkpoint folder holds, and whether it is whole; without building the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from inference.architecture import ModelConfig
from inference.card import ModelCard, read_card
from inference.checkpoints import load_checkpoint
from inference.errors import CheckpointError
from inference.published import check_names, is_published, published_model_config, unfilled
from inference.published_tokenizer import read_published_tokenizer
from inference.tensor_sources import SafetensorsFolder
from inference.weight_files import weight_files, weights_digest

_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Description:
    """A checkpoint folder at a glance.

    Attributes
    ----------
    form
        ``"published"`` or ``"node"``: whose names and files they are.
    card
        ``None`` where there is none that can be read; ``card_problem`` then says why.
    digest
        SHA-256 of the weights; see `inference.weight_files.weights_digest`.
    tensors, values
        How many, in all; buffers are counted too.
    parts
        Values of each part of the model, by the first words of the tensors' names.
    stored_bytes, loaded_bytes
        On the disk, and in memory as the engine computes with them, in float32.
    """

    form: str
    card: ModelCard | None
    card_problem: str | None
    digest: str
    tensors: int
    values: int
    parts: dict[str, int]
    stored_bytes: int
    loaded_bytes: int


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``problem`` is ``None`` where it is in order."""

    subject: str
    problem: str | None


def describe(folder: Path) -> Description:
    """Look at a folder; only the headers of the weights and their digest are read.

    Raises
    ------
    CheckpointError
        When the folder holds no weights that can be read.
    """
    source = SafetensorsFolder(folder)
    card, problem = None, None
    try:
        card = read_card(folder)
    except CheckpointError as error:
        problem = str(error)
    sizes = {name: prod(shape) for name, shape in source.shapes.items()}
    parts: Counter[str] = Counter()
    for name, size in sizes.items():
        parts[_part(name)] += size
    values = sum(sizes.values())
    return Description(
        form="published" if is_published(folder) else "node",
        card=card,
        card_problem=problem,
        digest=weights_digest(folder),
        tensors=len(sizes),
        values=values,
        parts=dict(parts),
        stored_bytes=sum(path.stat().st_size for path in weight_files(folder)),
        loaded_bytes=values * _FLOAT32_BYTES,
    )


def verify(folder: Path) -> list[Check]:
    """Check a folder from its files to its last value.

    Returns
    -------
    list of Check
        In the order in which they were made. What depends on something broken is left out.
    """
    if not is_published(folder):
        return [_check("files, tensors, values and card", lambda: load_checkpoint(folder))]
    checks = [_check("files", lambda: SafetensorsFolder(folder))]
    checks.append(_check("tokenizer", lambda: read_published_tokenizer(folder)))
    if not any(check.problem for check in checks):
        checks.append(_check("names and shapes of tensors", lambda: _published_config(folder)))
    if checks[0].problem is None:
        checks.append(_check("values", lambda: _check_values(folder)))
    checks.append(_check("card", lambda: read_card(folder)))
    return checks


def _check(subject: str, attempt: Callable[[], object]) -> Check:
    try:
        attempt()
    except CheckpointError as error:
        return Check(subject, str(error))
    return Check(subject, None)


def _published_config(folder: Path) -> ModelConfig:
    source = SafetensorsFolder(folder)
    config = published_model_config(folder, source, read_published_tokenizer(folder))
    check_names(source, unfilled(config))
    return config


def _check_values(folder: Path) -> None:
    source = SafetensorsFolder(folder)
    broken = [name for name in source.shapes if not torch.isfinite(source.tensor(name)).all()]
    if broken:
        raise CheckpointError(
            f"{folder}: {len(broken)} tensors hold values that are not finite, e.g. {broken[0]}"
        )


def _part(name: str) -> str:
    """Name the part of the model that a tensor belongs to, in either form."""
    for part, words in (
        ("vision tower", ("vision_model.", "mllm.model.vision_tower.")),
        ("projector", ("mlp1.", "mllm.model.multi_modal_projector.")),
        ("language model", ("language_model.", "mllm.")),
        ("bridge", ("text_hidden_fcs.",)),
        ("grounding", ("grounding_encoder.",)),
    ):
        if name.startswith(words):
            return part
    return "other"
