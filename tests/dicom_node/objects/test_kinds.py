"""The matrix: every kind of source through reading, segmentation, reports and other readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_node.objects import conformance, conformance_tools
from dicom_node.objects.encoding import encode
from tests.dicom_node.objects.example_results import Results, build, run
from tests.dicom_node.objects.kinds import KINDS, Kind, sources_of
from tests.dicom_node.objects.test_segmentation import (
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
        for report in files[1:]:
            run(DSRDUMP, report)
        if kind.dcmqi:
            out = dcmqi(files[0], folder / "dcmqi")
            assert_same_in_patient_space(out, results.interpretation, source)
