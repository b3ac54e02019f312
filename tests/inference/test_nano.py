"""The shipped model: what it was trained for, it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.engine import SHIPPED, Engine
from inference.findings import Finding, Presence
from inference.tasks import Sort, Task, TaskKind
from inference.weight_files import WEIGHTS_FILE, file_digest
from learning.datasets import Side, read_nifti, side_of
from learning.metrics import dice, volume_error
from learning.phantom import generate_phantom
from learning.recipe import load_recipe

MEGABYTE = 1024 * 1024


def mri_targets(engine: Engine) -> list[str]:
    return [target.name for target in engine.card.targets if target.modality == "MRI"]


def test_the_card_lists_only_what_beats_a_constant_mask(nano: Engine) -> None:
    assert len(nano.card.targets) >= 8
    for target in nano.card.targets:
        assert target.score.dice_shifted > target.score.floor_shifted + 0.1, target.name
        assert target.score.groups >= 4, target.name
    assert "research use only" in nano.card.research_use


def test_the_weights_are_small_and_the_report_is_theirs(nano: Engine) -> None:
    assert (SHIPPED / WEIGHTS_FILE).stat().st_size < 30 * MEGABYTE
    report = Path(__file__).resolve().parents[2] / "docs" / "models" / "nano" / "README.md"
    assert file_digest(SHIPPED / WEIGHTS_FILE) == nano.digest
    assert nano.digest in report.read_text()


@pytest.mark.parametrize("seed", [7, 2026])
def test_a_phantom_it_never_saw_is_measured(nano: Engine, seed: int) -> None:
    phantom = generate_phantom(seed, inserts=2)
    finding = nano.segment(
        phantom.volume,
        modality="CT",
        kind="volume",
        targets=["phantom insert"],
        spacing=phantom.spacing,
    ).findings[0]
    assert finding.presence is Presence.PRESENT
    assert finding.mask is not None
    assert dice(finding.mask, phantom.labels > 0) >= 0.9
    found = float(finding.mask.sum() * np.prod(phantom.spacing))
    known = sum(insert.volume for insert in phantom.inserts)
    assert abs(volume_error(found, known)) <= 0.05


def test_a_phantom_without_inserts_shows_none(nano: Engine) -> None:
    phantom = generate_phantom(4321, (12, 256, 256), inserts=0)
    finding = nano.segment(
        phantom.volume,
        modality="CT",
        kind="volume",
        targets=["phantom insert"],
        spacing=phantom.spacing,
    ).findings[0]
    assert finding.presence is not Presence.PRESENT
    if finding.presence is Presence.ABSENT:
        assert finding.text == "No phantom insert seen in this series."


def test_two_prompts_on_one_image_give_two_scores(nano: Engine) -> None:
    """End to end from random weights they would not: the prompt would never reach the decoder."""
    phantom = generate_phantom(7, (8, 256, 256), (15.0, 1.4, 1.4), inserts=2)
    names = [target.name for target in nano.card.targets if target.modality == "CT"]
    assert len(names) >= 2
    findings = nano.segment(
        phantom.volume, modality="CT", kind="volume", targets=names, spacing=phantom.spacing
    ).findings
    confidence = {finding.target: finding.confidence for finding in findings}
    assert confidence["phantom insert"] > 0.6
    assert confidence["soft-tissue sarcoma"] < 0.4


def test_prompts_together_equal_prompts_alone(nano: Engine) -> None:
    images = generate_phantom(7, (3, 128, 128), (40.0, 2.8, 2.8), inserts=2).volume
    names = mri_targets(nano)
    together = nano.segment(images, modality="MRI", kind="volume", targets=names).findings
    for name, finding in zip(names, together, strict=True):
        alone = nano.segment(images, modality="MRI", kind="volume", targets=[name]).findings[0]
        assert alone.confidence == pytest.approx(finding.confidence, abs=1e-3)


def test_half_precision_draws_the_same_mask(nano: Engine) -> None:
    phantom = generate_phantom(7, (4, 256, 256), (30.0, 1.4, 1.4), inserts=2)

    def found() -> Finding:
        return nano.segment(
            phantom.volume,
            modality="CT",
            kind="volume",
            targets=["phantom insert"],
            spacing=phantom.spacing,
        ).findings[0]

    single = found()
    with torch.autocast("cpu", torch.bfloat16):
        half = found()
    assert single.presence is half.presence
    assert single.mask is not None and half.mask is not None
    assert dice(single.mask, half.mask) > 0.995


def hippocampus(shared_data: Path, number: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    folder = shared_data / "train" / "mr_hippocampus_msd"
    name = f"hippocampus_{number}.nii.gz"
    return read_nifti(folder / "images" / name), read_nifti(folder / "masks" / name)


def test_a_hippocampus_volume_it_never_saw(nano: Engine, shared_data: Path) -> None:
    recipe = load_recipe(Path(__file__).resolve().parents[2] / "configs" / "nano.yaml")
    images = sorted((shared_data / "train" / "mr_hippocampus_msd" / "images").iterdir())
    numbers = [path.name[len("hippocampus_") : -len(".nii.gz")] for path in images]
    held_out = [n for n in numbers if side_of(f"hippocampus_{n}", recipe) is Side.TEST]
    image, truth = hippocampus(shared_data, held_out[0])
    findings = nano.segment(
        image, modality="MRI", kind="volume", targets=mri_targets(nano), spacing=(1.0, 1.0, 1.0)
    ).findings
    by_name = {finding.target: finding for finding in findings}
    whole = by_name["hippocampus"]
    assert whole.mask is not None
    assert dice(whole.mask, truth > 0) > 0.6


def test_its_own_words_are_listed_with_their_figures(nano: Engine) -> None:
    by_task = {(item.kind, item.sort): item for item in nano.card.spoken}
    assert set(by_task) == {
        (TaskKind.REGION_CLASSIFICATION, None), (TaskKind.QUESTION, Sort.ORGAN),
    }  # fmt: skip
    for item in by_task.values():
        assert item.value > item.baseline + 0.3
        assert f"{item.metric} {item.value:.2f}" in item.statement


def test_it_says_which_organ_is_shown(nano: Engine, shared_data: Path) -> None:
    image, _ = hippocampus(shared_data, "001")
    task = Task(TaskKind.QUESTION, question="Which organ is shown?")
    (one,) = nano.answer(image, modality="MRI", kind="volume", tasks=[task]).findings
    assert one.text == "The brain."
    assert one.prompt == "Which organ is shown?"
    assert one.presence is Presence.UNCERTAIN
    assert one.mask is None
