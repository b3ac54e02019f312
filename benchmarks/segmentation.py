"""CPU time of building and saving a SEG, beside plain highdicom, in one run on this machine.

    python benchmarks/segmentation.py [--slices 300] [--size 512] [--segments 50] [--repeats 5]

A CT series is simulated, with that many balls as segments. highdicom builds a BINARY segmentation
of the label map with its defaults; the node builds its BINARY and LABELMAP objects from one boolean
mask for each finding, with descriptions, colours and provenance. Both write to a file. What counts
is the CPU time of the process (user and system) from masks in memory to the file closed; the median
of alternating repeats. Then each file is read back and compared with what was put in.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import highdicom
import numpy as np
from highdicom.seg import (
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import dcmread

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dicom_node.objects.encoding import encode  # noqa: E402
from dicom_node.objects.segmentation import build_segmentation  # noqa: E402
from dicom_node.objects.segmentation_encoding import Encoding  # noqa: E402
from dicom_node.objects.series import Source, read_sources  # noqa: E402
from inference.findings import Finding, Interpretation, Presence  # noqa: E402
from tests.dicom_node.objects.example_results import IDENTIFIERS, NODE  # noqa: E402
from tests.factories import write_ct_series  # noqa: E402

TISSUE = CodedConcept(value="85756007", scheme_designator="SCT", meaning="Tissue")


def balls(slices: int, size: int, count: int) -> NDArray[np.uint8]:
    """Return a label map of balls that do not touch, (slices, size, size)."""
    labels = np.zeros((slices, size, size), np.uint8)
    # About the share of frames that organs take: each ball reaches over a sixth of the slices.
    radius = np.array([slices / 12.0, size / 18.0, size / 18.0])
    places = np.random.default_rng(1)
    columns = int(np.ceil(np.sqrt(count)))
    for number in range(count):
        row, column = divmod(number, columns)
        centre = np.array(
            [
                places.uniform(radius[0], slices - radius[0]),
                (row + 0.5) * size / columns,
                (column + 0.5) * size / columns,
            ]
        )
        low = np.maximum(0, np.floor(centre - radius)).astype(int)
        high = np.minimum(labels.shape, np.ceil(centre + radius) + 1).astype(int)
        grid = np.meshgrid(
            *(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"
        )
        part = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True)) <= 1
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        labels[box][part & (labels[box] == 0)] = number + 1
    return labels


def plain(source: Source, labels: NDArray[np.uint8], count: int, path: Path) -> None:
    """Build and save with highdicom's defaults."""
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="nano", version="1", family=CodedConcept("123110", "DCM", "Artificial Intelligence")
    )
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=f"segment {number}",
            segmented_property_category=TISSUE,
            segmented_property_type=TISSUE,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number in range(1, count + 1)
    ]
    Segmentation(
        source_images=list(source.headers),
        pixel_array=labels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="n",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)


def ours(source: Source, found: Interpretation, encoding: Encoding, path: Path) -> None:
    """Build and save as the node does."""
    dataset = build_segmentation(source, found, IDENTIFIERS, NODE, encoding=encoding)
    assert dataset is not None
    path.write_bytes(encode(dataset))


def findings(labels: NDArray[np.uint8], count: int) -> Interpretation:
    """Return one finding for each ball."""
    found = []
    for number in range(1, count + 1):
        mask = labels == number
        key = int(np.flatnonzero(mask.any(axis=(1, 2)))[0])
        text = f"segment {number}"
        found.append(Finding(text, text, text, text, Presence.PRESENT, 0.9, mask, key))
    return Interpretation(tuple(found), "nano", "1", "ab" * 32, "HU window", len(labels))


def read_labels(path: Path, source: Source) -> tuple[NDArray[np.uint8], int]:
    """Return the label map that a file holds, and how many frames it has."""
    dataset = dcmread(path)
    reader = highdicom.seg.Segmentation.from_dataset(dataset)
    labels = reader.get_pixels_by_source_instance(
        source.sop_instance_uids,
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    return np.asarray(labels, np.uint8), int(dataset.NumberOfFrames)


def cpu_seconds(work: Callable[[], None]) -> float:
    """Return the CPU time of this process for some work."""
    before = time.process_time()
    work()
    return time.process_time() - before


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--segments", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = (options.slices, options.size, options.size)
        (source,), _ = read_sources(write_ct_series(folder / "ct", np.zeros(shape, np.int16)))
        labels = balls(*shape[:2], options.segments)
        found = findings(labels, options.segments)
        ways: dict[str, Callable[[Path], None]] = {
            "highdicom BINARY": lambda path: plain(source, labels, options.segments, path),
            "node BINARY": lambda path: ours(source, found, "binary", path),
            "node LABELMAP": lambda path: ours(source, found, "labelmap", path),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            for way, work in ways.items():
                path = folder / f"{way}.dcm"
                seconds[way].append(cpu_seconds(partial(work, path)))
        first = statistics.median(seconds["highdicom BINARY"])
        print(f"{shape[0]} x {shape[1]} x {shape[2]}, {options.segments} segments")
        for way in ways:
            path = folder / f"{way}.dcm"
            read, frames = read_labels(path, source)
            median = statistics.median(seconds[way])
            print(
                f"{way:18} {median:6.2f} s CPU  ratio {median / first:4.2f}  {frames} frames  "
                f"{path.stat().st_size / 1e6:6.1f} MB  masks "
                + ("equal" if np.array_equal(read, labels) else "DIFFER")
            )


if __name__ == "__main__":
    main()
