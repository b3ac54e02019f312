"""From a study's files to its sources: the volumes and images that a model can look at.

Every file that is handed in comes out again: as part of a `Source`, or `SetAside` with a sentence
that a PACS administrator understands.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydicom import Dataset

from dicom_node.objects.calibration import Spacing, image_calibration, number
from dicom_node.objects.geometry import Geometry
from dicom_node.objects.headers import Header, PixelElement, UnreadableError, read_header
from dicom_node.objects.stacks import Stack, build_stacks
from dicom_node.objects.storage_classes import IMAGE_CLASSES, VOLUME_CLASSES, why_not_read

_LARGEST_SIDE: Final = 65535
_UID: Final = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, eq=False)
class Source:
    """One volume (the slices of one series and phase) or one single image.

    Attributes
    ----------
    kind
        ``"volume"`` for single-frame CT, MR and PET slices that have a place in the patient (also
        when there is only one), ``"image"`` for an image that stands alone.
    modality
        Modality (0008,0060); where it is absent, that of the storage class.
    paths, headers
        One per frame, sorted along the normal: the files, and their attributes without pixel data.
    geometry
        Where a volume lies, in mm. None for images, and for volumes without a usable Pixel
        Spacing: nothing of those is measured in mm.
    calibration
        Millimetres per pixel in the image plane, (row spacing, column spacing); None where the
        header does not promise them. For volumes that of the geometry.
    notes
        Sentences for the administrator: missing slices, gantry tilt, phase 2 of 3 ...
    pixel_elements
        Where each file keeps its pixel data.
    """

    kind: Literal["volume", "image"]
    modality: str
    paths: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    geometry: Geometry | None
    notes: tuple[str, ...] = ()
    calibration: Spacing | None = None
    pixel_elements: tuple[PixelElement, ...] = ()

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID (0020,000D)."""
        return str(self.headers[0].StudyInstanceUID)

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID (0020,000E)."""
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID (0008,0016)."""
        return str(self.headers[0].SOPClassUID)

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """SOP Instance UID (0008,0018) of each frame."""
        return tuple(str(h.SOPInstanceUID) for h in self.headers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return len(self.headers), int(self.headers[0].Rows), int(self.headers[0].Columns)


@dataclass(frozen=True, slots=True)
class SetAside:
    """Files that are not interpreted, and one sentence that says why.

    ``sop_instance_uids`` is shorter than ``paths`` where a file names no instance.
    """

    sop_instance_uids: tuple[str, ...]
    reason: str
    paths: tuple[Path, ...] = ()


def read_sources(paths: Sequence[Path]) -> tuple[list[Source], list[SetAside]]:
    """Read the headers of files and group them into sources.

    Parameters
    ----------
    paths
        Any files of one or several studies, in any order.

    Returns
    -------
    sources, set_aside
        Sources by study, series number and phase. Every path is in exactly one of the two.

    Raises
    ------
    RetriableError
        The operating system could not read a file.
    """
    aside: list[SetAside] = []
    series: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
    images: list[Header] = []
    seen: set[str] = set()
    for path in paths:
        header = _read(Path(path), aside)
        if header is None or (reason := _why_aside(header, seen)) is not None:
            if header is not None:
                aside.append(_set_aside([header], reason or ""))
            continue
        dataset = header.dataset
        seen.add(str(dataset.SOPInstanceUID))
        if str(dataset.SOPClassUID) in VOLUME_CLASSES:
            key = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPClassUID)
            series[key].append(header)
        else:
            images.append(header)
    sources = [_image_source(header) for header in images]
    for headers in series.values():
        headers.sort(key=lambda h: _order(h.dataset))
        stacks, left = build_stacks(headers)
        sources.extend(_volume_source(stack) for stack in stacks)
        aside.extend(_set_aside(part.headers, part.reason) for part in left)
    # Stable: phases of one series stay in their order.
    sources.sort(key=lambda s: _series_order(s.headers[0]))
    return sources, aside


def _read(path: Path, aside: list[SetAside]) -> Header | None:
    try:
        return read_header(path)
    except UnreadableError as error:
        aside.append(SetAside((), f"The file cannot be read as DICOM: {error}.", (path,)))
        return None


def _why_aside(header: Header, seen: set[str]) -> str | None:
    """Return the sentence for a file that cannot be part of any source, or None."""
    dataset = header.dataset
    for keyword, name in (
        ("SOPClassUID", "SOP Class UID (0008,0016)"),
        ("SOPInstanceUID", "SOP Instance UID (0008,0018)"),
        ("StudyInstanceUID", "Study Instance UID (0020,000D)"),
        ("SeriesInstanceUID", "Series Instance UID (0020,000E)"),
    ):
        text = str(dataset.get(keyword) or "").strip()
        if not text:
            return f"{name} is absent or empty: a result could not refer to this object."
        if not _UID.fullmatch(text):
            return f"{name} is no UID: a result could not refer to this object."
    why = why_not_read(str(dataset.SOPClassUID))
    if why is not None:
        return f"This object is {why}."
    if str(dataset.SOPInstanceUID) in seen:
        return "The same SOP Instance UID (0008,0018) occurs twice: the first file is used."
    return _why_no_pixels(header)


def _why_no_pixels(header: Header) -> str | None:
    """Return the sentence for an object of an image class without usable pixel data, or None."""
    dataset, pixels = header.dataset, header.pixels
    if pixels is None:
        return (
            f"This object is of the class {dataset.SOPClassUID.name} but has no Pixel Data "
            "(7FE0,0010): the file is incomplete or cut off."
        )
    for keyword, tag in (("Rows", "0028,0010"), ("Columns", "0028,0011")):
        value = number(dataset, keyword)
        if value is None or not 1 <= value <= _LARGEST_SIDE:
            return f"{keyword} ({tag}) is absent or zero: the image has no size."
    if pixels.is_cut_off:
        if not pixels.whole:
            return (
                "The file is cut off within its compressed Pixel Data (7FE0,0010). Send it again."
            )
        return (
            f"The file is cut off: Pixel Data (7FE0,0010) should have {pixels.length} bytes, "
            f"{pixels.available} are there. Send it again."
        )
    frames = number(dataset, "NumberOfFrames")
    if frames is not None and frames > 1:
        return (
            f"This object is a multi-frame image of {frames:.0f} frames, which this version does "
            "not interpret yet."
        )
    return None


def _volume_source(stack: Stack) -> Source:
    first = stack.headers[0].dataset
    modality, notes = _modality(first, VOLUME_CLASSES[str(first.SOPClassUID)])
    calibration = stack.geometry.spacing if stack.geometry else None
    if not stack.is_placed:
        calibration, reason = image_calibration(first, modality)
        notes += [reason] if reason else []
    return Source(
        kind="volume" if stack.is_placed else "image",
        modality=modality,
        paths=tuple(h.path for h in stack.headers),
        headers=tuple(h.dataset for h in stack.headers),
        geometry=stack.geometry,
        notes=(*stack.notes, *notes, *_dropped(stack.headers)),
        calibration=calibration,
        pixel_elements=tuple(h.pixels for h in stack.headers if h.pixels),
    )


def _image_source(header: Header) -> Source:
    dataset = header.dataset
    modality, notes = _modality(dataset, IMAGE_CLASSES[str(dataset.SOPClassUID)])
    calibration, reason = image_calibration(dataset, modality)
    return Source(
        kind="image",
        modality=modality,
        paths=(header.path,),
        headers=(dataset,),
        geometry=None,
        notes=(*notes, *([reason] if reason else []), *_dropped([header])),
        calibration=calibration,
        pixel_elements=(header.pixels,) if header.pixels else (),
    )


def _modality(dataset: Dataset, by_class: str) -> tuple[str, list[str]]:
    stated = str(dataset.get("Modality") or "").strip()
    if stated:
        return stated, []
    return by_class, [f"Modality (0008,0060) is absent: {by_class} by its storage class."]


def _dropped(headers: Sequence[Header]) -> list[str]:
    names = dict.fromkeys(name for h in headers for name in h.dropped)
    if not names:
        return []
    return [f"Unreadable values, treated as absent: {', '.join(list(names)[:5])}."]


def _set_aside(headers: Sequence[Header], reason: str) -> SetAside:
    uids = tuple(u for h in headers if (u := str(h.dataset.get("SOPInstanceUID") or "")))
    return SetAside(uids, reason, tuple(h.path for h in headers))


def _order(dataset: Dataset) -> tuple[float, str]:
    return number(dataset, "InstanceNumber") or 0.0, str(dataset.SOPInstanceUID)


def _series_order(dataset: Dataset) -> tuple[str, float, str]:
    return (
        str(dataset.StudyInstanceUID),
        number(dataset, "SeriesNumber") or 0.0,
        str(dataset.SeriesInstanceUID),
    )
