"""The published form: names, sizes, shards, tokenizer, and every way in which one can be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.card import write_card
from inference.checkpoints import load_checkpoint
from inference.engine import Engine
from inference.errors import CheckpointError, NotCoveredError
from inference.published import load_published, our_names, published_name, unfilled
from inference.published_card import default_card
from inference.weight_files import weights_digest
from tests.inference.published_weights import RecipeWeights
from tests.inference.tiny_model import card_target
from tests.inference.tiny_published import (
    BASE_TOKENS,
    make_config,
    make_tokenizer,
    published_shapes,
    save_published,
)

VICTIM = "text_hidden_fcs.0.bias"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors on many threads wait for each other more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as published, in three shards; tests must not change it."""
    folder = tmp_path_factory.mktemp("published")
    save_published(folder, shard_bytes=30_000_000)
    return folder


@pytest.fixture
def folder(shipped: Path, tmp_path: Path) -> Path:
    """Return a folder of links, whose files a test may replace."""
    copy = tmp_path / "UniBiomed"
    copy.mkdir()
    for path in shipped.iterdir():
        (copy / path.name).symlink_to(path)
    return copy


def rewrite(folder: Path, name: str, text: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(text)


def change_config(folder: Path, part: str, **changes: object) -> None:
    data = json.loads((folder / "config.json").read_text())
    target = data[part] if part else data
    target.update(changes)
    rewrite(folder, "config.json", json.dumps(data))


def victim_shard(folder: Path) -> Path:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return folder / str(index["weight_map"][VICTIM])


def replace_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.unlink()
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("mlp1.3.bias", ["mllm.model.multi_modal_projector.linear_2.bias"]),
        ("language_model.lm_head.weight", ["mllm.lm_head.weight"]),
        ("language_model.model.norm.weight", ["mllm.model.language_model.norm.weight"]),
        (
            "vision_model.encoder.layers.23.ls2",
            ["mllm.model.vision_tower.encoder.layer.23.lambda_2"],
        ),
        (
            "vision_model.encoder.layers.1.attn.qkv.bias",
            [
                f"mllm.model.vision_tower.encoder.layer.1.attention.{letter}_proj.bias"
                for letter in "qkv"
            ],
        ),
        (
            "grounding_encoder.sam2_model.memory_encoder.fuser.layers.1.g_weight",
            ["grounding_encoder.sam2_model.memory_encoder.fuser.layers.1.gamma"],
        ),
        ("optimizer.step", []),
        ("vision_model.encoder.layers.0.rotary", []),
    ],
)
def test_published_names_are_ours(published: str, ours: list[str]) -> None:
    assert list(our_names(published)) == ours


def test_names_come_back_as_they_were() -> None:
    for name in unfilled(make_config(make_tokenizer())).state_dict():
        assert name in our_names(published_name(name))


def test_sizes_come_from_tensors_config_and_tokenizer(shipped: Path) -> None:
    tokenizer = make_tokenizer()
    config = make_config(tokenizer)
    model, loaded = load_published(shipped)
    assert model.config == config
    for token in (*BASE_TOKENS, "[SEG]", "<p>", "</vp>"):
        assert loaded.token_to_id(token) == tokenizer.token_to_id(token)
    text = "<|user|>\n<img><IMG_CONTEXT></img>Please segment liver in CT.<|end|>\nIt is [SEG]"
    assert loaded.encode(text).ids == tokenizer.encode(text).ids


def test_every_value_lands_where_its_name_says(shipped: Path) -> None:
    source = RecipeWeights(published_shapes(make_config(make_tokenizer())))
    model, _ = load_published(shipped)
    filled = model.state_dict()
    for published in source.shapes:
        names = our_names(published)
        whole = torch.cat([filled[name] for name in names]) if len(names) > 1 else filled[names[0]]
        assert torch.equal(whole, source.tensor(published).bfloat16().float()), published
    assert not any(value.is_meta for value in model.buffers())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_one_file_and_mixed_types_load_as_well(folder: Path, shipped: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    mixed = {
        name: value.float() if name.startswith("mlp1") else value.half()
        if name.startswith("text_hidden") else value
        for name, value in tensors.items()
    }  # fmt: skip
    save_file(mixed, folder / "model.safetensors")
    make_tokenizer().save(str(folder / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (folder / name).unlink()
    single, sharded = load_published(folder)[0], load_published(shipped)[0]
    name = "mllm.model.multi_modal_projector.linear_1.weight"
    assert torch.equal(single.state_dict()[name], sharded.state_dict()[name])
    assert all(value.dtype == torch.float32 for value in single.parameters())


def test_without_config_json_heads_have_the_published_width(folder: Path) -> None:
    """64 channels; those of the tiny model have 8, and that shows in the shapes of its keys."""
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"self_attn\.k_proj\.weight \(16, 32\) instead of"):
        load_published(folder)


def test_missing_surplus_and_misshapen_tensors_are_all_named(folder: Path) -> None:
    path = victim_shard(folder)
    tensors = load_file(path)
    tensors["text_hidden_fcs.2.bias"] = torch.zeros(7)
    tensors["left_over"] = torch.zeros(1)
    del tensors[VICTIM]
    replace_tensors(path, tensors)
    with pytest.raises(CheckpointError) as caught:
        load_published(folder)
    assert f"1 missing: {VICTIM}" in str(caught.value)
    assert "1 surplus: left_over" in str(caught.value)
    assert "1 of another shape: text_hidden_fcs.2.bias (7,) instead of (256,)" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(folder: Path, value: float) -> None:
    path = victim_shard(folder)
    tensors = load_file(path)
    tensors[VICTIM][3] = value
    replace_tensors(path, tensors)
    with pytest.raises(CheckpointError, match=rf"1 not finite: {VICTIM}"):
        load_published(folder)


@pytest.mark.parametrize("kept", [0, 7, 5000, 1_000_000])
def test_a_truncated_shard_is_named(folder: Path, kept: int) -> None:
    path = victim_shard(folder)
    data = path.read_bytes()[:kept]
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{path.name} is damaged"):
        load_published(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    path = victim_shard(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"1 of \d shards .* {path.name}"):
        load_published(folder)


def test_a_git_lfs_pointer_is_told_from_weights(folder: Path) -> None:
    path = victim_shard(folder)
    path.unlink()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        load_published(folder)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "model.py", "", 3])
def test_an_index_that_leaves_the_folder_is_refused(folder: Path, name: object) -> None:
    rewrite(folder, "model.safetensors.index.json", json.dumps({"weight_map": {VICTIM: name}}))
    with pytest.raises(CheckpointError, match="names no plain file names"):
        load_published(folder)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        load_published(tmp_path)


def test_the_tensors_of_another_model_are_refused(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    save_file({"bert.embeddings.weight": torch.zeros(3, 4)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no UniBiomed checkpoint: tensor vision_model"):
        load_published(folder)


def test_a_tokenizer_without_seg_is_refused(folder: Path) -> None:
    make_tokenizer(BASE_TOKENS).save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"no token \[SEG\]"):
        load_published(folder)


def test_a_tokenizer_of_another_size_is_refused(folder: Path) -> None:
    make_tokenizer((*BASE_TOKENS, "[SEG]")).save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"has 292 tokens, the weights .* 296"):
        load_published(folder)


def test_a_folder_without_tokenizer_says_what_is_missing(folder: Path) -> None:
    (folder / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor merges\.txt"):
        load_published(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 3}'])
def test_a_damaged_tokenizer_is_named(folder: Path, text: str) -> None:
    rewrite(folder, "tokenizer.json", text)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        load_published(folder)


@pytest.mark.parametrize(
    ("part", "name", "value", "said"),
    [
        ("llm_config", "hidden_size", 64, "its tensors say 32"),
        ("llm_config", "vocab_size", 300, "its tensors say 296"),
        ("llm_config", "num_key_value_heads", 4, "its tensors say 2"),
        ("llm_config", "num_attention_heads", "four", "not a number above 0"),
        ("llm_config", "num_attention_heads", 5, "does not divide the width of 32"),
        ("vision_config", "num_hidden_layers", 3, "its tensors say 2"),
        ("vision_config", "norm_type", "rms_norm", "computes 'layer_norm' only"),
        ("", "select_layer", -4, "computes -1 only"),
        ("", "max_dynamic_patch", 0, "not a number above 0"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    folder: Path, part: str, name: str, value: object, said: str
) -> None:
    change_config(folder, part, **{name: value})
    with pytest.raises(CheckpointError, match=rf"{name} = .*{said}"):
        load_published(folder)


def test_a_published_folder_needs_a_card_and_then_is_a_checkpoint(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="a model without a card is not loaded"):
        load_checkpoint(folder)
    write_card(default_card("main"), folder)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.card.targets == ()
    assert checkpoint.digest == weights_digest(folder)
    engine = Engine(checkpoint, torch.device("cpu"))
    with pytest.raises(NotCoveredError, match="does not offer liver in CT: it was published, but"):
        engine.segment(np.zeros((1, 8, 8), np.float32), modality="CT", kind="volume",
                       targets=["liver"])  # fmt: skip


def test_the_engine_answers_with_the_published_preparation(folder: Path) -> None:
    """1 tile of a square picture, 3 and a thumbnail of a wide one; masks on the source grid."""
    card = default_card("main")
    listed = card.model_copy(update={"targets": (card_target("liver", "CT"),), "not_listed": ()})
    write_card(listed, folder)
    engine = Engine.load(folder, threads=1)
    values = np.random.default_rng(0).normal(40, 100, (1, 96, 288)).astype(np.float32)
    for image in (values[:, :, :96], values):
        result = engine.segment(image, modality="CT", kind="volume", targets=["liver"])
        mask = result.findings[0].mask
        assert mask is None or mask.shape == image.shape


def test_the_digest_of_shards_is_that_of_sha256sum(shipped: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(shipped, tmp_path / name)
    assert weights_digest(tmp_path / "a") == weights_digest(shipped)
    path = victim_shard(tmp_path / "b")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert weights_digest(tmp_path / "b") != weights_digest(shipped)
