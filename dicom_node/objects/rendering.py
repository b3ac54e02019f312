"""Frames as pictures for people: windowed, with the contours of the findings and a legend."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_node.objects.contours import rings
from dicom_node.objects.pixels import PixelValues
from dicom_node.objects.segments import Segment
from dicom_node.objects.series import Source

Colour = tuple[int, int, int]
Grey = NDArray[np.uint8]

LIGHT: Colour = (236, 239, 243)
DARK: Colour = (17, 20, 24)
SMALLEST_SIDE = 512  # smaller images are enlarged, so that contour and legend can be read
LARGEST_SIDE = 1024
LARGEST_SAMPLE = 1 << 20
_LINE = 12


def shades(pixels: PixelValues, frame: int, limits: tuple[float, float] | None = None) -> Grey:
    """Return one frame as 8-bit values, (rows, columns) or (rows, columns, 3).

    Parameters
    ----------
    pixels, frame
        What to show.
    limits
        Black and white, from `display_limits`; of many frames they are the same, so found once.
        PET is dark on white, as it is read.
    """
    values = pixels.values[frame]
    if pixels.unit == "rgb":
        return np.asarray(values, np.uint8)
    low, high = limits or display_limits(pixels)
    grey = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0)
    if pixels.unit == "SUVbw":
        grey = 1.0 - grey
    eight_bits: Grey = (grey * 255.0).astype(np.uint8)
    return eight_bits


def display_limits(pixels: PixelValues) -> tuple[float, float]:
    """Return the values to show as black and white, for all frames of a source.

    The header's window, unless the values fill so little of it that all would be dark.
    """
    if pixels.unit == "rgb":
        return 0.0, 255.0
    flat = pixels.values.reshape(-1)
    # Of a large volume a sample tells as much, and does not copy what lies on the disk.
    sample = flat[:: max(1, flat.size // LARGEST_SAMPLE)]
    if pixels.unit == "SUVbw":
        return 0.0, max(float(np.percentile(sample, 99.8)), 1e-6)
    low, high = (float(x) for x in np.percentile(sample, (0.5, 99.7)))
    stated = pixels.window
    if stated is not None and high - low >= (stated[1] - stated[0]) / 3:
        return stated
    return low, high


def shown_size(source: Source) -> tuple[int, int]:
    """Return width and height so that a millimetre is as wide as it is high.

    Not smaller than `SMALLEST_SIDE` and not larger than `LARGEST_SIDE` at the longer side.
    """
    _, rows, columns = source.shape
    tall, wide = source.calibration or (1.0, 1.0)
    height, width = rows * tall / min(tall, wide), columns * wide / min(tall, wide)
    longer = max(height, width)
    scale = min(max(longer, SMALLEST_SIDE), LARGEST_SIDE) / longer
    return max(1, round(width * scale)), max(1, round(height * scale))


def draw_frame(
    source: Source,
    pixels: PixelValues,
    segments: Sequence[Segment],
    frame: int,
    *,
    heading: str,
    footer: str,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Draw a frame with the contours of all segments that lie on it.

    Parameters
    ----------
    source, pixels
        What was looked at.
    segments
        Those on other frames are left out of picture and legend.
    frame
        Index of the frame.
    heading, footer
        One line each above and below the legend, without patient data.
    limits
        See `shades`.
    """
    size = shown_size(source)
    image = Image.fromarray(shades(pixels, frame, limits)).convert("RGB")
    image = image.resize(size, Image.Resampling.BICUBIC)
    shown = [segment for segment in segments if segment.mask[frame].any()]
    for segment in shown:
        _draw_contours(image, segment, frame, source.shape[1:])
    return _with_legend(image, shown, heading, footer)


def _draw_contours(image: Image.Image, segment: Segment, frame: int, grid: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(image)
    scale = np.array([image.width / grid[1], image.height / grid[0]])
    width = max(2, round(max(image.size) / 320))
    for ring in rings(segment.mask[frame]):
        points = [(float(x), float(y)) for x, y in np.concatenate([ring, ring[:1]]) * scale]
        # A dark seam keeps the line visible on any grey.
        draw.line(points, DARK, width + 2, joint="curve")
        draw.line(points, segment.term.colour, width, joint="curve")


def _with_legend(
    image: Image.Image, segments: Sequence[Segment], heading: str, footer: str
) -> Image.Image:
    """Add a strip below the image: nothing of the anatomy is covered."""
    letters = font(max(13, round(image.width / 40)))
    line = round(letters.size * 1.5)
    lines = [heading, *(_entry(segment) for segment in segments), footer]
    strip = line * len(lines) + line // 2
    page = Image.new("RGB", (image.width, image.height + strip), DARK)
    page.paste(image, (0, 0))
    draw = ImageDraw.Draw(page)
    for number, text in enumerate(lines):
        top = image.height + line // 4 + number * line
        left = _LINE
        if 0 < number < len(lines) - 1:
            colour = segments[number - 1].term.colour
            draw.rectangle((left, top + 4, left + letters.size, top + 4 + letters.size), colour)
            left += round(letters.size * 1.6)
        draw.text((left, top), fitted(text, image.width - left - _LINE, letters), LIGHT, letters)
    return page


def _entry(segment: Segment) -> str:
    presence = segment.finding.presence
    return f"F{segment.index + 1} {segment.finding.target} ({presence})"


def fitted(text: str, width: int, letters: ImageFont.FreeTypeFont) -> str:
    """Return as much of a text as fits, ending in an ellipsis."""
    while letters.getlength(text) > width and len(text) > 4:
        text = text[:-2].rstrip() + "…"
    return text


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans where the system has it (most scripts of Europe), else Pillow's own font.

    Raises
    ------
    RuntimeError
        Pillow was built without FreeType.
    """
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        default = ImageFont.load_default(size)
    if not isinstance(default, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType, so it cannot write text")
    return default
