"""The command ``lint``: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from dicom_node.objects.conformance import rules
from dicom_node.objects.encoding import encode
from tests.dicom_node.objects.example_results import build, make_source

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "lint.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a source and the results of it, one of them broken."""
    root = tmp_path_factory.mktemp("study")
    results = build(make_source("US", root / "images"))
    results.grounded_report.PatientID = "SOMEONE-ELSE"
    for number, item in enumerate(results.objects):
        (root / f"result{number}.dcm").write_bytes(encode(item))
    return root


def test_people_read_which_rule_is_broken_and_why(folder: Path) -> None:
    answer = CliRunner().invoke(app, ["lint", str(folder)])
    assert answer.exit_code == 1
    assert "PASS result0.dcm: segmentation by UniBiomed Node" in answer.output
    assert "FAIL result2.dcm: text report by UniBiomed Node" in answer.output
    assert "AIR-01 Patient and study attributes equal the source's" in answer.output
    assert "PatientID differs from the source's" in answer.output
    assert "SOMEONE-ELSE" not in answer.output
    assert "AIR-41 (needs what the archive answered to C-STORE)" in answer.output


def test_programs_read_the_same(folder: Path) -> None:
    answer = CliRunner().invoke(app, ["lint", "--json", str(folder)])
    assert answer.exit_code == 1
    document = json.loads(answer.output)
    assert [one["passes"] for one in document["objects"][:3]] == [True, True, False]
    assert document["sources"] == 1 and not document["passes"]
    assert document["objects"][2]["problems"][0]["rule"] == "AIR-01"
    assert "AIR-41" in document["objects"][0]["unchecked"]


def test_one_good_file_ends_with_0(folder: Path) -> None:
    answer = CliRunner().invoke(app, ["lint", str(folder / "result0.dcm")])
    assert answer.exit_code == 0, answer.output


@pytest.mark.parametrize("arguments", [[], ["no-such-file.dcm"]])
def test_nothing_to_check_ends_with_2(arguments: list[str], tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["lint", *arguments]).exit_code == 2
    assert CliRunner().invoke(app, ["lint", str(tmp_path)]).exit_code == 2


def test_rules_are_listed_and_documented() -> None:
    listed = json.loads(CliRunner().invoke(app, ["lint", "--rules", "--json"]).output)
    assert [one["id"] for one in listed] == [rule.id for rule in rules()]
    text = DOCUMENTATION.read_text(encoding="utf-8")
    for rule in rules():
        assert f"| `{rule.id}` | {rule.text} | {rule.source} |" in text
