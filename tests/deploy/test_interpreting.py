from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread

from deploy.interpreting import InterpretError, interpret_folder
from deploy.phantom_study import demo_phantom, write_phantom_study
from deploy.picture import draw_findings, read_segments
from dicom_node.errors import RetriableError
from dicom_node.objects.series import read_sources
from tests.inference.tiny_model import save_tiny
from workflows import interpret


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four slices of the phantom in a folder of their own."""
    folder = tmp_path_factory.mktemp("slices")
    paths = write_phantom_study(demo_phantom(), folder)
    for path in paths[4:]:
        path.unlink()
    return paths[:4]


def test_files_become_checked_objects_and_a_picture(
    model: Path, slices: list[Path], tmp_path: Path
) -> None:
    said: list[str] = []
    (report,) = interpret_folder(
        slices[0].parent, tmp_path, targets=None, model=model, say=said.append
    )
    assert [finding["target"] for finding in report["findings"]] == ["phantom insert"]
    kinds = [result["kind"] for result in report["results"]]
    assert kinds[-2:] == ["measurement_report", "grounded_report"]
    for result in report["results"]:
        written = dcmread(result["file"])
        assert str(written.SOPInstanceUID) == result["sop_instance_uid"]
        assert str(written.StudyInstanceUID) == report["study_instance_uid"]
    assert not [sentence for sentence in said if sentence.startswith("error")]

    (source,), _ = read_sources(slices)
    segments = (
        read_segments(Path(report["results"][0]["file"])) if kinds[0] == "segmentation" else []
    )
    picture = tmp_path / "picture.png"
    draw_findings(source, segments, report, picture)
    with Image.open(picture) as image:
        assert image.width > 400 and image.height > 400


def test_a_grounded_report_says_where_and_how_large_in_a_valid_sr(
    slices: list[Path], tmp_path: Path
) -> None:
    said: list[str] = []
    (report,) = interpret_folder(
        slices[0].parent,
        tmp_path,
        targets=["phantom insert"],
        model=None,
        say=said.append,
        task="grounded_report",
    )
    (finding,) = report["findings"]
    assert finding["task"] == "grounded_report"
    assert not [sentence for sentence in said if sentence.startswith("error")]
    if finding["presence"] != "absent":
        assert " of the imaged field; " in finding["text"]
        assert finding["text"].count("volume") == 1
    with pytest.raises(InterpretError, match="not one of segmentation"):
        interpret_folder(
            slices[0].parent, tmp_path, targets=None, model=None, say=said.append, task="guessing"
        )


def test_a_target_the_card_does_not_list_is_refused_by_name(
    model: Path, slices: list[Path], tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(InterpretError, match="nothing in"):
        interpret_folder(
            slices[0].parent, tmp_path, targets=["unicorn"], model=model, say=said.append
        )
    assert any("unicorn" in sentence for sentence in said)
    assert list(tmp_path.iterdir()) == []


def test_objects_that_nobody_could_check_are_not_kept(
    model: Path, slices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overloaded(*arguments: object) -> None:
        raise RetriableError("dciodvfy gave no answer within 120 s")

    monkeypatch.setattr(interpret, "validate", overloaded)
    said: list[str] = []
    with pytest.raises(InterpretError):
        interpret_folder(slices[0].parent, tmp_path, targets=None, model=model, say=said.append)
    assert any("no answer" in sentence for sentence in said)
    assert list(tmp_path.rglob("*.dcm")) == []


def test_a_series_that_cannot_be_interpreted_holds_up_no_other(
    model: Path, slices: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for number, uid in (("1", None), ("2", "1.2.3.4")):
        (folder / number).mkdir(parents=True)
        for path in slices:
            image = dcmread(path)
            if uid is not None:
                image.SeriesInstanceUID = uid
                image.SOPInstanceUID += ".1"
                image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
                image.RescaleType = "US"
            image.save_as(folder / number / path.name)
    said: list[str] = []
    reports = interpret_folder(folder, tmp_path / "out", targets=None, model=model, say=said.append)
    assert len(reports) == 1
    assert any(line.startswith("Left out series") and "in HU" in line for line in said)


def test_a_folder_that_takes_no_results_is_named(
    model: Path, slices: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InterpretError, match="cannot be written to"):
        interpret_folder(
            slices[0].parent, tmp_path / "out", targets=None, model=model, say=lambda _: None
        )
