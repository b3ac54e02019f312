"""The card: what may be asked, and how it says no."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from inference.card import ModelCard, NotListed, read_card, write_card
from inference.errors import CheckpointError
from tests.inference.tiny_model import card_target, tiny_card


def test_a_card_survives_its_file(tmp_path: Path) -> None:
    write_card(tiny_card(), tmp_path)
    assert read_card(tmp_path) == tiny_card()


def test_dicom_modalities_find_their_words() -> None:
    modality = tiny_card().modality_for(" mr ")
    assert modality is not None
    assert modality.name == "MRI"
    assert tiny_card().modality_for("XA") is None


def test_all_targets_of_a_modality_are_the_default() -> None:
    names = [target.name for target in tiny_card().targets_for("MR")]
    assert names == ["hippocampus", "left ventricle"]
    assert tiny_card().targets_for("XA") == ()


def test_a_body_part_leaves_out_what_belongs_elsewhere() -> None:
    parts = {"hippocampus": ("BRAIN",), "left ventricle": ("HEART",)}
    targets = tuple(
        target.model_copy(update={"body_parts": parts.get(target.name, ())})
        for target in (*tiny_card().targets, card_target("sarcoma", "MRI"))
    )
    card = tiny_card().model_copy(update={"targets": targets})
    assert [t.name for t in card.targets_for("MR", "brain")] == ["hippocampus", "sarcoma"]
    assert [t.name for t in card.targets_for("MR", "KNEE")] == ["sarcoma"]
    assert len(card.targets_for("MR")) == 3


def test_what_is_covered_gives_no_reason() -> None:
    assert tiny_card().covers("MRI", "hippocampus") is None


def test_refusals_are_sentences_that_name_what_is_listed() -> None:
    card = tiny_card()
    assert "does not list liver in MRI; for MRI it lists hippocampus, left ventricle" in str(
        card.covers("MRI", "liver")
    )
    assert "does not list PET; it lists MRI, CT, endoscopy" in str(card.covers("PET", "sarcoma"))


def test_a_trained_but_weak_target_is_refused_with_its_figure() -> None:
    weak = NotListed(name="polyp", modality="CT", reason="Dice 0.2 is below 0.4")
    card = tiny_card().model_copy(update={"not_listed": (weak,)})
    assert "does not offer polyp in CT: Dice 0.2" in str(card.covers("CT", "polyp"))


def test_a_target_of_an_unknown_modality_is_no_card() -> None:
    data = tiny_card().model_dump()
    data["targets"][0]["modality"] = "sonar"
    with pytest.raises(ValidationError, match="sonar"):
        ModelCard.model_validate(data)


def test_a_missing_card_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"card\.yaml is missing"):
        read_card(tmp_path)


def test_reading_a_card_needs_no_torch() -> None:
    program = "import sys, inference.card, inference.findings; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert result.stdout.strip() == "False"
