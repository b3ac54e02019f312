"""The commands ``train`` and ``evaluate``, from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deploy import cli_learning
from deploy.annotated_dicom import open_dicom
from deploy.cli import app
from inference.card import read_card
from inference.engine import SHIPPED
from learning.adaptation_recipe import TrainingSet
from learning.evaluate import read_rows
from tests.inference.tiny_model import save_tiny
from tests.learning.test_adapt import recipe, write_2d

RUN = CliRunner()


def test_a_checkpoint_is_fine_tuned_and_measured(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    write_2d(tmp_path / "data" / "two", 6)
    sets = [{"format": "published_2d", "path": "two/train.json"}]
    config = recipe(tmp_path, base, sets=sets, max_steps=1)
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    trained = RUN.invoke(app, ["train", str(config), *arguments])
    assert trained.exit_code == 0, trained.output
    model = tmp_path / "run" / "model"
    test = tmp_path / "data" / "two"
    (test / "train").rename(test / "test")
    (test / "train_mask").rename(test / "test_mask")
    path = test / "test.json"
    path.write_text((test / "train.json").read_text().replace('"train"', '"test"'))
    out = tmp_path / "out"
    told = RUN.invoke(app, ["evaluate", str(model), str(path), "--out", str(out), "--unlisted"])
    assert told.exit_code == 0, told.output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["targets"][0]["target"] == "polyp, endoscopy"
    assert summary["targets"][0]["positives"] == 6
    again = RUN.invoke(app, ["evaluate", str(model), str(path), "--out", str(tmp_path / "other")])
    assert again.exit_code == 1
    assert "nothing was measured" in again.output


def test_a_dicom_folder_is_measured(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom" / "ibsi-sts" / "STS_014" / "PET"
    arguments = ["evaluate", str(SHIPPED), str(folder), "--out", str(tmp_path), "--no-words"]
    wrong = RUN.invoke(app, arguments)
    assert wrong.exit_code == 1
    assert "--name 'label=target' says which label is which" in wrong.output
    label = wrong.output.split("labels found: ")[1].split(")")[0]
    named = RUN.invoke(app, [*arguments, "--name", f"{label}=soft-tissue sarcoma"])
    assert named.exit_code == 0, named.output
    (line, _) = json.loads((tmp_path / "summary.json").read_text())["targets"]
    assert line["dice_positive"] > 0.8
    # In millimetres: 38.0 by nano 1.1.
    assert 0 < line["hausdorff_95_mm"] < 50
    # The one series is asked as if it were of another modality, too.
    rows = read_rows(tmp_path / "cases.csv")
    assert {row.images_of for row in rows} == {"", "PET"}


def test_dicom_series_become_training_examples(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "ibsi-sts" / "STS_014" / "PET"
    entry = TrainingSet(format="dicom", path="x", names={"GTV_Mass_PET": "soft-tissue sarcoma"})
    found = list(open_dicom(read_card(SHIPPED))(entry, folder))
    assert len(found) > 5
    assert "Please segment soft-tissue sarcoma in PET." in found[0].questions
    shown = found[0].load()
    assert shown.pictures.dtype == np.uint8
    assert shown.masks is not None and shown.masks.any()
    assert shown.pictures.shape == shown.masks.shape


def test_weights_that_were_cut_off_are_named_before_any_data_are_read(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    told = RUN.invoke(app, ["evaluate", str(model), str(tmp_path), "--out", str(tmp_path / "out")])
    assert told.exit_code == 1
    assert "model.safetensors" in told.output and "damaged" in told.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere", "."], "nowhere is not a folder"),
        (["evaluate", str(SHIPPED), "nothing.txt"], "neither a folder nor a JSON file"),
        (["evaluate", str(SHIPPED), ".", "--name", "x"], "is not 'label=target'"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = RUN.invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert told.exit_code == 1
    assert message in " ".join(told.output.split())


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_learning, "_PACKAGES", ("no_such_package",))
    told = RUN.invoke(app, ["evaluate", "a", "b", "--out", "c"])
    assert told.exit_code == 1
    assert "pip install 'unibiomed-node[learning]'" in " ".join(told.output.split())


def test_a_recipe_with_a_mistake_names_it(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("base: x\nsets: []\nlr: fast\n")
    told = RUN.invoke(app, ["train", str(path), "--data", ".", "--out", str(tmp_path / "o")])
    assert told.exit_code == 2
    assert "lr" in told.output
