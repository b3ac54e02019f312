"""Results in the OHIF viewer: the mask it holds is ours, named and painted as we said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from deploy.demo_pacs import OrthancPacs
from deploy.sending import parse_address, send_folder
from dicom_node.objects.encoding import encode
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.references import frame_references
from dicom_node.objects.segmentation_encoding import choose_encoding
from dicom_node.objects.segmentation_reading import read_segmentation
from dicom_node.objects.series import read_sources
from dicom_node.services.storage_scu import StoreStatus, send
from tests.dicom_node.objects.example_results import Results, build, example
from tests.e2e.conftest import SENDER, Node, short_study
from tests.e2e.ohif import ImageKey, OhifServer, Viewer, looking
from tests.e2e.peers import fetch, instances_of_study
from tests.factories import write_cine, write_ct_series, write_image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def server(pacs: OrthancPacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OhifServer]:
    with OhifServer(tmp_path_factory.mktemp("ohif"), pacs) as running:
        yield running


def stored(paths: list[Path], pacs: OrthancPacs) -> None:
    """Send files to the PACS; each must be stored."""
    statuses: list[StoreStatus] = []
    address = parse_address(f"{pacs.ae_title}@127.0.0.1:{pacs.port}")
    send(paths, address, calling_ae_title=SENDER, on_status=statuses.append)
    assert [status.sentence for status in statuses if not status.is_stored] == []
    assert len(statuses) == len(paths)


def results_of(paths: list[Path], pacs: OrthancPacs) -> Results:
    """Build the results of a source with two segments, and store all at the PACS."""
    (source,), aside = read_sources(paths)
    assert aside == []
    encoding, _ = choose_encoding("auto", source, example(source), garbles_unaligned=True)
    assert encoding != "fractional"
    results = build(
        source, encoding=encoding, identifiers=ResultIdentifiers.draw(datetime.now(UTC))
    )
    files = []
    for number, dataset in enumerate(results.objects):
        files.append(paths[0].with_name(f"result-{number}.dcm"))
        files[-1].write_bytes(encode(dataset))
    stored([*paths, *files], pacs)
    assert same_label_maps(label_map_of(results.objects[0]), label_map_found(results))
    return results


def label_map_found(results: Results) -> dict[ImageKey, NDArray[np.uint8]]:
    """Return the label map of each image with a mask, as the findings have it."""
    maps: dict[ImageKey, NDArray[np.uint8]] = {}
    masks = [one.mask for one in results.interpretation.findings if one.mask is not None]
    for index, image in enumerate(frame_references(results.source)):
        here = np.zeros(masks[0].shape[1:], np.uint8)
        for number, mask in enumerate(masks, start=1):
            here[mask[index]] = number
        if here.any():
            maps[image.sop_instance_uid, image.frame_number or 1] = here
    return maps


def label_map_of(segmentation: Dataset) -> dict[ImageKey, NDArray[np.uint8]]:
    """Return the label map of each image with a mask, as this project reads its own object."""
    maps: dict[ImageKey, NDArray[np.uint8]] = {}
    for one in read_segmentation(segmentation).masks():
        if one.mask.any():
            key = (one.sop_instance_uid, one.frame_number)
            here = maps.setdefault(key, np.zeros(one.mask.shape, np.uint8))
            here[one.mask] = one.segment
    return maps


def same_label_maps(
    found: Mapping[ImageKey, NDArray[np.uint8]], ours: Mapping[ImageKey, NDArray[np.uint8]]
) -> bool:
    return set(found) == set(ours) and all(np.array_equal(found[key], ours[key]) for key in ours)


def check_segmentation(viewer: Viewer, segmentation: Dataset) -> None:
    """Open a segmentation: masks, names and colours are exactly those of the object."""
    viewer.show(segmentation.SeriesDescription)
    found = viewer.label_map(segmentation.SeriesInstanceUID)
    assert same_label_maps(found, label_map_of(segmentation))
    viewer.accept()
    shown = viewer.segments()
    ours = {one.number: one for one in read_segmentation(segmentation).segments}
    assert {index: one.label for index, one in shown.items()} == {
        number: one.label for number, one in ours.items()
    }
    for number, one in ours.items():
        # From CIELab to sRGB there are several sets of constants: they round differently.
        assert np.abs(np.subtract(shown[number].colour, one.colour)).max() <= 1


def check_measurements(viewer: Viewer, report: Dataset, segmentation: Dataset) -> None:
    """Open a report of measurements: each is loaded, and lies on the segment it speaks of."""
    viewer.show(report.SeriesDescription)
    found = viewer.measurements(report.SeriesInstanceUID)
    maps = label_map_of(segmentation)
    segments = {one.number for one in read_segmentation(segmentation).segments}
    assert len(found) == len(segments)
    reached = set()
    for one in found:
        assert one["loaded"]
        assert [len(line) for line in one["coords"]] == [4, 4]
        names = [label["label"] for label in one["labels"]]
        assert {"Long Axis", "Short Axis"} <= set(names)
        assert all(label["value"] for label in one["labels"])
        _, _, place = one["image"].partition("/instances/")
        uid, _, frame = place.partition("/frames/")
        x, y = np.reshape(one["coords"][0], (2, 2)).mean(axis=0).astype(int)
        reached.add(int(maps[uid, int(frame or 1)][y, x]))
    assert reached == segments


def check_sentences(viewer: Viewer, report: Dataset) -> None:
    """Open the grounded report: each of its sentences is on the page, whole."""
    viewer.show(report.SeriesDescription)
    sentences = list(texts(report))
    assert len(sentences) > 1
    for sentence in sentences:
        viewer.read(sentence)


def texts(item: Dataset) -> Iterator[str]:
    """Yield the values of all TEXT items of a content tree."""
    for child in item.get("ContentSequence", []):
        if child.ValueType == "TEXT" and child.RelationshipType == "CONTAINS":
            yield str(child.TextValue)
        yield from texts(child)


def check_all(server: OhifServer, study: str, objects: Sequence[Dataset], name: str) -> None:
    """Open a study's three results, one after the other, as a radiologist would."""
    segmentation, measurements, grounded = objects
    with looking(server) as viewer:
        viewer.open(study, series=4)
        check_segmentation(viewer, segmentation)
        viewer.picture(f"ohif-{name}-segmentation")
        check_measurements(viewer, measurements, segmentation)
        viewer.picture(f"ohif-{name}-measurements")
        check_sentences(viewer, grounded)
        viewer.picture(f"ohif-{name}-report")


def blobs(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return frames of a round body, 0..1."""
    _, rows, columns = shape
    z, y, x = np.indices(shape)
    body = ((y / rows - 0.5) ** 2 + (x / columns - 0.5) ** 2) < 0.2
    texture = 0.04 * np.sin(x / 3.0 + z) * np.cos(y / 4.0)
    return np.where(body, 0.4 + 0.2 * (x / columns) + texture, 0.0)


def ct_paths(folder: Path, shape: tuple[int, int, int]) -> list[Path]:
    return write_ct_series(folder / "ct", (blobs(shape) * 400 - 100).astype(np.int16))


def test_ct_by_a_whole_node(
    node: Node, pacs: OrthancPacs, server: OhifServer, tmp_path: Path
) -> None:
    folder, study = short_study(tmp_path, "OHIF")
    send_folder(folder, node.address, SENDER, print)
    job = node.delivered(study)
    there = instances_of_study(pacs, study)
    objects = [
        pydicom.dcmread(fetch(pacs, there[one["sop_instance_uid"]], tmp_path / one["kind"]))
        for one in job["results"]
    ]
    stored(sorted(folder.iterdir()), pacs)
    check_all(server, study, objects, "node")


def test_ct_with_two_segments(pacs: OrthancPacs, server: OhifServer, tmp_path: Path) -> None:
    results = results_of(ct_paths(tmp_path, (6, 128, 160)), pacs)
    assert results.objects[0].SegmentationType == "BINARY"
    check_all(server, results.source.study_instance_uid, results.objects, "ct")


def test_us_multi_frame(pacs: OrthancPacs, server: OhifServer, tmp_path: Path) -> None:
    grey = (blobs((8, 96, 128)) * 255).astype(np.uint8)
    path = write_cine(tmp_path / "us.dcm", np.stack([grey, grey, grey // 2], axis=-1))
    results = results_of([path], pacs)
    assert "FrameOfReferenceUID" not in results.source.headers[0]
    check_all(server, results.source.study_instance_uid, results.objects, "us")


def test_cr_without_frame_of_reference(
    pacs: OrthancPacs, server: OhifServer, tmp_path: Path
) -> None:
    path = write_image(
        tmp_path / "cr.dcm", (blobs((1, 120, 96))[0] * 255).astype(np.uint8), spacing=(0.2, 0.2)
    )
    results = results_of([path], pacs)
    assert "FrameOfReferenceUID" not in results.source.headers[0]
    check_all(server, results.source.study_instance_uid, results.objects, "cr")


def test_label_map_of_an_unaligned_ct(
    pacs: OrthancPacs, server: OhifServer, tmp_path: Path
) -> None:
    results = results_of(ct_paths(tmp_path, (6, 89, 99)), pacs)
    assert results.objects[0].SegmentationType == "LABELMAP"
    check_all(server, results.source.study_instance_uid, results.objects, "labelmap")
