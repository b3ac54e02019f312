"""The architecture: shapes, names, batching, and that prompts reach the decoder."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from inference import decoding
from inference.architecture import (
    Grounding,
    LanguageConfig,
    ModelConfig,
    UniBiomed,
    VisionConfig,
    build_mllm,
)
from inference.prompts import TargetPrompt
from tests.inference.tiny_model import TOKENIZER, tiny_config, tiny_model

PROMPTS = [
    TargetPrompt("hippocampus", "MRI").prompt,
    TargetPrompt("left ventricle", "MRI").prompt,
    TargetPrompt("phantom insert", "CT").prompt,
]


def vectors_of(model: UniBiomed, pixels: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    batch = decoding.encode(TOKENIZER, prompts, model.config.image_tokens)
    tokens = model.image_tokens(pixels).repeat_interleave(len(prompts), dim=0)
    return model.seg_vectors(tokens, batch.ids, batch.seg_position)


def test_configuration_survives_plain_data() -> None:
    config = tiny_config()
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_published_sizes_build_the_published_number_of_weights() -> None:
    """Counts of the reference's section 1.1; the language side without memory, on the meta device.

    The trunk is a small one: sam2's Hiera computes with its weights while it is built.
    """
    tiny = tiny_config()
    config = ModelConfig(
        vision=VisionConfig(
            image_size=448, patch_size=14, hidden=1024, layers=24, heads=16, mlp=4096
        ),
        language=LanguageConfig(
            vocabulary=151679,
            hidden=896,
            layers=24,
            heads=14,
            key_value_heads=2,
            mlp=4864,
            image_token_id=151667,
        ),
        grounding=dataclasses.replace(
            tiny.grounding, d_model=256, decoder_mlp=2048, iou_hidden=256, multimask_outputs=3
        ),
    )
    with torch.device("meta"):
        language = build_mllm(config)
    decoder = Grounding(config.grounding).sam_mask_decoder

    def count(module: torch.nn.Module, prefix: str = "") -> int:
        return sum(p.numel() for name, p in module.named_parameters() if name.startswith(prefix))

    assert config.image_tokens == 256
    assert count(language, "model.vision_tower.") == 304_012_288
    assert count(language, "model.multi_modal_projector.") == 4_482_816
    assert count(language, "model.language_model.") + count(language, "lm_head.") == 629_706_880
    assert count(decoder) == 4_215_109


def test_masks_have_a_quarter_of_the_input_size() -> None:
    model = tiny_model()
    features = model.grounding.encode(torch.zeros(2, 3, 64, 64))
    decoded = model.grounding.decode(features, torch.randn(3, 32), torch.tensor([0, 1, 1]))
    assert decoded.logits.shape == (3, 16, 16)
    assert decoded.object_score.shape == (3,)
    assert ((decoded.predicted_iou >= 0) & (decoded.predicted_iou <= 1)).all()


def test_multimask_keeps_the_mask_with_the_highest_predicted_overlap() -> None:
    model = tiny_model(multimask_outputs=3)
    features = model.grounding.encode(torch.randn(1, 3, 64, 64))
    decoded = model.grounding.decode(features, torch.randn(2, 32), torch.tensor([0, 0]))
    assert decoded.logits.shape == (2, 16, 16)


def test_prompts_together_equal_prompts_alone() -> None:
    model = tiny_model()
    pixels = torch.randn(1, 3, 64, 64)
    features = model.grounding.encode(pixels)
    together = model.grounding.decode(
        features, vectors_of(model, pixels, PROMPTS), torch.zeros(3, dtype=torch.long)
    )
    for number, prompt in enumerate(PROMPTS):
        alone = model.grounding.decode(
            features, vectors_of(model, pixels, [prompt]), torch.zeros(1, dtype=torch.long)
        )
        torch.testing.assert_close(together.logits[number], alone.logits[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            together.object_score[number], alone.object_score[0], rtol=1e-4, atol=1e-4
        )


def test_the_seg_state_depends_on_image_and_prompt() -> None:
    model = tiny_model()
    vectors = vectors_of(model, torch.randn(1, 3, 64, 64), PROMPTS)
    assert not torch.equal(vectors[0], vectors[1])
    other = vectors_of(model, torch.randn(1, 3, 64, 64), PROMPTS)
    assert not torch.equal(vectors[0], other[0])


def test_a_configuration_with_an_unknown_field_is_refused() -> None:
    data = tiny_config().to_dict()
    data["vision"]["depth"] = 3
    with pytest.raises(TypeError, match="depth"):
        ModelConfig.from_dict(data)
