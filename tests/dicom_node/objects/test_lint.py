"""Judging files of any maker: our own pass, the real ones of others get sensible verdicts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.objects.encoding import encode
from dicom_node.objects.lint import Lint, lint
from tests.dicom_node.objects.example_results import Results, build, make_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a source and the results of it."""
    root = tmp_path_factory.mktemp("study")
    results: Results = build(make_source("CT", root / "images"))
    for number, item in enumerate(results.objects):
        (root / f"result{number}.dcm").write_bytes(encode(item))
    (root / "notes.txt").write_text("not DICOM, but there all the same, as in every folder")
    return root


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def broken(found: Lint) -> dict[str, set[str]]:
    """Return the rules that each file breaks with an error."""
    return {
        one.path.name: {p.rule for p in one.verdict.problems if p.severity == "error"}
        for one in found.verdicts
    }


def test_our_own_objects_pass_with_their_images(folder: Path) -> None:
    found = lint(files(folder), tools=False)
    assert found.passes and len(found.verdicts) == 3
    assert (found.sources, found.others, len(found.unreadable)) == (6, 0, 1)
    assert all("AIR-01" in one.verdict.held for one in found.verdicts)
    assert {one.maker for one in found.verdicts} == {"UniBiomed Node"}


def test_without_images_it_says_what_it_could_not_check(folder: Path) -> None:
    found = lint(sorted(folder.glob("*.dcm")), tools=False)
    assert found.passes and found.sources == 0
    assert all("AIR-01" in one.verdict.unchecked for one in found.verdicts)


def test_what_an_archive_gives_back_is_compared(folder: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    back.mkdir()
    for path in folder.glob("*.dcm"):
        shutil.copy(path, back)
    dataset = dcmread(back / "result1.dcm")
    dataset.AccessionNumber = "COERCED"
    dataset.save_as(back / "result1.dcm")
    found = lint(files(folder), tools=False, returned=files(back))
    assert broken(found) == {"result0.dcm": set(), "result1.dcm": {"AIR-14"}, "result2.dcm": set()}


# Each has been read by hand against the file; docs/lint.md tells them in words.
REAL: dict[str, dict[str, set[str]]] = {
    "pydicom/liver_1frame.dcm": {
        "liver_1frame.dcm": {
            "AIR-05", "AIR-09", "AIR-13", "AIR-17", "AIR-19", "segmentation.pixels",
        }
    },
    "pydicom/reportsi.dcm": {"reportsi.dcm": {"AIR-11", "AIR-13"}},
    "pydicom/test-SR.dcm": {"test-SR.dcm": {"AIR-13"}},
    "pydicom-data/liver.dcm": {"liver.dcm": {"AIR-05", "AIR-09", "AIR-17", "AIR-19"}},
    "pydicom-data/liver_deflate.dcm": {
        "liver_deflate.dcm": {"AIR-05", "AIR-09", "AIR-13", "AIR-17", "AIR-19"}
    },
    "highdicom": {
        "seg_image_ct_binary.dcm": {"AIR-04", "AIR-05", "AIR-09", "AIR-22"},
        "seg_image_ct_binary_fractional.dcm": {"AIR-04", "AIR-05", "AIR-09", "AIR-22"},
        "seg_image_ct_true_fractional.dcm": {"AIR-04", "AIR-05", "AIR-09", "AIR-22"},
        "seg_image_sm_dots.dcm": {"AIR-04", "AIR-05", "AIR-09", "AIR-22", "AIR-23"},
        "sr_document.dcm": {
            "AIR-02", "AIR-05", "AIR-08", "AIR-09", "AIR-26", "AIR-28", "AIR-30",
        },
        "highdicom": {"tool.dcentvfy"},
    },
    "dcmqi/24x38x3": {"label.seg": {"AIR-05", "AIR-09", "AIR-17", "AIR-19", "AIR-23"}},
    "dcmqi/sr-example": {
        "seg.dcm": {"AIR-05", "AIR-09", "AIR-17", "AIR-19"},
        "sr.dcm": {"AIR-05", "AIR-08", "AIR-25", "AIR-26", "AIR-30", "AIR-36"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_objects_of_others_get_sensible_verdicts(name: str, shared_data: Path) -> None:
    path = shared_data / "dicom" / name
    found = lint([path] if path.is_file() else files(path))
    assert broken(found) == REAL[name]
    assert not found.unreadable
    for one in found.verdicts:
        assert all("<not shown>" in p.text for p in one.verdict.problems if "PatientName" in p.text)
