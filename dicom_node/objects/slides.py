"""Whole slides: one level of the pyramid, tile by tile (PS3.3 C.8.12.4, C.8.12.14, C.7.6.17.3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom import Dataset

from dicom_node.objects.calibration import number, numbers
from dicom_node.objects.geometry import unit_orientation
from dicom_node.objects.headers import Header
from dicom_node.objects.multi_frame import number_of_frames

MOST_SLIDE_PIXELS: Final = 1 << 26
"""Pixels of the level that is looked at, about 8000 x 8000: the finest level within it is taken."""

_LARGEST_MATRIX: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Tile:
    """One frame of a level.

    Attributes
    ----------
    row, column
        Place of its first pixel in the total pixel matrix, from 1.
    x, y, z
        Offset of that pixel in the slide coordinate system: mm, mm, and micrometres for ``z``.
    """

    row: int
    column: int
    x: float
    y: float
    z: float


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide and the tiles of its first focal plane and optical path."""

    header: Header
    frame_numbers: tuple[int, ...]
    tiles: tuple[Tile, ...]
    notes: tuple[str, ...]


class SlideError(Exception):
    """A slide's tiles cannot be placed; the text is a sentence that names the attribute."""


def choose_level(headers: Sequence[Header]) -> tuple[Level | None, list[tuple[Header, str]]]:
    """Choose one level among the images of a slide.

    Parameters
    ----------
    headers
        All whole-slide images of one series.

    Returns
    -------
    level, others
        The finest level of at most `MOST_SLIDE_PIXELS`, None where there is none; and the other
        images with the sentence that says why each is not looked at.
    """
    others: list[tuple[Header, str]] = []
    levels: list[tuple[int, Header]] = []
    for header in headers:
        why = _why_no_level(header.dataset)
        if why:
            others.append((header, why))
        else:
            levels.append((_matrix_pixels(header.dataset), header))
    levels.sort(key=lambda entry: entry[0], reverse=True)
    chosen: Level | None = None
    for pixels, header in levels:
        if chosen is not None:
            others.append((header, "A coarser level of a slide whose finer level is looked at."))
        elif pixels > MOST_SLIDE_PIXELS:
            others.append(
                (
                    header,
                    f"This level of the slide has {pixels / 1e6:.0f} million pixels (Total Pixel "
                    f"Matrix Columns x Rows (0048,0006), (0048,0007)); at most "
                    f"{MOST_SLIDE_PIXELS / 1e6:.0f} million are looked at: send a coarser level.",
                )
            )
        else:
            try:
                chosen = _level(header)
            except SlideError as error:
                others.append((header, str(error)))
    return chosen, others


def _why_no_level(dataset: Dataset) -> str:
    types = [str(value).upper() for value in dataset.get("ImageType") or ()]
    for flavour in ("LABEL", "OVERVIEW", "THUMBNAIL"):
        if flavour in types:
            return f"A picture of the whole slide, not of its tissue (Image Type says {flavour})."
    for keyword, tag in (
        ("TotalPixelMatrixRows", "0048,0007"),
        ("TotalPixelMatrixColumns", "0048,0006"),
    ):
        value = number(dataset, keyword)
        if value is None or not 1 <= value <= _LARGEST_MATRIX:
            return f"{keyword} ({tag}) is absent or cannot be: its tiles have no place."
    return ""


def _matrix_pixels(dataset: Dataset) -> int:
    return int(dataset.TotalPixelMatrixRows) * int(dataset.TotalPixelMatrixColumns)


def _level(header: Header) -> Level:
    dataset = header.dataset
    frames = number_of_frames(dataset)
    if dataset.get("PerFrameFunctionalGroupsSequence"):
        numbers_, tiles = _stated_tiles(dataset, frames)
    else:
        numbers_, tiles = _regular_tiles(dataset, frames)
    notes = []
    if len(tiles) < frames:
        notes.append(
            f"{len(tiles)} of {frames} tiles are looked at: the first focal plane and optical path."
        )
    return Level(header, numbers_, tiles, tuple(notes))


def slide_orientation(dataset: Dataset) -> tuple[float, ...]:
    """Return Image Orientation (Slide) (0048,0102); raises SlideError where it is absurd."""
    orientation = unit_orientation(numbers(dataset, "ImageOrientationSlide"))
    if orientation is None:
        raise SlideError(
            "Image Orientation (Slide) (0048,0102) is absent or cannot be: its tiles have no place."
        )
    return orientation


def slide_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Return mm per pixel (rows, columns) from the shared functional groups, or None."""
    for groups in dataset.get("SharedFunctionalGroupsSequence") or ():
        for item in groups.get("PixelMeasuresSequence") or ():
            values = numbers(item, "PixelSpacing")
            if len(values) == 2 and all(0.0 < value < 1.0 for value in values):
                return values[0], values[1]
    return None


def _regular_tiles(dataset: Dataset, frames: int) -> tuple[tuple[int, ...], tuple[Tile, ...]]:
    """Return the tiles of TILED_FULL: along rows, then down, then by focal plane and path."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    down = -(-int(dataset.TotalPixelMatrixRows) // rows)
    along = -(-int(dataset.TotalPixelMatrixColumns) // columns)
    if frames < down * along:
        raise SlideError(
            f"Number of Frames (0028,0008) is {frames}, but {down} x {along} tiles cover the slide "
            "and Per-Frame Functional Groups Sequence (5200,9230) does not say which are there."
        )
    origin = next(iter(dataset.get("TotalPixelMatrixOriginSequence") or ()), Dataset())
    start = np.array(
        [
            number(origin, "XOffsetInSlideCoordinateSystem") or 0.0,
            number(origin, "YOffsetInSlideCoordinateSystem") or 0.0,
            number(origin, "ZOffsetInSlideCoordinateSystem") or 0.0,
        ]
    )
    orientation = np.array(slide_orientation(dataset))
    spacing = slide_spacing(dataset) or (0.0, 0.0)
    tiles = []
    for row in range(down):
        for column in range(along):
            x, y, z = (
                start
                + orientation[:3] * column * columns * spacing[1]
                + orientation[3:] * row * rows * spacing[0]
            ).tolist()
            tiles.append(Tile(row * rows + 1, column * columns + 1, x, y, z))
    return tuple(range(1, len(tiles) + 1)), tuple(tiles)


def _stated_tiles(dataset: Dataset, frames: int) -> tuple[tuple[int, ...], tuple[Tile, ...]]:
    """Return the tiles as the frames state them; of each place the first alone."""
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    if len(groups) != frames:
        raise SlideError(
            f"Number of Frames (0028,0008) is {frames}, but Per-Frame Functional Groups Sequence "
            f"(5200,9230) describes {len(groups)}."
        )
    slide_orientation(dataset)
    planes: dict[float, list[tuple[int, Tile]]] = defaultdict(list)
    seen: set[tuple[int, int, float]] = set()
    for frame, group in enumerate(groups, start=1):
        item = next(iter(group.get("PlanePositionSlideSequence") or ()), None)
        values = [
            None if item is None else number(item, keyword)
            for keyword in (
                "RowPositionInTotalImagePixelMatrix",
                "ColumnPositionInTotalImagePixelMatrix",
                "XOffsetInSlideCoordinateSystem",
                "YOffsetInSlideCoordinateSystem",
                "ZOffsetInSlideCoordinateSystem",
            )
        ]
        row, column, x, y, z = values
        if row is None or column is None or x is None or y is None:
            raise SlideError(
                f"Plane Position (Slide) Sequence (0048,021A) of frame {frame} is absent or "
                "incomplete: the tile has no place."
            )
        tile = Tile(int(row), int(column), x, y, z or 0.0)
        key = (tile.row, tile.column, tile.z)
        if key not in seen:
            seen.add(key)
            planes[tile.z].append((frame, tile))
    first = next(iter(planes.values()))
    return tuple(frame for frame, _ in first), tuple(tile for _, tile in first)
