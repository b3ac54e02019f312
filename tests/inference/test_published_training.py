"""A training file laid over its bases: LoRA merged, names of the export, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inference.errors import CheckpointError
from inference.published import load_published
from inference.published_folder import ADDED_TOKENS, SAM_PREFIX, merge_training, write_shards
from inference.published_training import TensorFile, TrainedOver, export_name
from tests.inference.published_weights import RecipeWeights
from tests.inference.tiny_published import (
    BASE_TOKENS,
    config_json,
    make_config,
    make_tokenizer,
    published_shapes,
    save_tokenizer_files,
)

RANK, ALPHA = 3, 6.0
LORA_PART = "layers.1.mlp.up_proj"
MERGED = f"language_model.model.{LORA_PART}.weight"
LORA_NAME = f"mllm.model.language_model.base_model.model.model.{LORA_PART}"
TRAINED_SAM = ("sam_mask_decoder.", "sam_prompt_encoder.", "memory_encoder.", "memory_attention.")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Parts:
    """The three files of a training, from the same recipe as the published folder of the tests."""

    def __init__(self, folder: Path) -> None:
        config = make_config(make_tokenizer())
        shapes = published_shapes(config)
        weights = RecipeWeights(shapes)
        self.whole = {name: weights.tensor(name) for name in shapes}
        self.trained, self.base, self.sam = folder / "it.pth", folder / "base", folder / "sam.pt"
        self._write_base(RecipeWeights({
            name: shape for name, shape in shapes.items()
            if name.startswith(("vision_model.", "language_model.", "mlp1."))
        }, seed=2), config_json(config))  # fmt: skip
        sam = RecipeWeights({n: s for n, s in shapes.items() if n.startswith(SAM_PREFIX)}, seed=2)
        torch.save({"model": {_sam_name(name): sam.tensor(name) for name in sam.shapes}}, self.sam)
        self.lora = {
            f"{LORA_NAME}.lora_A.default.weight": torch.randn(RANK, 32),
            f"{LORA_NAME}.lora_B.default.weight": torch.randn(48, RANK),
        }
        torch.save({"state_dict": self.state()}, self.trained)
        self.base_weights = RecipeWeights(shapes, seed=2)

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a training saves: what was trained, under its own names."""
        language = "mllm.model.language_model.base_model.model."
        state = dict(self.lora)
        for name, value in self.whole.items():
            if name.startswith("mlp1."):
                state["mllm.model." + name] = value
            elif name.startswith("text_hidden_fcs."):
                state[name] = value
            elif name.startswith(tuple(SAM_PREFIX + part for part in TRAINED_SAM)):
                state[SAM_PREFIX + _sam_name(name)] = value
        for leaf in ("model.embed_tokens.weight", "lm_head.weight"):
            state[language + leaf] = self.whole["language_model." + leaf]
        return state

    def _write_base(self, weights: RecipeWeights, settings: dict[str, object]) -> None:
        """The base language model: its own tokens only, so a smaller vocabulary."""
        self.base.mkdir()
        write_shards(weights, self.base)
        tokenizer = make_tokenizer(BASE_TOKENS)
        save_tokenizer_files(tokenizer, self.base)
        llm = settings["llm_config"]
        assert isinstance(llm, dict)
        llm["vocab_size"] = tokenizer.get_vocab_size()
        (self.base / "config.json").write_text(json.dumps(settings))


def _sam_name(published: str) -> str:
    return published.removeprefix(SAM_PREFIX).replace(".g_weight", ".gamma")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(tmp_path_factory.mktemp("training"))


@pytest.mark.parametrize(
    ("trained", "published"),
    [
        ("mllm.model.mlp1.3.bias", "mlp1.3.bias"),
        (f"{LORA_NAME}.weight", MERGED),
        (f"{LORA_NAME}.base_layer.weight", MERGED),
        (
            "mllm.model.language_model.base_model.model.model.embed_tokens.weight",
            "language_model.model.embed_tokens.weight",
        ),
        (
            SAM_PREFIX + "memory_encoder.fuser.layers.0.gamma",
            SAM_PREFIX + "memory_encoder.fuser.layers.0.g_weight",
        ),
        ("text_hidden_fcs.2.bias", "text_hidden_fcs.2.bias"),
    ],
)
def test_training_names_become_those_of_the_export(trained: str, published: str) -> None:
    assert export_name(trained) == published


def test_a_training_laid_over_its_bases_is_a_published_folder(parts: Parts, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    merge_training(parts.trained, parts.base, parts.sam, out, ALPHA)
    model, tokenizer = load_published(out)
    assert [tokenizer.token_to_id(token) for token in ADDED_TOKENS] == [*range(291, 296)]
    filled = model.state_dict()
    base = parts.base_weights.tensor(MERGED)
    down, up = parts.lora.values()
    merged = filled[f"mllm.model.language_model.{LORA_PART}.weight"]
    torch.testing.assert_close(merged, base + ALPHA / RANK * (up @ down))
    for name, value in (
        ("mllm.lm_head.weight", parts.whole["language_model.lm_head.weight"]),
        ("text_hidden_fcs.0.weight", parts.whole["text_hidden_fcs.0.weight"]),
        (SAM_PREFIX + "no_mem_embed", parts.base_weights.tensor(SAM_PREFIX + "no_mem_embed")),
        (
            SAM_PREFIX + "memory_encoder.fuser.layers.1.gamma",
            parts.whole[SAM_PREFIX + "memory_encoder.fuser.layers.1.g_weight"],
        ),
    ):
        assert torch.equal(filled[name], value), name


def test_a_folder_with_files_in_it_is_not_written_over(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(CheckpointError, match="is not empty"):
        merge_training(parts.trained, parts.base, parts.sam, tmp_path)


def test_a_lora_of_another_model_is_refused(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "it.pth"
    torch.save({**parts.state(), f"{LORA_NAME}.lora_B.default.weight": torch.zeros(9, RANK)}, path)
    with pytest.raises(CheckpointError, match=r"LoRA of .*up_proj.* not the model"):
        merge_training(path, parts.base, parts.sam, tmp_path / "out")


def test_half_a_lora_is_refused(parts: Parts, tmp_path: Path) -> None:
    state = parts.state()
    del state[f"{LORA_NAME}.lora_B.default.weight"]
    torch.save(state, tmp_path / "it.pth")
    with pytest.raises(CheckpointError, match="LoRA matrix A without its partner"):
        merge_training(tmp_path / "it.pth", parts.base, parts.sam, tmp_path / "out")


def test_a_training_without_its_bridge_names_what_is_missing(parts: Parts, tmp_path: Path) -> None:
    state = {name: value for name, value in parts.state().items() if "text_hidden" not in name}
    torch.save(state, tmp_path / "it.pth")
    with pytest.raises(CheckpointError, match=r"4 missing: text_hidden_fcs\.0\.bias"):
        merge_training(tmp_path / "it.pth", parts.base, parts.sam, tmp_path / "out")


class Harmful:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.witness,)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Harmful(witness)}, tmp_path / "it.pth")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        TensorFile(tmp_path / "it.pth")
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "it.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"it\.pth"):
        TensorFile(tmp_path / "it.pth")


def test_a_truncated_file_is_named(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "it.pth"
    path.write_bytes(parts.trained.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"it\.pth is damaged"):
        TensorFile(path)


@pytest.mark.parametrize("data", [[1, 2], {}, {"state_dict": {}}, {"epoch": 3}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, data: object) -> None:
    torch.save(data, tmp_path / "it.pth")
    with pytest.raises(CheckpointError, match=r"no state dict|are no tensors"):
        TensorFile(tmp_path / "it.pth")


def test_lora_is_added_with_alpha_over_rank() -> None:
    class Source:
        place = "here"

        def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
            self.tensors = tensors
            self.shapes = {name: tuple(value.shape) for name, value in tensors.items()}

        def tensor(self, name: str) -> torch.Tensor:
            return self.tensors[name]

    base = Source({"language_model.x.weight": torch.eye(2, dtype=torch.bfloat16)})
    trained = Source(
        {
            "mllm.model.language_model.base_model.model.x.lora_A.default.weight": torch.ones(4, 2),
            "mllm.model.language_model.base_model.model.x.lora_B.default.weight": torch.ones(2, 4),
        }
    )
    merged = TrainedOver(trained, base, Source({}), alpha=8.0).tensor("language_model.x.weight")
    assert torch.equal(merged, torch.tensor([[9.0, 8.0], [8.0, 9.0]]))
