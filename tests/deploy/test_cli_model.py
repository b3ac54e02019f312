"""The commands ``unibiomed-node model show`` and ``verify`` on real folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from deploy.cli import app
from deploy.model_download import DownloadRecord, write_record
from inference.weight_files import file_digest, weights_digest
from tests.inference.tiny_model import save_tiny
from tests.inference.tiny_published import save_published


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["model", *arguments])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("published")
    save_published(folder)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """Return a copy of the published folder that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "UniBiomed"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


def test_show_tells_card_digest_size_and_memory(tiny: Path) -> None:
    data = json.loads(run("show", str(tiny), "--json").stdout)
    assert data["form"] == "node"
    assert data["digest"] == weights_digest(tiny)
    assert data["card"]["name"] == "tiny"
    assert data["values"] == sum(data["values_by_part"].values())
    assert data["bytes_in_memory"] == 4 * data["values"]
    text = run("show", str(tiny))
    assert text.exit_code == 0
    assert "hippocampus" in text.stdout


def test_a_published_folder_gets_a_card_that_lists_nothing(folder: Path) -> None:
    assert "not loaded" in json.loads(run("show", str(folder), "--json").stdout)["card_problem"]
    assert run("card", str(folder), "--version", "abc").exit_code == 0
    again = run("card", str(folder))
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    shown = run("show", str(folder))
    assert "The card lists no target" in shown.stdout
    assert json.loads(run("show", str(folder), "--json").stdout)["form"] == "published"


def test_verify_says_what_is_in_order_and_what_is_not(folder: Path) -> None:
    result = run("verify", str(folder))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ok    files",
        "ok    tokenizer",
        "ok    names and shapes of tensors",
        "ok    values",
        "WRONG card",
    ]
    assert run("card", str(folder)).exit_code == 0
    assert run("verify", str(folder)).exit_code == 0


def test_verify_finds_what_changed_since_the_download(folder: Path) -> None:
    files = {path.name: file_digest(path) for path in folder.iterdir()}
    write_record(DownloadRecord("a/b", "c", weights_digest(folder), files), folder)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    result = run("verify", str(folder))
    assert result.exit_code == 1
    assert "WRONG download: changed since the download: merges.txt" in result.stdout


def test_verify_of_our_own_form(tiny: Path) -> None:
    assert run("verify", str(tiny)).exit_code == 0
    (tiny / "model.safetensors").write_bytes(b"cut")
    result = run("verify", str(tiny))
    assert result.exit_code == 1
    assert "damaged" in result.stdout


@pytest.mark.parametrize("command", ["show", "card"])
def test_a_folder_that_is_no_model_is_one_sentence(command: str, tmp_path: Path) -> None:
    result = run(command, str(tmp_path))
    assert result.exit_code == 1
    assert "is no checkpoint" in result.stderr
    assert "Traceback" not in result.output
