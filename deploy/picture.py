"""A picture of what was found: key slices with the masks drawn on them, as a PNG.

The masks are read back from the DICOM Segmentation, by the images that its frames refer to, so
that the picture shows what a viewer would show and not what the model held in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pydicom.dataset import Dataset

from deploy.job_display import measured
from dicom_node.objects.pixels import PixelValues, read_pixels
from dicom_node.objects.references import frame_references
from dicom_node.objects.rendering import fitted, font, shades
from dicom_node.objects.segmentation_reading import Colour, read_segmentation
from dicom_node.objects.series import Source

__all__ = ["Segment", "draw_findings", "read_segments"]

ImageKey = tuple[str, int]

PANEL = 420  # pixels of the longer side of a panel
GAP = 12
MARGIN = 28
BACKGROUND: Colour = (17, 20, 24)
TEXT: Colour = (236, 239, 243)
FAINT: Colour = (150, 158, 168)
FILL = 0.30
MOST_FINDINGS = 4
STRIP = 5  # a mask on at least so many slices is shown on three of them


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a DICOM Segmentation.

    Attributes
    ----------
    number
        Segment Number.
    label
        Segment Label.
    colour
        Recommended display colour as 8-bit sRGB.
    masks
        Source image -> boolean ``(rows, columns)``; images without the segment are left out. An
        image is its SOP Instance UID and the frame in it, from 1.
    """

    number: int
    label: str
    colour: Colour
    masks: Mapping[ImageKey, NDArray[np.bool_]]


def read_segments(segmentation: Path | Dataset) -> list[Segment]:
    """Read the segments of a BINARY or LABELMAP Segmentation.

    Parameters
    ----------
    segmentation
        The object or its file.

    Returns
    -------
    list of Segment
        In the order of their numbers.
    """
    read = read_segmentation(segmentation)
    found: dict[int, dict[ImageKey, NDArray[np.bool_]]] = {}
    for one in read.masks():
        found.setdefault(one.segment, {})[one.sop_instance_uid, one.frame_number] = one.mask
    return [
        Segment(one.number, one.label, one.colour, found.get(one.number, {}))
        for one in read.segments
    ]


def draw_findings(
    source: Source, segments: Sequence[Segment], report: Mapping[str, Any], path: Path
) -> None:
    """Draw the findings of a job over the slices that show them best.

    Parameters
    ----------
    source
        What the job read.
    segments
        The segments of its SEG; none when nothing was found.
    report
        The job as `db.reports.job_report` tells it.
    path
        The PNG to write.
    """
    pixels = read_pixels(source)
    findings = list(report["findings"])
    shown = [finding for finding in findings if finding["segment_number"] is not None]
    rows = [_row(source, pixels, segments, finding) for finding in shown[:MOST_FINDINGS]]
    if not rows:
        rows = [[_panel(source, pixels, segments, source.shape[0] // 2)]]
    captions = [_caption(finding, segments) for finding in shown[:MOST_FINDINGS]]
    footers = [_absent(finding) for finding in findings if finding["segment_number"] is None]
    if len(shown) > MOST_FINDINGS:
        footers.append(f"and {len(shown) - MOST_FINDINGS} more findings with a mask")
    _compose(rows, captions, footers, _heading(source, report)).save(path)


# ---------------------------------------------------------------------- panels


def _row(
    source: Source,
    pixels: PixelValues,
    segments: Sequence[Segment],
    finding: Mapping[str, Any],
) -> list[Image.Image]:
    """Return the key slice, between two others where the mask reaches far enough."""
    key = int(finding["key_frame"] or 0)
    segment = next(s for s in segments if s.number == finding["segment_number"])
    frames = [index for index, image in enumerate(_images(source)) if image in segment.masks]
    chosen = [key]
    if len(frames) >= STRIP:
        low, high = frames[len(frames) // 6], frames[-1 - len(frames) // 6]
        chosen = sorted({low, key, high})
    return [_panel(source, pixels, segments, frame, key=frame == key) for frame in chosen]


def _panel(
    source: Source,
    pixels: PixelValues,
    segments: Sequence[Segment],
    frame: int,
    *,
    key: bool = False,
) -> Image.Image:
    """Draw one slice with all masks on it, in the shape it has in the patient."""
    size = _panel_size(source)
    grey = shades(pixels, frame)
    image = Image.fromarray(grey).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    shown = _images(source)[frame]
    for segment in segments:
        if shown in segment.masks:
            image = _overlay(image, segment.masks[shown], segment.colour)
    _write_label(
        image, f"slice {frame + 1} of {source.shape[0]}" + ("  ·  key slice" if key else "")
    )
    return image


def _images(source: Source) -> list[ImageKey]:
    """Return what each frame of a source is called in references to it."""
    return [
        (reference.sop_instance_uid, reference.frame_number or 1)
        for reference in frame_references(source)
    ]


def _write_label(image: Image.Image, label: str) -> None:
    """Write into the lower left corner, on a dark strip: slices are black, PET is white."""
    letters, place = font(15), (10, image.height - 8)
    draw = ImageDraw.Draw(image, "RGBA")
    left, top, right, bottom = draw.textbbox(place, label, letters, anchor="lb")
    draw.rectangle((left - 6, top - 4, right + 6, bottom + 4), fill=(17, 20, 25, 190))
    draw.text(place, label, TEXT, letters, anchor="lb")


def _panel_size(source: Source) -> tuple[int, int]:
    """Return width and height so that a millimetre is as wide as it is high."""
    _, rows, columns = source.shape
    tall, wide = source.calibration or (1.0, 1.0)
    height, width = rows * tall, columns * wide
    scale = PANEL / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _overlay(image: Image.Image, mask: NDArray[np.bool_], colour: Colour) -> Image.Image:
    """Fill a mask faintly and draw its outline, smooth at the panel's resolution."""
    big = Image.fromarray(mask.astype(np.uint8) * 255).resize(image.size, Image.Resampling.BICUBIC)
    inside = big.point(lambda value: 255 if value >= 128 else 0)
    outline = np.asarray(inside, np.int16) - np.asarray(
        inside.filter(ImageFilter.MinFilter(5)), np.int16
    )
    soft = Image.fromarray(outline.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.6)
    )
    weight = np.maximum(np.asarray(inside, np.float32) * FILL, np.asarray(soft, np.float32))
    flat = Image.new("RGB", image.size, colour)
    return Image.composite(flat, image, Image.fromarray(weight.astype(np.uint8)))


# ---------------------------------------------------------------------- the page


@dataclass(frozen=True, slots=True)
class _Caption:
    colour: Colour
    sentence: str
    numbers: str


def _caption(finding: Mapping[str, Any], segments: Sequence[Segment]) -> _Caption:
    segment = next(s for s in segments if s.number == finding["segment_number"])
    numbers = measured(finding["measurements"])
    sure = f"{finding['presence']}, probability {finding['confidence']:.2f}"
    return _Caption(segment.colour, finding["text"], f"{numbers}   ({sure})" if numbers else sure)


def _absent(finding: Mapping[str, Any]) -> str:
    return f"{finding['target']}: {finding['presence']} (probability {finding['confidence']:.2f})"


def _heading(source: Source, report: Mapping[str, Any]) -> tuple[str, str]:
    header = source.headers[0]
    description = str(header.get("SeriesDescription", "")).strip()
    model = report.get("model", {})
    frames = source.shape[0]
    noun = "slices" if source.kind == "volume" else "frames"
    size = "image" if source.kind == "image" and frames == 1 else f"{frames} {noun}"
    title = " · ".join(part for part in (source.modality, description, size) if part)
    by = f"{model.get('name', '')} {model.get('version', '')}".strip()
    return title, f"UniBiomed Node · model {by} · research use only, not a medical device"


def _compose(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[_Caption],
    footers: Sequence[str],
    heading: tuple[str, str],
) -> Image.Image:
    """Lay panels, captions and heading out on one page."""
    widths = [sum(p.width for p in row) + GAP * (len(row) - 1) for row in rows]
    inner = max(*widths, 560) if len(widths) > 1 else max(widths[0], 560)
    wrapped = [_wrap(caption.sentence, inner - 26, font(19)) for caption in captions]
    heights = [
        max(panel.height for panel in row)
        + (14 + 26 * len(wrapped[index]) + 26 + 20 if captions else 0)
        for index, row in enumerate(rows)
    ]
    top = MARGIN + 70
    height = top + sum(heights) + (10 + 24 * len(footers) if footers else 0) + MARGIN
    page = Image.new("RGB", (inner + 2 * MARGIN, height), BACKGROUND)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN - 6), fitted(heading[0], inner, font(24)), TEXT, font(24))
    draw.text((MARGIN, MARGIN + 28), heading[1], FAINT, font(14))
    y = top
    for index, row in enumerate(rows):
        x = MARGIN
        for panel in row:
            page.paste(panel, (x, y))
            x += panel.width + GAP
        below = y + max(panel.height for panel in row) + 14
        if captions:
            _write_caption(draw, captions[index], wrapped[index], below)
        y += heights[index]
    for line in footers:
        draw.text((MARGIN, y + 4), line, FAINT, font(16))
        y += 24
    return page


def _write_caption(
    draw: ImageDraw.ImageDraw, caption: _Caption, lines: Sequence[str], y: int
) -> None:
    draw.rounded_rectangle((MARGIN, y + 4, MARGIN + 14, y + 18), 3, fill=caption.colour)
    for line in lines:
        draw.text((MARGIN + 26, y - 2), line, TEXT, font(19))
        y += 26
    draw.text((MARGIN + 26, y), caption.numbers, FAINT, font(16))


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}".strip()
        if font.getlength(candidate) <= width or not lines[-1]:
            lines[-1] = candidate
        else:
            lines.append(word)
    return lines
