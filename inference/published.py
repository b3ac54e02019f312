"""The published checkpoint: its tensor names, and a strict loader that takes them.

The Hugging Face export of UniBiomed holds the names of the authors' classes. All but the vision
tower's differ from ours by a prefix; there, fused query/key/value matrices are cut in three.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from inference.architecture import ModelConfig, UniBiomed
from inference.decoding import token_id
from inference.errors import CheckpointError
from inference.prompts import IMAGE_CONTEXT
from inference.published_config import derive_config, read_config_json
from inference.published_tokenizer import read_published_tokenizer
from inference.tensor_sources import SafetensorsFolder, TensorSource

_NAMED = 8
"""Tensors that an error message names before it only counts them."""

_VISION = "mllm.model.vision_tower."
_PROJECTOR = "mllm.model.multi_modal_projector."
_EXACT = {
    "vision_model.embeddings.class_embedding": _VISION + "embeddings.cls_token",
    "vision_model.embeddings.position_embedding": _VISION + "embeddings.position_embeddings",
    "language_model.lm_head.weight": "mllm.lm_head.weight",
}
_PREFIXES = (
    (
        "vision_model.embeddings.patch_embedding.",
        _VISION + "embeddings.patch_embeddings.projection.",
    ),
    ("mlp1.0.", _PROJECTOR + "layer_norm."),
    ("mlp1.1.", _PROJECTOR + "linear_1."),
    ("mlp1.3.", _PROJECTOR + "linear_2."),
    ("language_model.model.", "mllm.model.language_model."),
    ("text_hidden_fcs.", "text_hidden_fcs."),
    ("grounding_encoder.sam2_model.", "grounding_encoder.sam2_model."),
)
_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)")
_LAYER_PARTS = (
    ("attn.proj.", "attention.projection_layer."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    ("mlp.", "mlp."),
)
_SCALES = {"ls1": "lambda_1", "ls2": "lambda_2"}


def our_names(published: str) -> tuple[str, ...]:
    """Names in `UniBiomed` of a published tensor.

    Three names mean equal parts along the first axis (query, key, value); none means that the
    architecture has no such tensor.

    Examples
    --------
    >>> our_names("mlp1.1.bias")
    ('mllm.model.multi_modal_projector.linear_1.bias',)
    """
    if published in _EXACT:
        return (_EXACT[published],)
    layer = _LAYER.fullmatch(published)
    if layer is not None:
        return tuple(f"{_VISION}encoder.layer.{layer[1]}.{part}" for part in _layer_parts(layer[2]))
    for start, replacement in _PREFIXES:
        if published.startswith(start):
            # The export calls every scale ``g_weight``: "gamma" would have been renamed on loading.
            leaf = re.sub(r"\.g_weight$", ".gamma", published[len(start) :])
            return (replacement + leaf,)
    return ()


def _layer_parts(part: str) -> tuple[str, ...]:
    """Our names of one tensor of a vision layer, without the layer's own."""
    if part in _SCALES:
        return (_SCALES[part],)
    if part.startswith("attn.qkv."):
        leaf = part.removeprefix("attn.qkv.")
        return tuple(f"attention.{letter}_proj.{leaf}" for letter in "qkv")
    for start, replacement in _LAYER_PARTS:
        if part.startswith(start):
            return (replacement + part[len(start) :],)
    return ()


def is_published(folder: Path) -> bool:
    """Whether a folder holds weights that this project did not write: no ``format`` of ours."""
    if not folder.is_dir() or not any(folder.glob("*.safetensors*")):
        return False
    return "format" not in read_config_json(folder, damaged={"format": None})


def load_published(folder: Path) -> tuple[UniBiomed, Tokenizer]:
    """Load a Hugging Face folder of UniBiomed, in float32 on the CPU.

    No file but safetensors, JSON and the tokenizer's text files is opened; code is never run.

    Raises
    ------
    CheckpointError
        When the folder is no such checkpoint, a file is damaged, tokenizer and weights do not
        belong together, tensors are missing, surplus or misshapen, or a weight is not finite.
    """
    source = SafetensorsFolder(folder)
    tokenizer = read_published_tokenizer(folder)
    config = published_model_config(folder, source, tokenizer)
    return assemble(source, config), tokenizer


def published_model_config(folder: Path, source: TensorSource, tokenizer: Tokenizer) -> ModelConfig:
    """Sizes of a published folder, from its tensors, its ``config.json`` and its tokenizer.

    Raises
    ------
    CheckpointError
        When they contradict each other, or the tokenizer is another model's.
    """
    try:
        image_token = token_id(tokenizer, IMAGE_CONTEXT)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    config = derive_config(source, read_config_json(folder), image_token)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size != config.language.vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has {size} tokens, the weights have embeddings for "
            f"{config.language.vocabulary}: the tokenizer files are another model's"
        )
    return config


def assemble(source: TensorSource, config: ModelConfig) -> UniBiomed:
    """Fill the architecture from tensors under published names, in float32 on the CPU.

    The model is built without memory and takes over one tensor after the other, so that the peak
    is the model itself and one tensor.

    Raises
    ------
    CheckpointError
        Naming each tensor that is missing, surplus, misshapen or not finite.
    """
    model = unfilled(config)
    check_names(source, model)
    tensors: dict[str, Tensor] = {}
    broken: list[str] = []
    for published in source.shapes:
        tensor = source.tensor(published)
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            broken.append(published)
            continue
        names = our_names(published)
        parts = tensor.float().chunk(len(names)) if len(names) > 1 else (tensor.float(),)
        tensors.update(zip(names, parts, strict=True))
    if broken:
        raise CheckpointError(f"{source.place}: tensors {_listed('not finite', broken)}")
    model.load_state_dict(tensors, strict=True, assign=True)
    _make_rotary_tables(model)
    return model.requires_grad_(False).eval()


def unfilled(config: ModelConfig) -> UniBiomed:
    """Build the architecture without memory: names and shapes only."""
    with torch.device("meta"):
        return UniBiomed(config)


def check_names(source: TensorSource, model: UniBiomed) -> None:
    """Compare the published names and shapes of a source with those that a model needs.

    Raises
    ------
    CheckpointError
        Naming each tensor that is missing, surplus or misshapen.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    surplus, misshapen = [], []
    filled: set[str] = set()
    for published, shape in source.shapes.items():
        names = our_names(published)
        if not names or any(name not in expected for name in names):
            surplus.append(published)
            continue
        filled.update(names)
        needed = _fused_shape(expected[names[0]], len(names))
        if shape != needed:
            misshapen.append(f"{published} {shape} instead of {needed}")
    missing = {published_name(name) for name in expected.keys() - filled}
    problems = [
        _listed(what, sorted(names))
        for what, names in (
            ("missing", missing),
            ("surplus", surplus),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{source.place} is not a complete UniBiomed checkpoint: tensors {', '.join(problems)}"
        )


def _fused_shape(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    return shape if parts == 1 else (parts * shape[0], *shape[1:])


def published_name(ours: str) -> str:
    """Name in the published checkpoint of one of our tensors; the inverse of `our_names`."""
    for published, name in _EXACT.items():
        if name == ours:
            return published
    layers = _VISION + "encoder.layer."
    if ours.startswith(layers):
        number, part = ours.removeprefix(layers).split(".", 1)
        return f"vision_model.encoder.layers.{number}.{_published_layer_part(part)}"
    start, replacement = next(pair for pair in _PREFIXES if ours.startswith(pair[1]))
    return start + re.sub(r"\.gamma$", ".g_weight", ours[len(replacement) :])


def _published_layer_part(part: str) -> str:
    for published, name in _SCALES.items():
        if name == part:
            return published
    for published, replacement in _LAYER_PARTS:
        if part.startswith(replacement):
            return published + part[len(replacement) :]
    return re.sub(r"^attention\.[qkv]_proj\.", "attn.qkv.", part)


def _listed(what: str, names: list[str]) -> str:
    more = " ..." if len(names) > _NAMED else ""
    return f"{len(names)} {what}: {'; '.join(names[:_NAMED])}{more}"


def _make_rotary_tables(model: UniBiomed) -> None:
    """Make what no checkpoint holds and the meta device left empty."""
    language = model.mllm.model.language_model
    language.rotary_emb = type(language.rotary_emb)(language.config)
    empty = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if empty:
        raise RuntimeError(f"buffers without a value after loading: {', '.join(empty)}")
