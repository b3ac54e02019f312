"""Write a folder in the published form, e.g. of a training file that was merged with its bases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from inference.errors import CheckpointError
from inference.prompts import SEG
from inference.published import check_names, published_model_config, unfilled
from inference.published_config import CONFIG_FILE, read_config_json
from inference.published_tokenizer import TOKENIZER_FILE, open_tokenizer
from inference.published_training import LORA_ALPHA, TensorFile, TrainedOver
from inference.tensor_sources import SafetensorsFolder, TensorSource
from inference.weight_files import INDEX_FILE, WEIGHTS_FILE

SAM_PREFIX = "grounding_encoder.sam2_model."
ADDED_TOKENS = (SEG, "<p>", "</p>", "<vp>", "</vp>")
"""Tokens that the published training appended to InternVL's, in this order."""

_SHARD_BYTES = 2 * 1024**3


def merge_training(
    trained: Path, base: Path, sam: Path, out: Path, alpha: float = LORA_ALPHA
) -> None:
    """Write the published form of a training file.

    Parameters
    ----------
    trained
        The ``.pth`` of the training.
    base
        Folder of InternVL2.5-1B, with its safetensors, ``config.json`` and tokenizer.
    sam
        SAM2-L's own file, ``sam2_hiera_large.pt``.
    out
        Folder to write; must be empty or not there.
    alpha
        LoRA's alpha.

    Raises
    ------
    CheckpointError
        When one of the three cannot be read, or together they are not a complete model.
    """
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty: name a new folder")
    source = TrainedOver(
        TensorFile(trained), SafetensorsFolder(base), TensorFile(sam, SAM_PREFIX), alpha
    )
    tokenizer = open_tokenizer(base)
    if tokenizer.token_to_id(SEG) is None:
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ADDED_TOKENS])
    settings = _with_vocabulary(read_config_json(base), tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(out / TOKENIZER_FILE))
    check_names(source, unfilled(published_model_config(out, source, tokenizer)))
    write_shards(source, out)


def write_shards(
    source: TensorSource,
    folder: Path,
    dtype: torch.dtype | None = None,
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Write tensors as one safetensors file, or as shards with their index.

    Parameters
    ----------
    dtype
        To store; ``None`` keeps each tensor's own.
    shard_bytes
        Size that a shard may have; larger tensors get one of their own.
    """
    shards: list[dict[str, str]] = []
    pending: dict[str, Tensor] = {}
    for name in source.shapes:
        tensor = source.tensor(name)
        tensor = tensor.to(dtype or tensor.dtype).contiguous()
        if pending and _size(pending) + tensor.nbytes > shard_bytes:
            shards.append(_write(pending, folder, len(shards)))
            pending = {}
        # A copy: tensors of one file may share memory, which safetensors refuses to store.
        pending[name] = tensor.clone()
    shards.append(_write(pending, folder, len(shards)))
    if len(shards) == 1:
        (folder / _shard_name(0)).rename(folder / WEIGHTS_FILE)
        return
    index = {
        "metadata": {},
        "weight_map": {key: file for one in shards for key, file in one.items()},
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _shard_name(number: int) -> str:
    return f"model-{number + 1:05d}.safetensors"


def _write(tensors: dict[str, Tensor], folder: Path, number: int) -> dict[str, str]:
    """Write one shard; return which tensors lie in which file."""
    save_file(tensors, folder / _shard_name(number), metadata={"format": "pt"})
    return dict.fromkeys(tensors, _shard_name(number))


def _with_vocabulary(settings: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """``config.json`` of the base with the number of tokens that there are now."""
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    return {**settings, "llm_config": {**settings.get("llm_config", {}), "vocab_size": size}}
