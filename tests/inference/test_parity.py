"""Is our model the published one? The golden outputs of the authors' own class, at the real size.

The weights are made by the fixture's recipe and go through the loader of the real checkpoint.
Takes about a minute of two free cores and 6 GB; leave it out with ``-m "not parity"``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from inference.architecture import UniBiomed
from inference.grounding import Decoded, ImageFeatures
from inference.preparation import Inputs, prepare
from inference.published import assemble, check_names, our_names, unfilled
from inference.published_config import derive_config
from inference.tiling import to_source
from tests.inference.published_weights import RecipeWeights, read_shapes

pytestmark = [pytest.mark.parity, pytest.mark.timeout(1800)]

IMAGE_CONTEXT = 151667
SEG = 151674
PUBLISHED_TENSORS = 1541


@dataclass(frozen=True)
class Answers:
    """Everything that our model computed from the fixture's image and ids."""

    golden: dict[str, torch.Tensor]
    inputs: Inputs
    vision_tokens: torch.Tensor
    states: torch.Tensor
    logits: torch.Tensor
    vectors: torch.Tensor
    features: ImageFeatures
    together: Decoded
    alone: list[Decoded]
    greedy: torch.Tensor
    bfloat16: torch.Tensor


@pytest.fixture(scope="module")
def parity(shared_data: Path) -> Path:
    folder = shared_data.parent / "parity"
    if not (folder / "golden_seed1.safetensors").is_file():
        pytest.skip(f"needs the golden outputs, looked for in {folder}")
    return folder


@pytest.fixture(scope="module")
def weights(parity: Path) -> RecipeWeights:
    return RecipeWeights(read_shapes(parity / "published_keys.csv"))


@pytest.fixture(scope="module")
def answers(parity: Path, weights: RecipeWeights) -> Iterator[Answers]:
    # Other tests of the same process ask for one thread.
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    golden = load_file(parity / "golden_seed1.safetensors")
    model = assemble(weights, derive_config(weights, {}, IMAGE_CONTEXT))
    picture = np.array(Image.open(parity / "image_seed1.png").convert("RGB"))
    with torch.inference_mode():
        yield answer(model, picture, golden)
    torch.set_num_threads(before)


def answer(model: UniBiomed, picture: np.ndarray, golden: dict[str, torch.Tensor]) -> Answers:
    inputs = prepare(picture[None], model.config)
    ids = golden["input_ids"]
    places = (ids[0] == SEG).nonzero()[:, 0]
    tokens = model.image_tokens(inputs.tiles[0])
    spread = tokens.reshape(1, -1, model.config.language.hidden)
    states = model.states(spread, ids)
    vectors = seg_vectors(model, spread, ids, places)
    features = model.grounding.encode(inputs.pixels)
    first = torch.zeros(1, dtype=torch.long)
    prompt = ids[:, : int(places[0])]
    # Its annotation asks for a class that the models of transformers are not derived from.
    greedy = model.mllm.generate(  # type: ignore[misc]
        inputs_embeds=model.embed(spread, prompt),
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=8,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
    )
    assert isinstance(greedy, torch.Tensor)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough_tokens = model.image_tokens(inputs.tiles[0]).reshape(spread.shape)
        rough = model.grounding.decode(
            model.grounding.encode(inputs.pixels),
            seg_vectors(model, rough_tokens, ids, places),
            first.expand(len(places)),
        )
    return Answers(
        golden=golden,
        inputs=inputs,
        vision_tokens=tokens,
        states=states,
        logits=model.mllm.lm_head(states[:, -1]),
        vectors=vectors,
        features=features,
        together=model.grounding.decode(features, vectors, first.expand(len(places))),
        alone=[model.grounding.decode(features, vector[None], first) for vector in vectors],
        greedy=greedy,
        bfloat16=rough.logits.float(),
    )


def seg_vectors(
    model: UniBiomed, tokens: torch.Tensor, ids: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """Return the bridge's output at each [SEG] of one row of ids."""
    count = len(places)
    return model.seg_vectors(tokens.expand(count, -1, -1), ids.expand(count, -1), places)


def assert_agrees(found: torch.Tensor, golden: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Compare, in units of the golden tensor's standard deviation."""
    assert found.shape == golden.shape
    difference = (found.double() - golden.double()).abs().max() / golden.double().std()
    print(f"largest difference {difference:.1e} standard deviations")
    assert difference <= tolerance


def test_every_published_name_is_mapped_and_none_is_left_over(weights: RecipeWeights) -> None:
    model = unfilled(derive_config(weights, {}, IMAGE_CONTEXT))
    check_names(weights, model)
    ours = [name for published in weights.shapes for name in our_names(published)]
    assert len(weights.shapes) == PUBLISHED_TENSORS
    assert sorted(ours) == sorted(model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == 1_163_665_458


def test_preparation_gives_the_published_inputs(answers: Answers) -> None:
    assert_agrees(answers.inputs.tiles[0, :, :, ::8, ::8], answers.golden["pixel_values_sub"])
    assert_agrees(answers.inputs.pixels[:, :, ::16, ::16], answers.golden["sam_pixel_values_sub"])


def test_vision_tokens(answers: Answers) -> None:
    assert_agrees(answers.vision_tokens[:, ::16, ::8], answers.golden["vision_tokens_sub"])


def test_language_states_and_logits(answers: Answers) -> None:
    assert_agrees(answers.states[:, -24:], answers.golden["last_hidden_tail"])
    assert_agrees(answers.logits[:, ::64], answers.golden["logits_last_sub"])
    values, ids = answers.logits[0].topk(5)
    assert torch.equal(ids, answers.golden["next_token_top5"])
    assert_agrees(values, answers.golden["next_token_top5_logits"], 1e-3)


def test_greedy_generation(answers: Answers) -> None:
    assert torch.equal(answers.greedy, answers.golden["greedy_ids_after_prompt"])


def test_seg_vectors(answers: Answers) -> None:
    assert_agrees(answers.vectors, answers.golden["seg_embeddings"])


def test_grounding_features(answers: Answers) -> None:
    high, low = answers.features.high_resolution, answers.features.pyramid[2]
    for number, level in enumerate((*high, low)):
        assert_agrees(level[:, ::4, ::4, ::4], answers.golden[f"fpn{number}_sub"])


def test_masks(answers: Answers) -> None:
    side = answers.inputs.pixels.shape[-1]
    logits = answers.together.logits
    at_input_size = to_source(logits, side, side)[:, None, ::8, ::8]
    assert_agrees(at_input_size, answers.golden["mask_logits_1024_sub"])
    golden = answers.golden["masks_original_size"].bool()
    rows, columns = golden.shape[1:]
    masks = to_source(logits, rows, columns, via=side) > 0
    assert (masks == golden).double().mean() >= 0.9999


def test_prompts_together_equal_prompts_alone(answers: Answers) -> None:
    for number, alone in enumerate(answers.alone):
        assert_agrees(answers.together.logits[number], alone.logits[0])
        for name in ("object_score", "predicted_iou"):
            together, single = getattr(answers.together, name)[number], getattr(alone, name)[0]
            torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-4)


def test_bfloat16_draws_nearly_the_same_masks(answers: Answers) -> None:
    """Stated in docs/models/unibiomed.md; on random weights, whose masks are mostly boundary."""
    single = answers.together.logits > 0
    agreement = ((answers.bfloat16 > 0) == single).double().mean()
    print(f"masks in bfloat16 agree with float32 in {agreement:.2%} of the pixels")
    assert agreement >= 0.95
