"""Masks that others drew, on the grid of the images that they were drawn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_node.objects.annotations import AnnotationError, masks_of, read_annotations
from dicom_node.objects.encoding import encode
from dicom_node.objects.segmentation import build_segmentation
from dicom_node.objects.segmentation_encoding import Encoding
from dicom_node.objects.segments import segments_of
from dicom_node.objects.series import read_sources
from tests.dicom_node.objects.example_results import (
    IDENTIFIERS,
    NODE,
    VOLUMES,
    example,
    make_source,
)
from tests.e2e.contours import contour_mask, dice


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
@pytest.mark.parametrize("name", VOLUMES)
def test_a_segmentation_of_our_own_comes_back(
    tmp_path: Path, name: str, encoding: Encoding
) -> None:
    source = make_source(name, tmp_path / "images")
    given = example(source)
    built = build_segmentation(source, given, IDENTIFIERS, NODE, encoding=encoding)
    assert built is not None
    path = tmp_path / "seg.dcm"
    path.write_bytes(encode(built))
    (annotation,) = read_annotations([path, source.paths[0]])
    found = masks_of(annotation, source)
    expected = [segment.mask for segment in segments_of(given)]
    assert len(found) == len(expected)
    if encoding == "binary":
        for mask, truth in zip(found.values(), expected, strict=True):
            assert np.array_equal(mask, truth)
    else:
        # A label map keeps one label for each voxel.
        union = np.any(list(found.values()), axis=0)
        assert np.array_equal(union, np.any(expected, axis=0))


@pytest.mark.parametrize("modality", ["PET", "CT", "MR_T1"])
def test_a_structure_set_is_rasterised_as_by_matplotlib(shared_data: Path, modality: str) -> None:
    folder = shared_data / "dicom" / "ibsi-sts" / "STS_014" / modality
    (source,), _ = read_sources(sorted((folder / "image").glob("*")))
    (annotation,) = read_annotations(sorted((folder / "mask").glob("*")))
    found = masks_of(annotation, source)
    assert len(found) == 1
    (mask,) = found.values()
    truth = contour_mask(annotation, source.headers)
    assert dice(mask, truth) > 0.99
    assert abs(int(mask.sum()) - int(truth.sum())) <= 0.02 * truth.sum()


def test_a_structure_set_of_other_images_gives_nothing(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "ibsi-sts" / "STS_014"
    (source,), _ = read_sources(sorted((folder / "PET" / "image").glob("*")))
    (annotation,) = read_annotations(sorted((folder / "CT" / "mask").glob("*")))
    assert masks_of(annotation, source) == {}


def test_a_contour_between_slices_is_refused(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "ibsi-sts" / "STS_014" / "PET"
    (source,), _ = read_sources(sorted((folder / "image").glob("*")))
    (annotation,) = read_annotations(sorted((folder / "mask").glob("*")))
    contour = annotation.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [value + 1.3 for value in contour.ContourData]
    with pytest.raises(AnnotationError, match="mm from the nearest slice"):
        masks_of(annotation, source)


def test_a_segmentation_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    source = make_source(VOLUMES[0], tmp_path)
    built = build_segmentation(source, example(source), IDENTIFIERS, NODE)
    assert built is not None
    del built.SegmentSequence
    with pytest.raises(AnnotationError, match="cannot be put on its images"):
        masks_of(built, source)


def test_what_is_no_annotation_is_left_out(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM")
    image = pydicom.data.get_testdata_file("CT_small.dcm")
    assert read_annotations([text, Path(str(image)), tmp_path / "absent"]) == []
