"""A training-style ``.pth`` of UniBiomed, laid over the checkpoints that it was trained from.

Training saves what it trained: LoRA matrices of the language model, projector, bridge and most of
SAM2. The rest lies in InternVL2.5-1B and SAM2-L. Together they give the tensors of the published
export under its names, one at a time.

References
----------
Hu et al., "LoRA", arXiv 2106.09685, section 4.1: ``W + (alpha / r) B A``.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.errors import CheckpointError
from inference.tensor_sources import TensorSource

LORA_ALPHA = 256.0
"""Of the published training; the rank is read from the matrices."""

_SAM = "grounding_encoder.sam2_model."
_LORA = re.compile(r"(.+)\.lora_([AB])\.default\.weight")


class TensorFile:
    """The tensors of a ``.pth`` or ``.pt`` file. It is read without running what it may hold.

    Parameters
    ----------
    path
        A state dict, or a dictionary that holds one as ``state_dict``, ``model`` or ``module``.
    prefix
        Put before each name.

    Raises
    ------
    CheckpointError
        When the file is damaged, holds anything but tensors and plain values, or no state dict.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._path = path
        self._tensors = {
            prefix + name: value for name, value in _state_dict(path, _opened(path)).items()
        }

    @property
    def place(self) -> str:
        """The file."""
        return str(self._path)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes."""
        return {name: tuple(value.shape) for name, value in self._tensors.items()}

    def tensor(self, name: str) -> Tensor:
        """Return one tensor, still mapped from the file."""
        return self._tensors[name]


class TrainedOver:
    """Published tensors from a training file, the base language model and the base SAM2.

    Parameters
    ----------
    trained
        The training file, under its own names.
    base
        InternVL2.5-1B, under its published names (``vision_model.``, ``language_model.``,
        ``mlp1.``).
    sam
        SAM2-L, its names prefixed with ``grounding_encoder.sam2_model.``.
    alpha
        LoRA's alpha; the rank is that of the matrices.

    Raises
    ------
    CheckpointError
        When a LoRA matrix has no partner, or no base matrix of its shape.
    """

    def __init__(
        self,
        trained: TensorSource,
        base: TensorSource,
        sam: TensorSource,
        alpha: float = LORA_ALPHA,
    ) -> None:
        self.place = f"{trained.place} over {base.place} and {sam.place}"
        self._alpha = alpha
        self._from: dict[str, tuple[TensorSource, str]] = {}
        self._lora: dict[str, dict[str, tuple[TensorSource, str]]] = {}
        for source in (base, sam, trained):
            for name in source.shapes:
                self._place(source, name)
        self._check_lora()

    def _place(self, source: TensorSource, name: str) -> None:
        pair = _LORA.fullmatch(name)
        if pair is not None:
            matrices = self._lora.setdefault(export_name(pair[1] + ".weight"), {})
            matrices[pair[2]] = (source, name)
            return
        self._from[export_name(name)] = (source, name)

    def _check_lora(self) -> None:
        for name, matrices in self._lora.items():
            if matrices.keys() != {"A", "B"}:
                raise CheckpointError(
                    f"{self.place}: {name} has LoRA matrix {''.join(matrices)} without its partner"
                )
            (down_source, down), (up_source, up) = matrices["A"], matrices["B"]
            inner, columns = down_source.shapes[down]
            rows, rank = up_source.shapes[up]
            base = self.shapes.get(name)
            if inner != rank or base != (rows, columns):
                raise CheckpointError(
                    f"{self.place}: LoRA of {name} is {(rows, rank)} x {(inner, columns)}, "
                    f"its base matrix {base or 'missing'}: not the model that was trained from"
                )

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Published names and shapes."""
        return {name: source.shapes[own] for name, (source, own) in self._from.items()}

    def tensor(self, name: str) -> Tensor:
        """Return one tensor; a matrix with LoRA comes merged, in float32."""
        source, own = self._from[name]
        tensor = source.tensor(own)
        if name not in self._lora:
            return tensor
        (down_source, down_name), (up_source, up_name) = (self._lora[name][one] for one in "AB")
        down, up = down_source.tensor(down_name), up_source.tensor(up_name)
        scale = self._alpha / down.shape[0]
        return tensor.float() + scale * (up.float() @ down.float())


def export_name(name: str) -> str:
    """Name in the published export of a tensor of the training file or of a base.

    Examples
    --------
    >>> export_name("mllm.model.language_model.base_model.model.lm_head.weight")
    'language_model.lm_head.weight'
    """
    name = name.removeprefix("mllm.model.")
    name = name.replace("language_model.base_model.model.", "language_model.", 1)
    name = name.replace(".base_layer.", ".", 1)
    if name.startswith(_SAM):
        name = re.sub(r"\.gamma$", ".g_weight", name)
    return name


def _opened(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors ({str(error).splitlines()[0]}); it is not opened, "
            "because that could run code. Save its state dict alone, where you trust it"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or not a file of torch.save: {error}") from error


def _state_dict(path: Path, data: Any) -> dict[str, Tensor]:
    """Find the state dict in what a file holds."""
    for key in ("state_dict", "model", "module"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not data:
        raise CheckpointError(f"{path} holds no state dict")
    wrong = [str(name) for name, value in data.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} entries are no tensors, e.g. {wrong[0]}")
    return data
