"""Sources with made-up findings and the objects built of them, for the tests of the results."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.objects.identifiers import ObjectIdentifiers, ResultIdentifiers
from dicom_node.objects.measurements import Measurements, measure
from dicom_node.objects.pixels import read_pixels
from dicom_node.objects.provenance import NodeIdentity
from dicom_node.objects.report import build_grounded_report, build_measurement_report
from dicom_node.objects.segmentation import build_segmentation
from dicom_node.objects.segmentation_encoding import Encoding
from dicom_node.objects.series import Source, read_sources
from inference.findings import Finding, Interpretation, Presence
from tests.factories import write_ct_series, write_image, write_mr_series, write_pet_series

VOLUMES = ("CT", "MR", "PT")
IMAGES = ("CR", "DX", "MG", "US", "SC", "ES", "XC", "GM", "DMS", "OP")
GRAYSCALE = ("CR", "DX", "MG")

NODE = NodeIdentity("0.1.0", "serial-1", station_name="NODE1", institution_name="Test hospital")
IDENTIFIERS = ResultIdentifiers(
    segmentation=ObjectIdentifiers("2.25.11", "2.25.12"),
    measurement_report=ObjectIdentifiers("2.25.21", "2.25.22"),
    grounded_report=ObjectIdentifiers("2.25.31", "2.25.32"),
    tracking_root="2.25.41",
    created=datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC),
)


WRITERS: Mapping[str, Callable[..., list[Path]]] = {
    "CT": write_ct_series,
    "MR": write_mr_series,
    "PT": write_pet_series,
}


@dataclass(frozen=True)
class Results:
    """All that belongs to one job."""

    source: Source
    interpretation: Interpretation
    measurements: Mapping[int, Measurements]
    segmentation: Dataset | None
    measurement_report: Dataset
    grounded_report: Dataset

    @property
    def objects(self) -> list[Dataset]:
        """The objects in the order in which they are sent."""
        reports = [self.measurement_report, self.grounded_report]
        return reports if self.segmentation is None else [self.segmentation, *reports]


def make_source(
    kind: str,
    folder: Path,
    *,
    shape: tuple[int, int, int] = (6, 32, 40),
    values: NDArray[Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    **options: Any,
) -> Source:
    """Return one source of a modality, volume or image; a volume's values are 1 if not given."""
    if kind in VOLUMES:
        volume = np.ones(shape) if values is None else values
        paths = WRITERS[kind](folder, volume, attributes=attributes, **options)
    else:
        size = shape[1:] if kind in GRAYSCALE else (*shape[1:], 3)
        pixels = np.zeros(size, np.uint8)
        path = folder / "image.dcm"
        paths = [write_image(path, pixels, kind=kind, attributes=attributes, **options)]  # type: ignore[arg-type]
    sources, aside = read_sources(paths)
    assert len(sources) == 1 and not aside, aside
    return sources[0]


def two_masks(shape: tuple[int, int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two masks that do not touch, in part on the same frames."""
    first, second = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    frames, rows, columns = shape
    first[frames // 3 : frames // 2 + 1, rows // 8 : rows // 3, columns // 8 : columns // 3] = True
    second[frames // 2 :, rows // 2 : rows // 2 + 4, columns // 8 : columns // 3] = True
    return first, second


def finding(
    target: str,
    mask: NDArray[np.bool_] | None,
    *,
    text: str | None = None,
    presence: Presence | None = None,
    prompt: str | None = None,
) -> Finding:
    """Return a finding; present where there is a mask."""
    if text is None:
        text = f"{target.capitalize()} is seen." if mask is not None else f"No {target} is seen."
    key = None if mask is None else int(np.flatnonzero(mask.any(axis=(1, 2)))[-1])
    default = Presence.ABSENT if mask is None else Presence.PRESENT
    return Finding(
        target=target,
        text=text,
        phrase=target,
        prompt=prompt or f"segment the {target}",
        presence=presence or default,
        confidence=0.875,
        mask=mask,
        key_frame=key,
    )


def interpretation(findings: Sequence[Finding], frames: int = 1) -> Interpretation:
    """Return an interpretation by a made-up model."""
    return Interpretation(tuple(findings), "nano", "0.1.0", "ab" * 32, "HU window", frames)


def example(source: Source) -> Interpretation:
    """Return two findings with masks and, between them, an absent one."""
    first, second = two_masks(source.shape)
    return interpretation(
        [
            finding("anterior hippocampus", first),
            finding("polyp", None),
            finding("left kidney cyst", second, presence=Presence.UNCERTAIN),
        ],
        source.shape[0],
    )


def build(
    source: Source,
    given: Interpretation | None = None,
    *,
    encoding: Encoding = "binary",
    identifiers: ResultIdentifiers = IDENTIFIERS,
) -> Results:
    """Measure and build all objects of a job."""
    given = given or example(source)
    pixels = read_pixels(source)
    measurements = {
        index: measure(item.mask, source, pixels, item.key_frame or 0)
        for index, item in enumerate(given.findings)
        if item.mask is not None
    }
    segmentation = build_segmentation(source, given, identifiers, NODE, encoding=encoding)
    return Results(
        source,
        given,
        measurements,
        segmentation,
        build_measurement_report(source, given, measurements, segmentation, identifiers, NODE),
        build_grounded_report(source, given, measurements, segmentation, identifiers, NODE),
    )


def run(*arguments: object) -> str:
    """Run a program with a deadline and return its output; it must end with 0."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        timeout=60,
        check=False,
    )
    output = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, output + done.stderr.decode("utf-8", "replace")
    return output
