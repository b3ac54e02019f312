"""What the model is shown: the frames of one series, and how their values become 8 bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inference import intensity
from inference.card import CardModality, CardTarget
from inference.errors import FinalInferenceError
from inference.intensity import IntensityPolicy
from inference.prompts import TargetPrompt

Kind = Literal["volume", "images"]
Spacing = tuple[float, float, float]
"""mm between frames, rows, columns."""

MOST_PIXELS = 100_000_000
"""Of one frame; a larger one is a whole slide, and is not brought down to one input."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Checked images with all that is known of them.

    Attributes
    ----------
    images
        Rescaled values ``(frames, rows, columns)``, or 8-bit RGB ``(frames, rows, columns, 3)``.
    modality
        Of the card.
    kind
        ``volume``: slices of one body in order; ``images``: pictures on their own.
    spacing
        mm between frames, rows, columns; ``None`` where it is unknown.
    axes
        ``(3, 3)``: mm to the patient's left, back and head that a step along frames, rows and
        columns (one row each) moves; ``None`` where it is unknown.
    window
        VOI window of the header in the unit of the values; ``None`` where it has none.
    rendered
        Values that become 0 and 255, where the images were brought to grey levels already and no
        policy applies any more.
    """

    images: NDArray[np.generic]
    modality: CardModality
    kind: Kind
    spacing: Spacing | None = None
    axes: NDArray[np.float64] | None = None
    window: tuple[float, float] | None = None
    rendered: tuple[float, float] | None = None
    _whole: NDArray[np.generic] | None = None
    _limits: dict[IntensityPolicy, tuple[float, float]] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self.images.shape[0])

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def many(self) -> bool:
        """Whether a reader would call it a series, and not an image."""
        return self.kind == "volume" or self.frames > 1

    @property
    def noun(self) -> Literal["series", "image"]:
        """What a sentence calls it."""
        return "series" if self.many else "image"

    def only(self, frame: int) -> Series:
        """Return one frame as an image of its own, in the intensity of the whole series."""
        whole = self.images if self._whole is None else self._whole
        one = self.images[frame : frame + 1]
        return replace(self, images=one, kind="images", _whole=whole)

    def limits(self, policy: IntensityPolicy) -> tuple[float, float]:
        """Values that become 0 and 255 by a policy; worked out once."""
        if self.rendered is not None:
            return self.rendered
        if policy not in self._limits:
            whole = self.images if self._whole is None else self._whole
            self._limits[policy] = intensity.limits(whole, policy, self.window)
        return self._limits[policy]

    def question(self, target: CardTarget) -> str:
        """Return what the model is asked for a target."""
        return TargetPrompt(target.name, self.modality.name).prompt

    def policy(self, target: CardTarget | None = None) -> IntensityPolicy:
        """Return how values become 8 bit: the target's own policy, or the modality's."""
        if target is not None and target.intensity is not None:
            return target.intensity
        return self.modality.intensity


@dataclass(frozen=True, slots=True)
class View:
    """A series under one intensity policy.

    Attributes
    ----------
    low, high
        Values that become 0 and 255.
    """

    series: Series
    policy: IntensityPolicy
    low: float
    high: float

    @classmethod
    def of(cls, series: Series, policy: IntensityPolicy) -> View:
        """Find the limits of a policy in a series."""
        return cls(series, policy, *series.limits(policy))

    def pictures(self, chosen: slice | Sequence[int]) -> NDArray[np.uint8]:
        """Return frames as 8-bit pictures, grey or RGB."""
        part = self.series.images[chosen if isinstance(chosen, slice) else list(chosen)]
        pictures = intensity.to_bytes(part, self.low, self.high)
        if self.policy.grey and pictures.ndim == 4:
            pictures = intensity.luminance(pictures)
        return pictures

    def describe(self) -> str:
        """One line for the record."""
        if self.series.rendered is not None:
            return f"grey levels as handed in: {self.low:g}..{self.high:g}"
        return intensity.describe(self.policy, self.low, self.high, self.series.window)


def blank(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each picture is without any contrast: nothing can be seen there."""
    flat = pictures.reshape(pictures.shape[0], -1)
    result: NDArray[np.bool_] = flat.min(axis=1) == flat.max(axis=1)
    return result


def evenly_spaced(frames: int, count: int) -> tuple[int, ...]:
    """Choose frames at equal distances, in order, the middle one of a single choice.

    Uniform sampling shows a language model more of a volume than its first slices.
    """
    count = min(frames, count)
    return tuple(int((2 * number + 1) * frames / (2 * count)) for number in range(count))


def check_images(images: NDArray[np.generic], modality: CardModality) -> None:
    """Check shape, type and content.

    Raises
    ------
    FinalInferenceError
        Naming what is wrong.
    """
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise FinalInferenceError(
            f"images of shape {images.shape}: (frames, rows, columns) or (..., 3) is needed"
        )
    if 0 in images.shape:
        raise FinalInferenceError(f"images of shape {images.shape} hold no pixel")
    if images.shape[1] * images.shape[2] > MOST_PIXELS:
        raise FinalInferenceError(
            f"frames of {images.shape[1]} x {images.shape[2]} pixels: more than 100 million "
            "cannot be looked at as one picture; send parts of it, or a smaller copy"
        )
    if images.dtype.kind not in "uif":
        raise FinalInferenceError(f"images of type {images.dtype} are not numbers")
    if images.ndim == 4 and modality.intensity.kind != "eight_bit":
        raise FinalInferenceError(
            f"colour images were handed in as {modality.name}, whose values must be rescaled "
            "numbers: a screen capture is no source"
        )
    if images.ndim == 4 and images.dtype != np.uint8:
        raise FinalInferenceError(f"colour images must be 8 bit, not {images.dtype}")
    if images.dtype.kind == "f" and not np.isfinite(images).any():
        raise FinalInferenceError("the images hold no finite number")


def check_geometry(spacing: Spacing | None, axes: NDArray[np.float64] | None) -> None:
    """Check the geometry.

    Raises
    ------
    FinalInferenceError
        Naming what is wrong.
    """
    if spacing is not None and not all(np.isfinite(mm) and mm > 0 for mm in spacing):
        raise FinalInferenceError(
            f"spacing {spacing} mm is not three positive numbers: pass None where it is unknown"
        )
    if axes is not None and (axes.shape != (3, 3) or not np.isfinite(axes).all()):
        raise FinalInferenceError("axes are not (3, 3) finite numbers: pass None where unknown")
