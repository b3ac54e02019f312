"""From a study's files to its sources: the volumes and images that a model can look at.

Every file that is handed in comes out again: as part of a `Source`, or `SetAside` with a sentence
that a PACS administrator understands.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydicom import Dataset

from dicom_node.objects.calibration import Spacing, image_calibration, number
from dicom_node.objects.geometry import Geometry
from dicom_node.objects.headers import Header, PixelElement, UnreadableError, read_header
from dicom_node.objects.multi_frame import (
    cine_frames,
    enhanced_stacks,
    number_of_frames,
    why_too_few_bytes,
)
from dicom_node.objects.nuclear_medicine import is_reconstruction
from dicom_node.objects.slides import Level, Tile, choose_level, slide_spacing
from dicom_node.objects.stacks import Stack, build_stacks
from dicom_node.objects.storage_classes import (
    ENHANCED_CLASSES,
    SLIDE_CLASSES,
    VOLUME_CLASSES,
    is_multi_frame_class,
    modality_of_class,
    why_not_read,
)

_LARGEST_SIDE: Final = 65535
_UID: Final = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, eq=False)
class Source:
    """What is looked at as one: a volume, an image, the frames of a cine, the tiles of a slide.

    It consists either of single-frame instances or of frames of one multi-frame instance.

    Attributes
    ----------
    kind
        ``"volume"`` for slices that have a place in the patient (also when there is only one),
        ``"image"`` for frames that stand alone: one image, a cine, the tiles of a slide.
    modality
        Modality (0008,0060); where it is absent, that of the storage class.
    paths, headers
        One per instance: the files, and their attributes without pixel data. Single-frame slices
        are sorted along the normal.
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
    frame_numbers
        Of a multi-frame instance: the frames, from 1, in the order of the source. Empty for
        single-frame instances.
    frame_headers
        What the functional groups of an enhanced image say of each of those frames, under the
        keywords of single-frame images; empty for all others.
    tiles
        Of a slide: where each frame lies on it.
    """

    kind: Literal["volume", "image"]
    modality: str
    paths: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    geometry: Geometry | None
    notes: tuple[str, ...] = ()
    calibration: Spacing | None = None
    pixel_elements: tuple[PixelElement, ...] = ()
    frame_numbers: tuple[int, ...] = ()
    frame_headers: tuple[Dataset, ...] = ()
    tiles: tuple[Tile, ...] = ()

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
        """SOP Instance UID (0008,0018) of each instance."""
        return tuple(str(h.SOPInstanceUID) for h in self.headers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        frames = len(self.frame_numbers) or len(self.headers)
        return frames, int(self.headers[0].Rows), int(self.headers[0].Columns)

    def frame_header(self, frame: int) -> Dataset:
        """Return the attributes that hold for one frame, by its index in the source."""
        if self.frame_headers:
            return self.frame_headers[frame]
        return self.headers[0 if self.frame_numbers else frame]


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
        Sources by study, series number and phase. Every path is in one of the two; that of a
        multi-frame image may be in several sources, its stacks and phases.

    Raises
    ------
    RetriableError
        The operating system could not read a file.
    """
    aside: list[SetAside] = []
    series: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
    sources: list[Source] = []
    seen: set[str] = set()
    for path in paths:
        header = _read(Path(path), aside)
        if header is None or (reason := _why_aside(header, seen)) is not None:
            if header is not None:
                aside.append(_set_aside([header], reason or ""))
            continue
        dataset = header.dataset
        seen.add(str(dataset.SOPInstanceUID))
        sop_class = str(dataset.SOPClassUID)
        if sop_class in VOLUME_CLASSES or sop_class in SLIDE_CLASSES:
            key = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPClassUID)
            series[key].append(header)
        elif sop_class in ENHANCED_CLASSES or is_reconstruction(dataset):
            sources.extend(_enhanced_sources(header, aside))
        else:
            sources.append(_image_source(header))
    for headers in series.values():
        headers.sort(key=lambda h: _order(h.dataset))
        if str(headers[0].dataset.SOPClassUID) in SLIDE_CLASSES:
            level, others = choose_level(headers)
            sources.extend([_slide_source(level)] if level else [])
            aside.extend(_set_aside([other], reason) for other, reason in others)
            continue
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
    if number_of_frames(dataset) > 1 and not is_multi_frame_class(str(dataset.SOPClassUID)):
        return (
            f"This object has {number_of_frames(dataset)} frames (Number of Frames (0028,0008)), "
            f"but its class {dataset.SOPClassUID.name} has one: a result could not refer to them."
        )
    return why_too_few_bytes(header)


def _volume_source(stack: Stack, instance: Header | None = None) -> Source:
    """Return the source of a stack: of its files, or of the frames of one enhanced instance."""
    first = stack.headers[0].dataset
    modality, notes = _modality(first)
    calibration = stack.geometry.spacing if stack.geometry else None
    if not stack.is_placed:
        calibration, reason = image_calibration(first, modality)
        notes += [reason] if reason else []
    files = stack.headers if instance is None else (instance,)
    frames = [h for h in stack.headers if h.frame is not None]
    return Source(
        kind="volume" if stack.is_placed else "image",
        modality=modality,
        paths=tuple(h.path for h in files),
        headers=tuple(h.dataset for h in files),
        geometry=stack.geometry,
        notes=(*stack.notes, *notes, *_concatenated(files[0].dataset), *_dropped(files)),
        calibration=calibration,
        pixel_elements=tuple(h.pixels for h in files if h.pixels),
        frame_numbers=tuple(h.frame + 1 for h in frames if h.frame is not None),
        frame_headers=tuple(h.dataset for h in frames),
    )


def _enhanced_sources(header: Header, aside: list[SetAside]) -> list[Source]:
    """Return the volumes of an enhanced image, or its frames one by one where they have no place.

    Frames that fit into none of its volumes are named in their notes.
    """
    stacks, left = enhanced_stacks(header)
    if not stacks and left:
        aside.append(_set_aside([header], left[0].reason))
        return []
    if not stacks:
        where = "Plane Position Sequence (0020,9113)"
        if is_reconstruction(header.dataset):
            where = (
                "Image Position (Patient) (0020,0032) of Detector Information Sequence "
                "(0054,0022), or Spacing Between Slices (0018,0088),"
            )
        note = f"{where} is absent: its frames are looked at one by one, without a place in the "
        return [_image_source(header, f"{note}patient.")]
    count = number_of_frames(header.dataset)
    notes = [f"{len(part.headers)} of {count} frames left out: {part.reason}" for part in left]
    if header.dataset.get("VolumeFrameOfReferenceUID") and not _is_in_patient(stacks[0]):
        notes.append(
            "It lies in a frame of reference of its own (Ultrasound Acquisition Geometry "
            "(0020,9307)): measured in millimetres, but without a place in the patient."
        )
    return [
        _volume_source(replace(stack, notes=(*stack.notes, *notes)), header) for stack in stacks
    ]


def _is_in_patient(stack: Stack) -> bool:
    return stack.geometry is not None and stack.geometry.frame_of_reference_uid is not None


def _image_source(header: Header, note: str | None = None) -> Source:
    """Return the source of an image that stands alone, or of the frames of a cine."""
    dataset = header.dataset
    modality, notes = _modality(dataset)
    calibration, reason = image_calibration(dataset, modality)
    frame_numbers: tuple[int, ...] = ()
    if is_multi_frame_class(str(dataset.SOPClassUID)):
        frame_numbers, of_frames = cine_frames(dataset)
        notes += of_frames
    reasons = [text for text in (note, reason) if text]
    return Source(
        kind="image",
        modality=modality,
        paths=(header.path,),
        headers=(dataset,),
        geometry=None,
        notes=(*notes, *reasons, *_concatenated(dataset), *_dropped([header])),
        calibration=calibration,
        pixel_elements=(header.pixels,) if header.pixels else (),
        frame_numbers=frame_numbers,
    )


def _slide_source(level: Level) -> Source:
    """Return the source of one level of a slide: its tiles, each an image."""
    header = level.header
    modality, notes = _modality(header.dataset)
    return Source(
        kind="image",
        modality=modality,
        paths=(header.path,),
        headers=(header.dataset,),
        geometry=None,
        notes=(*notes, *level.notes, *_dropped([header])),
        calibration=slide_spacing(header.dataset),
        pixel_elements=(header.pixels,) if header.pixels else (),
        frame_numbers=level.frame_numbers,
        tiles=level.tiles,
    )


def _modality(dataset: Dataset) -> tuple[str, list[str]]:
    stated = str(dataset.get("Modality") or "").strip()
    if stated:
        return stated, []
    by_class = modality_of_class(str(dataset.SOPClassUID)) or "OT"
    return by_class, [f"Modality (0008,0060) is absent: {by_class} by its storage class."]


def _concatenated(dataset: Dataset) -> list[str]:
    """Say of a part of a concatenation (PS3.3 C.7.6.16.2.2.4) that it is looked at by itself."""
    if not dataset.get("ConcatenationUID"):
        return []
    part = int(number(dataset, "InConcatenationNumber") or 0)
    total = int(number(dataset, "InConcatenationTotalNumber") or 0)
    which = f"Part {part or '?'} of {total or '?'}"
    return [
        f"{which} of a concatenation (Concatenation UID (0020,9161)): each part is interpreted and "
        "measured by itself; what lies in two of them is found twice."
    ]


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
