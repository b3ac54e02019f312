from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from rich.console import Console
from typer.testing import CliRunner

from db.session import Database
from deploy.cli import app
from deploy.job_display import jobs_table
from deploy.phantom_study import demo_phantom, write_phantom_study
from workflows.home import Home


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """Run a command; return exit code, output and errors."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's home as after a start: configuration and an empty database."""
    home = Home(tmp_path / "home")
    home.make_folders()
    home.write_defaults()
    database = Database(f"sqlite:///{home.database}")
    database.upgrade()
    database.dispose()
    return home.root


def test_help_loads_neither_torch_nor_the_dicom_side() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from deploy.cli import app;"
        "result = CliRunner().invoke(app, ['--help']); assert result.exit_code == 0;"
        "heavy = {'torch', 'transformers', 'pydicom', 'numpy', 'sqlalchemy', 'celery'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_defaults_pass_the_check_with_what_is_worth_a_look(home: Path) -> None:
    code, output, errors = call("check-config", "--home", home)
    assert code == 0
    assert "starts with these settings" in output
    assert "nobody may send images" in errors


def test_pages_that_cross_the_network_unencrypted_are_told(home: Path) -> None:
    plain = "dashboard:\n  host: 0.0.0.0\n"
    web = "dicomweb:\n  host: 10.1.2.3\n  users: [{name: v, allow: [query], token: secret}]\n"
    (home / "node.yaml").write_text(plain + web)
    code, _, errors = call("check-config", "--home", home)
    assert code == 0
    assert "node.yaml:2: warning: dashboard.host" in errors and "certificate and key" in errors
    assert "node.yaml:4: warning: dicomweb.host" in errors
    (home / "node.yaml").write_text(plain + "  public_url: https://node.example.org\n")
    assert "unencrypted" not in call("check-config", "--home", home)[2]
    (home / "node.yaml").write_text(plain + "  enabled: false\n")
    assert "unencrypted" not in call("check-config", "--home", home)[2]


def test_a_mistake_is_named_with_file_line_and_mend(home: Path) -> None:
    (home / "node.yaml").write_text("node:\n  port: many\n")
    code, _, errors = call("check-config", "--home", home)
    assert code == 2
    assert "node.yaml:2" in errors
    assert "Mend:" in errors


def test_jobs_of_a_new_node_are_an_empty_list(home: Path) -> None:
    assert call("jobs", "--home", home, "--json")[:2] == (0, "[]\n")
    assert call("jobs", "--home", home)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("job", "7"), 1, "There is no job 7"),
        (("jobs", "--state", "lost"), 2, "choose from: received, waiting"),
        (("send", "nowhere", "--to", "PACS"), 2, "write AE@host:port"),
        (("send", "nowhere", "--to", "PACS@127.0.0.1:104"), 1, "There is no file or folder"),
        (("interpret", "nowhere", "--out", "out", "--model", "none"), 1, "none"),
    ],
)
def test_mistakes_are_sentences(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.setenv("UNIBIOMED_HOME", str(home))
    ended, _, errors = call(*arguments)
    assert ended == code
    assert sentence in errors


def test_what_a_stranger_wrote_commands_no_terminal(tmp_path: Path) -> None:
    paths = write_phantom_study(demo_phantom(), tmp_path / "study")
    for path in paths[3:]:
        path.unlink()
    hostile = "a\x1b[2J\x9b31mb\u202egnp.exe\nForged: all is well"
    for path in paths[:3]:
        image = pydicom.dcmread(path)
        image.SpecificCharacterSet = "ISO_IR 192"
        image.SeriesDescription = hostile
        image.save_as(path)
    code, output, errors = call(
        "interpret", tmp_path / "study", "--out", tmp_path / "out", "--target", "unicorn"
    )
    assert code == 1
    (line,) = [one for one in output.splitlines() if one.startswith("Left out series")]
    assert "gnp.exe Forged: all is well'" in line
    for one in "\x1b\x9b\u202e":
        assert one not in output + errors


def test_what_a_stranger_wrote_commands_no_terminal_from_a_table() -> None:
    job = {
        "id": 1, "state": "failed", "modality": "CT\x1b[2J", "rule": "r", "received_at": None,
        "finished_at": None, "wait_reason": "", "error": "series 'a\x1b[31m\u202eb' is wrong",
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    console.print(jobs_table([job]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "is wrong" in shown and "\x1b" not in shown and "\u202e" not in shown


def test_a_folder_that_is_no_home_says_how_to_make_one(tmp_path: Path) -> None:
    code, _, errors = call("jobs", "--home", tmp_path)
    assert code == 1
    assert f"unibiomed-node up --home {tmp_path}" in errors


def test_the_doctor_finds_what_the_node_needs(home: Path) -> None:
    code, output, _ = call("doctor", "--home", home, "--json")
    found = {one["subject"]: one for one in json.loads(output)}
    assert found["torch"]["verdict"] == "good"
    assert found["torchvision"]["found"] == "not installed, and not needed"
    assert found["database"]["verdict"] == "good"
    assert found["Redis"]["verdict"] == "good"
    assert code == (1 if any(one["verdict"] == "broken" for one in found.values()) else 0)


def test_the_demo_keeps_its_hands_off_folders_of_others(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, errors = call("demo", "--home", tmp_path)
    assert code == 1
    assert "was not made by the demo" in errors
    assert (tmp_path / "thesis.txt").exists()
