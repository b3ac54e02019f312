"""What scanners and archives get wrong: the results are right all the same, or a sentence says why.

In no case is a source altered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from pydicom import config, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_node.objects import conformance
from dicom_node.objects.encoding import encode
from dicom_node.objects.pixels import PixelError, read_pixels
from dicom_node.objects.series import Source, read_sources
from tests.dicom_node.objects.example_results import build, example
from tests.dicom_node.objects.test_segmentation import masks_of, read_back
from tests.factories import (
    REMOVE,
    ImageKind,
    write_cine,
    write_ct_series,
    write_image,
    write_mr_series,
)

VOLUME = np.arange(6 * 32 * 40).reshape(6, 32, 40) % 1000
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "Laterality",
    "InstanceNumber", "Manufacturer", "PositionReferenceIndicator", "PatientPosition",
    "SliceThickness", "KVP", "PatientOrientation",
)  # fmt: skip
SHORT_STRINGS = {"DS": 16, "IS": 12, "LO": 64, "SH": 16, "CS": 16, "UI": 64, "PN": 324}


@pytest.fixture(autouse=True)
def _sources_stay_as_they_are(tmp_path: Path) -> Iterator[None]:
    yield
    record = tmp_path / "digests"
    digests = dict(line.split(" ", 1)[::-1] for line in record.read_text().splitlines())
    for name, digest in digests.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def sources_of(paths: list[Path] | Path, folder: Path) -> list[Source]:
    """Read sources, and note what their files are."""
    files = [paths] if isinstance(paths, Path) else paths
    (folder / "digests").write_text(
        "\n".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(folder)}"
            for path in files
        )
    )
    sources, aside = read_sources(files)
    assert not aside, aside
    return sources


def assert_right(source: Source, folder: Path) -> None:
    """Hold that SEG and SR of a source pass the gate, fit their VRs, and hold the masks."""
    assert read_pixels(source).values.shape[0] == source.shape[0]
    given = example(source)
    results = build(source, given)
    files = []
    for number, dataset in enumerate(results.objects):
        files.append(folder / f"result{number}.dcm")
        files[-1].write_bytes(encode(dataset))
    problems = conformance.check(files, source.headers)
    assert [one for one in problems if one.severity == "error"] == []
    assert results.segmentation is not None
    assert np.array_equal(read_back(results.segmentation, source), masks_of(given))
    for file in files:
        for element in dcmread(file).iterall():
            limit = SHORT_STRINGS.get(element.VR)
            if limit and element.value not in (None, ""):
                values = element.value if element.VM > 1 else [element.value]
                assert all(len(str(one)) <= limit for one in values), element


@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "US"])
def test_absent_type_2_attributes(modality: str, tmp_path: Path) -> None:
    absent = dict.fromkeys(TYPE_2, REMOVE)
    if modality in ("CT", "MR"):
        write = write_ct_series if modality == "CT" else write_mr_series
        paths: list[Path] | Path = write(tmp_path / "in", VOLUME, attributes=absent)
    else:
        pixels = VOLUME[0].astype(np.uint8)
        pixels = pixels if modality == "CR" else np.stack([pixels] * 3, axis=-1)
        kind: ImageKind = "CR" if modality == "CR" else "US"
        paths = write_image(tmp_path / "in.dcm", pixels, kind=kind, attributes=absent)
    (source,) = sources_of(paths, tmp_path)
    assert not any(keyword in header for keyword in TYPE_2 for header in source.headers)
    assert_right(source, tmp_path)


def _rewrite(paths: list[Path], change: Callable[[Dataset], None]) -> list[Path]:
    """Change files, without pydicom holding the values to their VR."""
    with config.disable_value_validation():
        for path in paths:
            dataset = dcmread(path)
            change(dataset)
            dataset.save_as(path)
    return paths


WRONG_VRS = {
    "PixelSpacing": ("LO", "0.75\\0.75"),
    "ImagePositionPatient": ("LT", None),
    "PatientBirthDate": ("LO", "19700101"),
    "PatientSex": ("LO", "M"),
    "StudyTime": ("SH", "101500"),
    "SeriesNumber": ("SH", "4"),
    "AccessionNumber": ("LO", "A-7"),
    "PatientID": ("UT", "P-7"),
    "SliceThickness": ("FD", 2.0),
    "FrameOfReferenceUID": ("LO", None),
}


@pytest.mark.parametrize("keyword", WRONG_VRS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_wrong_value_representations(keyword: str, tmp_path: Path) -> None:
    vr, value = WRONG_VRS[keyword]

    def change(dataset: Dataset) -> None:
        element = dataset[keyword]
        said = element.value
        text = "\\".join(map(str, said)) if element.VM > 1 else str(said)
        dataset[keyword] = DataElement(element.tag, vr, text if value is None else value)

    paths = _rewrite(write_ct_series(tmp_path / "in", VOLUME, spacing=(0.75, 0.75)), change)
    assert dcmread(paths[0])[keyword].VR == vr
    sources = sources_of(paths, tmp_path)
    for source in sources:
        assert_right(source, tmp_path)


def test_decimal_strings_of_more_than_16_characters(tmp_path: Path) -> None:
    exact = [-123.456789012345678, 87.654321098765432, 0.0]

    def change(dataset: Dataset) -> None:
        z = float(dataset.ImagePositionPatient[2])
        values = [*exact[:2], z + 1 / 3]
        for keyword, numbers in (
            ("ImagePositionPatient", values),
            ("PixelSpacing", [0.7031250000000001, 0.7031250000000001]),
            ("ImageOrientationPatient", [0.99999999999999989, 0, 0, 0, 0.99999999999999989, 0]),
        ):
            text = "\\".join(repr(float(one)) for one in numbers)
            dataset[keyword] = DataElement(dataset[keyword].tag, "DS", text)

    paths = _rewrite(write_ct_series(tmp_path / "in", VOLUME), change)
    assert b"-123.45678901234568" in paths[0].read_bytes()
    (source,) = sources_of(paths, tmp_path)
    assert source.geometry is not None
    assert np.abs(source.geometry.positions[:, :2] - exact[:2]).max() <= 1e-6
    assert_right(source, tmp_path)


def test_a_frame_of_reference_without_positions(tmp_path: Path) -> None:
    bare = {"ImagePositionPatient": REMOVE, "ImageOrientationPatient": REMOVE}
    paths = write_ct_series(tmp_path / "in", VOLUME[:1], attributes=bare)
    (source,) = sources_of(paths, tmp_path)
    assert source.headers[0].FrameOfReferenceUID and source.geometry is None
    assert_right(source, tmp_path)


@pytest.mark.parametrize("interpretation", ["RGB", "ARGB"])
def test_colour_with_alpha_is_refused_naming_the_attribute(
    interpretation: str, tmp_path: Path
) -> None:
    alpha = {"SamplesPerPixel": 4, "PhotometricInterpretation": interpretation, "Rows": 8}
    path = write_image(tmp_path / "in.dcm", np.zeros((32, 40), np.uint8), attributes=alpha)
    (source,) = sources_of(path, tmp_path)
    with pytest.raises(PixelError, match=r"Samples per Pixel \(0028,0002\)"):
        read_pixels(source)


def test_images_of_1_12_and_32_bits(tmp_path: Path) -> None:
    bits = write_cine(tmp_path / "1.dcm", (VOLUME % 2).astype(np.uint8), kind="SC single bit")
    twelve = write_image(
        tmp_path / "12.dcm", VOLUME[0].astype(np.uint16), kind="CR", bits_stored=12
    )
    wide = write_image(tmp_path / "32.dcm", VOLUME[0].astype(np.uint32) << 20, bits_stored=32)
    sources = sources_of([bits, twelve, wide], tmp_path)
    assert sorted(int(source.headers[0].BitsStored) for source in sources) == [1, 12, 32]
    for number, source in enumerate(sources):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert_right(source, folder)


@pytest.mark.usefixtures("tmp_path")
def test_an_image_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values lie in a file then, and are the same."""
    paths = write_ct_series(tmp_path / "in", VOLUME)
    (source,) = sources_of(paths, tmp_path)
    usual = read_pixels(source).values
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=60_000))
    mapped = read_pixels(source).values
    assert not isinstance(usual, np.memmap) and isinstance(mapped, np.memmap)
    assert np.array_equal(usual, mapped)
    assert_right(source, tmp_path)
