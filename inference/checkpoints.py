"""Checkpoint folders: ``model.safetensors``, ``config.json``, ``tokenizer.json``, ``card.yaml``.

Loading is strict: every tensor of the file must have its place and every place its tensor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from inference.architecture import ModelConfig, UniBiomed
from inference.card import ModelCard, read_card
from inference.errors import CheckpointError
from inference.prompts import IMAGE_CONTEXT, SEG
from inference.published import is_published, load_published
from inference.weight_files import WEIGHTS_FILE, file_digest, weights_digest

CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"
FORMAT = "unibiomed-node/1"
_NAMED = 8
"""Tensors that an error message names before it only counts them."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model and what belongs to it.

    ``digest`` is the SHA-256 of the weights, hexadecimal; see `inference.weight_files`.
    """

    model: UniBiomed
    tokenizer: Tokenizer
    card: ModelCard
    digest: str


def save_weights(
    model: UniBiomed, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype = torch.float16
) -> str:
    """Write weights, configuration and tokenizer; return the digest of the weights.

    Parameters
    ----------
    dtype
        Of the stored tensors; computing is in float32 whatever is stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.detach().cpu().to(dtype).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": FORMAT})
    config = {"format": FORMAT, **model.config.to_dict()}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / TOKENIZER_FILE))
    return file_digest(folder / WEIGHTS_FILE)


def load_checkpoint(folder: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a folder, in float32 and evaluation mode.

    A Hugging Face folder of the published UniBiomed is one too, once a card lies in it; see
    `inference.published`.

    Raises
    ------
    CheckpointError
        When the folder is no checkpoint, a file is damaged, tensors are missing, surplus or of
        another shape, or a weight is not a finite number.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: a checkpoint is a folder of files")
    if is_published(folder):
        card = read_card(folder)
        model, tokenizer = load_published(folder)
        return Checkpoint(model.to(device), tokenizer, card, weights_digest(folder))
    missing = [
        name
        for name in (WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE)
        if not (folder / name).is_file()
    ]
    if missing:
        raise CheckpointError(f"{folder} is no checkpoint: {', '.join(missing)} missing")
    card = read_card(folder)
    config = _read_config(folder / CONFIG_FILE)
    tokenizer = _read_tokenizer(folder / TOKENIZER_FILE)
    _check_tokenizer(tokenizer, config, folder / TOKENIZER_FILE)
    model = UniBiomed(config)
    tensors = _read_weights(folder / WEIGHTS_FILE)
    _check(model.state_dict(), tensors, folder / WEIGHTS_FILE)
    model.load_state_dict(tensors)
    model.requires_grad_(False)
    model.eval()
    return Checkpoint(model.to(device), tokenizer, card, file_digest(folder / WEIGHTS_FILE))


def _read_config(path: Path) -> ModelConfig:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.pop("format", None)
        if found != FORMAT:
            raise CheckpointError(f"{path}: format is {found!r}, this version reads {FORMAT!r}")
        return ModelConfig.from_dict(data)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not describe a model: {error!r}") from error


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    # The tokenizers library raises bare Exception for a file that it cannot read.
    except Exception as error:
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from error


def _check_tokenizer(tokenizer: Tokenizer, config: ModelConfig, path: Path) -> None:
    """Refuse a tokenizer whose ids mean something else to these weights."""
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    context, seg = (tokenizer.token_to_id(token) for token in (IMAGE_CONTEXT, SEG))
    if size != config.language.vocabulary or context != config.language.image_token_id:
        raise CheckpointError(
            f"{path} is another model's tokenizer: {size} tokens, {IMAGE_CONTEXT} is {context}; "
            f"the weights have {config.language.vocabulary} and {config.language.image_token_id}"
        )
    if seg is None:
        raise CheckpointError(f"{path} is another model's tokenizer: it has no {SEG}")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).float() for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({error}); copy it again"
        ) from error


def _check(expected: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    """Compare names, shapes and values; name what is wrong."""
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    broken = [name for name in sorted(found) if not torch.isfinite(found[name]).all()]
    problems = [
        f"{len(names)} {what}: {'; '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}"
        for what, names in (
            ("missing", sorted(expected.keys() - found.keys())),
            ("surplus", sorted(found.keys() - expected.keys())),
            ("of another shape", shapes),
            ("not finite", broken),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit its config.json: tensors {', '.join(problems)}")
