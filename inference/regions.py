"""A marked region of one image: a box or a mask, and the green box that shows it to the model.

UniBiomed was trained with the region drawn on the image: the bounding rectangle of its outline,
pure green, two pixels wide. No token stands for it. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

GREEN: Final = (0, 255, 0)
LINE: Final = 2
"""Width of the box in pixels."""


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels ``top <= row < bottom``, ``left <= column < right``, counted from 0.

    Raises
    ------
    ValueError
        When it holds no pixel or begins before the image.
    """

    top: int
    left: int
    bottom: int
    right: int

    def __post_init__(self) -> None:
        """Refuse a box that holds nothing."""
        if self.top < 0 or self.left < 0:
            raise ValueError(f"the box begins at row {self.top}, column {self.left}: before 0")
        if self.bottom <= self.top or self.right <= self.left:
            raise ValueError(
                f"the box from row {self.top} to {self.bottom}, column {self.left} to "
                f"{self.right} holds no pixel"
            )


@dataclass(frozen=True, slots=True)
class Region:
    """A region of one frame.

    Attributes
    ----------
    box
        Its bounding box.
    frame
        Index of the frame, from 0, in the order of the images.
    mask
        ``(rows, columns)`` boolean, where the region is more than a box.
    """

    box: Box
    frame: int = 0
    mask: NDArray[np.bool_] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuse a frame before the first."""
        if self.frame < 0:
            raise ValueError(f"frame {self.frame} of the region is before the first (0)")

    @classmethod
    def of_box(cls, top: int, left: int, bottom: int, right: int, frame: int = 0) -> Region:
        """Make a region of a box; see `Box`."""
        return cls(Box(top, left, bottom, right), frame)

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_], frame: int = 0) -> Region:
        """Make a region of a mask ``(rows, columns)``.

        Raises
        ------
        ValueError
            When it has another number of axes, or is empty.
        """
        if mask.ndim != 2 or not mask.any():
            raise ValueError("the region's mask must be (rows, columns) and hold a pixel")
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        return cls(box, frame, mask.astype(np.bool_))

    def on(self, frames: int, rows: int, columns: int) -> NDArray[np.bool_]:
        """Return the region's pixels ``(rows, columns)`` on images of this size.

        Raises
        ------
        ValueError
            When the region does not lie on them.
        """
        if self.frame >= frames:
            raise ValueError(f"the region is on frame {self.frame}, the last one is {frames - 1}")
        if self.mask is not None:
            if self.mask.shape != (rows, columns):
                raise ValueError(
                    f"the region's mask is {self.mask.shape}, the images are ({rows}, {columns})"
                )
            return self.mask
        if self.box.bottom > rows or self.box.right > columns:
            raise ValueError(
                f"the region ends at row {self.box.bottom}, column {self.box.right}; the images "
                f"have {rows} rows and {columns} columns"
            )
        pixels = np.zeros((rows, columns), np.bool_)
        pixels[self.box.top : self.box.bottom, self.box.left : self.box.right] = True
        return pixels

    def to_json(self) -> dict[str, Any]:
        """Plain data; raises ValueError for a region that is a mask."""
        if self.mask is not None:
            raise ValueError("a region that is a mask is not written down; give its box")
        box = self.box
        return {"frame": self.frame, "box": [box.top, box.left, box.bottom, box.right]}

    @classmethod
    def from_json(cls, data: Any) -> Region:
        """Read what `to_json` wrote; raises ValueError where it is something else."""
        if not isinstance(data, Mapping) or not set(data) <= {"frame", "box"}:
            raise ValueError("a region is written as {frame: number, box: [top, left, ...]}")
        box, frame = data.get("box"), data.get("frame", 0)
        if not isinstance(box, list | tuple) or len(box) != 4:
            raise ValueError("a region's box is [top, left, bottom, right]")
        if any(type(number) is not int for number in (*box, frame)):
            raise ValueError("a region's box and frame are whole numbers")
        return cls(Box(*box), frame)


def marked(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Draw the green box on one picture.

    Parameters
    ----------
    picture
        ``(rows, columns)`` grey or ``(rows, columns, 3)`` RGB, 8 bit; it is left as it is.

    Returns
    -------
    ndarray
        ``(rows, columns, 3)`` RGB.
    """
    drawn = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture.copy()
    inside = (slice(box.top, box.bottom), slice(box.left, box.right))
    line = np.zeros(drawn.shape[:2], np.bool_)
    line[inside] = True
    line[box.top + LINE : box.bottom - LINE, box.left + LINE : box.right - LINE] = False
    drawn[line] = GREEN
    return drawn
