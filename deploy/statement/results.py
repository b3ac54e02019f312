"""What the node creates: each kind of object is built of a simulated study and looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.uid import EnhancedSRStorage

from deploy.phantom_study import write_phantom_study
from deploy.statement.markdown import name_of, table
from dicom_node.objects.encoding import encode
from dicom_node.objects.fallback_key_objects import Rejection, build_rejection_note
from dicom_node.objects.fallbacks import FORMS, Material, build_fallbacks
from dicom_node.objects.identifiers import (
    ObjectIdentifiers,
    Predecessor,
    ResultIdentifiers,
    uid_drawn,
)
from dicom_node.objects.measurements import measure
from dicom_node.objects.pixels import read_pixels
from dicom_node.objects.provenance import (
    COPIED_KEYWORDS,
    SERIES_NUMBERS,
    AlgorithmIdentity,
    NodeIdentity,
)
from dicom_node.objects.report import build_grounded_report, build_measurement_report
from dicom_node.objects.segmentation import build_segmentation
from dicom_node.objects.series import Source, read_sources
from dicom_node.services.storage_scu import Item
from inference.findings import Finding, Interpretation, Presence
from learning.phantom import generate_phantom

_KINDS: Final = {
    "segmentation": "masks of the findings",
    "segmentation (label map)": "the same, for viewers that garble BINARY frames",
    "measurement_report": "TID 1500, one group for each finding",
    "measurement_report (Enhanced SR)": "the same, for who takes no Comprehensive 3D SR",
    "grounded_report": "TID 2000, each sentence inferred from its segment and key slice",
    "structure_set": "contours; where a destination asks",
    "secondary_capture": "slices with contours, RGB; where a destination asks",
    "report_document": "the report as one PDF; where a destination asks",
    "key_objects": "TID 2010, (113000, DCM, Of Interest); where a destination asks",
    "rejection_note": "TID 2010, title of CID 7011 (IHE IOCM); on an operator's command; what it "
    "rejects is neither found nor given out by the node's own services, the note is (not for Data "
    "Retention Policy Expired)",
}
_LONGEST: Final = 40


@dataclass(frozen=True, slots=True)
class Made:
    """One object and the source that it was made of."""

    dataset: Dataset
    source: Dataset
    node: NodeIdentity
    item: Item


def objects_table() -> str:
    """Return the kinds of object, their classes, and how they are offered."""
    rows = []
    for kind, made in _made(1).items():
        syntaxes = [name_of(syntax) for _, syntax in made.item.contexts(transcode=True)]
        rows.append(
            (
                f"`{kind}`",
                name_of(made.item.sop_class_uid).removesuffix(" Storage"),
                made.item.sop_class_uid,
                SERIES_NUMBERS[kind.partition(" ")[0]],
                "; ".join(syntaxes),
                _KINDS[kind],
            )
        )
    head = ("kind", "SOP class", "UID", "Series Number", "offered in", "what it is")
    return table(head, rows)


def attributes_table(kind: str) -> str:
    """Return the attributes of a kind of object, and where their values come from.

    Each is built twice, of different studies, models, findings and sites: what is the same in both
    is a fixed value.
    """
    first, second = _made(1)[kind], _made(2)[kind]
    rows = [
        (
            f"{element.name} ({element.tag.group:04X},{element.tag.element:04X})",
            element.VR,
            _origin(element, first, second),
        )
        for element in first.dataset
        if not element.tag.is_private
    ]
    return table(("attribute", "VR", "value"), rows)


def _origin(element: DataElement, first: Made, second: Made) -> str:
    keyword = keyword_for_tag(element.tag)
    if keyword in COPIED_KEYWORDS:
        return "of the source; empty or absent where it has none"
    other = second.dataset.get(element.tag)
    if element.VR == "SQ":
        return f"{len(element.value)} item{'s' * (len(element.value) != 1)} in this example"
    if other is not None and other.value == element.value:
        text = str(element.value) if not isinstance(element.value, bytes) else ""
        return f"always `{text}`" if text and len(text) <= _LONGEST else "always the same"
    if isinstance(element.value, str) and element.value in _settings(first.node):
        return f"of the site: `node.{_settings(first.node)[element.value]}`"
    if element.tag in first.source and first.source[element.tag].value == element.value:
        return "of the source"
    return "made for each result"


def _settings(node: NodeIdentity) -> dict[str, str]:
    return {
        node.station_name: "station",
        node.institution_name: "institution",
        node.serial_number: "serial_number",
    }


@cache
def _made(number: int) -> dict[str, Made]:
    """Build one object of each kind."""
    with TemporaryDirectory() as folder:
        source = _source(number, Path(folder))
        header = source.headers[0]
        found = {}
        node = NodeIdentity(
            f"1.{number}",
            f"serial-{number}",
            station_name=f"STATION{number}",
            institution_name=f"Hospital {number}",
        )
        for kind, dataset in _built(number, source, node):
            path = Path(folder) / "object.dcm"
            path.write_bytes(encode(dataset))
            written = dcmread(path)
            syntax = str(written.file_meta.TransferSyntaxUID)
            uids = str(written.SOPClassUID), str(written.SOPInstanceUID)
            found[kind] = Made(written, header, node, Item(path, *uids, syntax, has_meta=True))
        return found


def _source(number: int, folder: Path) -> Source:
    shape = (6 + number, 64 + 8 * number, 72 + 8 * number)
    paths = write_phantom_study(generate_phantom(number, shape, inserts=2), folder / "study")
    for path in paths:
        image = dcmread(path)
        image.StudyID = image.AccessionNumber = f"EXAMPLE{number}"
        image.PatientID = f"PHANTOM{number}"
        image.FrameOfReferenceUID = f"2.25.{number}"
        image.BodyPartExamined = ("ABDOMEN", "CHEST")[number - 1]
        image.PositionReferenceIndicator = ("XY", "SN")[number - 1]
        image.save_as(path)
    [source], _ = read_sources(paths)
    return source


def _built(number: int, source: Source, node: NodeIdentity) -> Iterator[tuple[str, Dataset]]:
    found = _interpretation(number, source)
    predecessors = [
        Predecessor(kind, str(EnhancedSRStorage), uid_drawn(), uid_drawn())
        for kind in ("measurement_report", "grounded_report")
    ]
    moment = datetime(2026, number, number, number, number, number, tzinfo=UTC)
    identifiers = ResultIdentifiers.draw(moment, predecessors)
    pixels = read_pixels(source)
    measurements = {
        index: measure(one.mask, source, pixels, one.key_frame or 0)
        for index, one in enumerate(found.findings)
        if one.mask is not None
    }
    segmentation = build_segmentation(source, found, identifiers, node)
    label_map = build_segmentation(source, found, identifiers, node, encoding="labelmap")
    if segmentation is None or label_map is None:
        raise RuntimeError("the example has a finding with a mask")
    common = (source, found, measurements, segmentation, identifiers, node)
    yield "segmentation", segmentation
    yield "segmentation (label map)", label_map
    measured = build_measurement_report(*common)
    yield "measurement_report", measured
    enhanced = build_measurement_report(*common, sop_class=EnhancedSRStorage)
    yield "measurement_report (Enhanced SR)", enhanced
    yield "grounded_report", build_grounded_report(*common)
    material = Material(source, pixels, found, measurements, identifiers, node)
    for form, datasets in build_fallbacks(FORMS, material):
        yield form, datasets[0]
    yield (
        "rejection_note",
        build_rejection_note(
            [segmentation, measured],
            list(Rejection)[number],
            f"reason {number}",
            ObjectIdentifiers.draw(),
            identifiers,
            AlgorithmIdentity.of(found, node),
            node,
        ),
    )


def _interpretation(number: int, source: Source) -> Interpretation:
    mask = np.zeros(source.shape, np.bool_)
    mask[2 : 4 + number, 20 : 30 + number, 20 : 30 + number] = True
    target = ("liver", "left kidney")[number - 1]
    present = Finding(
        target, f"There is a {target}.", target, f"segment the {target}", Presence.PRESENT,
        0.9, mask, 3, 0.8,
    )  # fmt: skip
    absent = Finding(
        "polyp", "No polyp is seen.", "polyp", "segment the polyp", Presence.ABSENT, 0.1
    )
    return Interpretation(
        (present, absent)[: 3 - number], f"model {number}", f"{number}", f"{number}" * 64,
        f"window {number}", source.shape[0],
    )  # fmt: skip
