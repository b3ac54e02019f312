"""Small pictures with masks for lists, drawn on the node."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dashboard.frames import FrameRead
from dicom_node.objects.segmentation_reading import Colour

__all__ = ["Overlay", "Page", "Picture", "draw_picture"]

_FILL: Final = 0.35
_SOFT_TISSUE: Final = (-160.0, 240.0)

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Overlay:
    """A mask on the frame's grid, and its colour."""

    mask: NDArray[np.bool_]
    colour: Colour


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG."""

    body: bytes

    @property
    def size(self) -> int:
        """Bytes, for the cache."""
        return len(self.body)


@dataclass(frozen=True, slots=True)
class Page:
    """A PDF."""

    body: bytes

    @property
    def size(self) -> int:
        """Bytes, for the cache."""
        return len(self.body)


def draw_picture(frame: FrameRead, overlays: Sequence[Overlay], side: int) -> Picture:
    """Draw a frame with masks on it.

    Parameters
    ----------
    frame, overlays
        What is drawn.
    side
        Pixels of the longer side; a millimetre is as wide as it is high.
    """
    image = Image.fromarray(_shades(frame)).convert("RGB")
    size = _size(frame, side)
    image = image.resize(size, Image.Resampling.LANCZOS)
    for overlay in overlays:
        image = _overlaid(image, overlay)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=6)
    return Picture(file.getvalue())


def _size(frame: FrameRead, side: int) -> tuple[int, int]:
    rows, columns = frame.values.shape[:2]
    tall, wide = frame.spacing or (1.0, 1.0)
    height, width = rows * tall, columns * wide
    scale = side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shades(frame: FrameRead) -> Rgb:
    """Return 8-bit values in the window that the viewer begins with (`windowing.js`)."""
    values = frame.values
    if frame.unit == "rgb":
        return np.asarray(values, np.uint8)
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    stated = frame.window
    if frame.unit == "SUVbw":
        low, high = 0.0, max(high, 1.0)
    elif stated is not None and high - low >= (stated[1] - stated[0]) / 3:
        low, high = stated
    elif frame.unit == "HU":
        low, high = _SOFT_TISSUE
    shades = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0)
    if frame.unit == "SUVbw":
        shades = 1.0 - shades
    return np.asarray(np.rint(shades * 255.0), np.uint8)


def _overlaid(image: Image.Image, overlay: Overlay) -> Image.Image:
    whole = Image.fromarray(overlay.mask.astype(np.uint8) * 255)
    inside = whole.resize(image.size, Image.Resampling.BICUBIC).point(
        lambda value: 255 if value >= 96 else 0
    )
    inner = inside.filter(ImageFilter.MinFilter(3))
    weight = np.where(
        np.asarray(inside) > np.asarray(inner), 255.0, np.asarray(inside, np.float32) * _FILL
    )
    flat = Image.new("RGB", image.size, overlay.colour)
    return Image.composite(flat, image, Image.fromarray(weight.astype(np.uint8)))
