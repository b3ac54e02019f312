"""The matrix: every kind of source through reading, segmentation, reports and other readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_node.objects import conformance, conformance_tools
from dicom_node.objects.encoding import encode
from dicom_node.objects.series import Source, read_sources
from inference.findings import Interpretation
from tests.dicom_node.objects.example_results import (
    Results,
    build,
    example,
    finding,
    interpretation,
    run,
)
from tests.dicom_node.objects.kinds import KINDS, Kind, sources_of, table
from tests.dicom_node.objects.test_segmentation import (
    ENCODINGS,
    assert_same_in_patient_space,
    dcmqi,
    masks_of,
    read_back,
    segmentation,
)

DSRDUMP = Path("/usr/bin/dsrdump")


def written(results: Results, folder: Path) -> list[Path]:
    files = []
    for number, dataset in enumerate(results.objects):
        files.append(folder / f"result{number}.dcm")
        files[-1].write_bytes(encode(dataset))
    return files


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_gives_results_that_others_read(kind: Kind, tmp_path: Path) -> None:
    for number, source in enumerate(sources_of(kind, tmp_path / "source")):
        results = build(source)
        folder = tmp_path / f"results{number}"
        folder.mkdir()
        files = written(results, folder)
        problems = conformance.check(files, source.headers)
        assert [p for p in problems if p.severity == "error"] == []
        assert np.array_equal(
            read_back(segmentation(source), source), masks_of(results.interpretation)
        )
        label_map = segmentation(source, results.interpretation, "labelmap")
        assert np.array_equal(read_back(label_map, source), masks_of(results.interpretation))
        file = folder / "labelmap.dcm"
        file.write_bytes(encode(label_map))
        assert conformance_tools.validate(file, "seg") == []
        if kind.dcentvfy:
            together = conformance_tools.validate_together([*source.paths, *files], "study")
            assert [p for p in together if p.severity == "error"] == []
        for report in files[1:] if DSRDUMP.exists() else ():
            run(DSRDUMP, report)
        if kind.dcmqi:
            out = dcmqi(files[0], folder / "dcmqi")
            assert_same_in_patient_space(out, results.interpretation, source)
    if not DSRDUMP.exists():
        pytest.skip("all but dsrdump was checked: it needs DCMTK")


@pytest.mark.filterwarnings("ignore")
def test_a_study_date_of_an_old_archive_does_not_keep_results_back(
    shared_data: Path, tmp_path: Path
) -> None:
    sources, _ = read_sources([shared_data / "dicom" / "pydicom-data" / "color-px.dcm"])
    assert sources[0].headers[0].StudyDate == "1994.11.05"
    files = written(build(sources[0]), tmp_path)
    problems = conformance.check(files, sources[0].headers)
    assert [p for p in problems if p.severity == "error"] == []


def test_the_documentation_shows_this_matrix() -> None:
    page = Path(__file__).parents[3] / "docs" / "sources.md"
    assert table() in page.read_text()


def real_sources(kind: Kind, root: Path) -> list[Source]:
    """Return what the real files of a kind give; in one study some say the same UID twice."""
    sources = []
    for pattern in kind.real:
        paths = [path for path in sorted(root.glob(pattern)) if path.is_file()]
        assert paths, f"{pattern} names no file"
        if len(paths) < 3:
            found = [read_sources([path])[0] for path in paths]
            sources += [source for group in found for source in group]
        else:
            sources += read_sources(paths)[0]
    return sources


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [k for k in KINDS if k.real], ids=lambda kind: kind.name)
def test_real_files_of_a_kind_give_valid_results(
    kind: Kind, shared_data: Path, tmp_path: Path
) -> None:
    for number, source in enumerate(real_sources(kind, shared_data / "dicom")[:3]):
        if source.shape[1] < 16 or source.shape[2] < 16:
            given = whole_frame(source)
        else:
            given = example(source)
        results = build(source, given)
        folder = tmp_path / str(number)
        folder.mkdir()
        files = written(results, folder)
        problems = conformance.check(files, source.headers)
        assert [p for p in problems if p.severity == "error"] == []
        for encoding in ENCODINGS:
            again = read_back(segmentation(source, given, encoding), source)
            assert np.array_equal(again, masks_of(given))
        for report in files[1:] if DSRDUMP.exists() else ():
            run(DSRDUMP, report)
        if is_regular(source):
            assert kind.dcmqi
            out = dcmqi(files[0], folder / "dcmqi")
            assert_same_in_patient_space(out, given, source)


def is_regular(source: Source) -> bool:
    """Whether dcmqi can read a segmentation of a source: evenly spaced planes in the patient."""
    geometry = source.geometry
    if geometry is None or geometry.frame_of_reference_uid is None or geometry.frames < 2:
        return False
    return (geometry.uniform or bool(geometry.missing)) and not geometry.tilted


def whole_frame(source: Source) -> Interpretation:
    """Return one finding on all of the middle frame: for images of a few pixels."""
    mask = np.zeros(source.shape, np.bool_)
    mask[len(mask) // 2] = True
    return interpretation([finding("tissue", mask)], source.shape[0])
