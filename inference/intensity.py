"""From rescaled values to the model's 8-bit images: one explicit policy per modality.

Training and inference call the same functions, so that the model sees at work what it learned
from. The policy is part of the model card and is recorded, with its numbers, in every result.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Bytes = NDArray[np.uint8]


class IntensityPolicy(BaseModel):
    """How values of one modality become 0..255.

    Attributes
    ----------
    kind
        ``window``: ``lower..upper`` of the given unit, clipped (CT in HU, PET in SUV).
        ``percentile``: from the ``lower`` to the ``upper`` percentile of the finite values of the
        whole series, clipped (MR, whose values have no unit).
        ``eight_bit``: values are already 0..255 and stay; what exceeds that range is scaled by the
        series' minimum and maximum (ultrasound, visible light).
        ``voi``: the window that the image's header asks for (projection X-ray, mammography); where
        there is none, percentiles ``lower`` to ``upper`` as above.
    unit
        What the values are, as a reader would write it.
    grey
        Colour images are reduced to their luminance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["window", "percentile", "eight_bit", "voi"]
    lower: float = 0.0
    upper: float = 255.0
    unit: str = Field(default="", max_length=32)
    grey: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> IntensityPolicy:
        if self.lower >= self.upper:
            raise ValueError(f"lower {self.lower} is not below upper {self.upper}")
        if self.kind in ("percentile", "voi") and not 0 <= self.lower < self.upper <= 100:
            raise ValueError(f"percentiles {self.lower}..{self.upper} are not within 0..100")
        return self


def limits(
    values: NDArray[np.generic],
    policy: IntensityPolicy,
    window: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Values that become 0 and 255, by the policy, over a whole series.

    ``window`` is the VOI window of the header, which only the policy ``voi`` looks at.

    Not-a-number and infinite values are left out of percentiles. A constant series gets limits one
    unit apart, so that it becomes a flat image and nothing is divided by zero.
    """
    if policy.kind == "window":
        return policy.lower, policy.upper
    if policy.kind == "voi" and window is not None and window[0] < window[1]:
        return window
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.reshape(-1)
    if finite.size == 0:
        return 0.0, 1.0
    if policy.kind == "eight_bit":
        low, high = float(finite.min()), float(finite.max())
        if 0.0 <= low and high <= 255.0:
            return 0.0, 255.0
    else:
        low, high = (float(v) for v in np.percentile(finite, (policy.lower, policy.upper)))
    return (low, high) if high > low else (low, low + 1.0)


def to_bytes(values: NDArray[np.generic], low: float, high: float) -> Bytes:
    """Scale ``low..high`` to 0..255 and clip; what is not finite becomes 0."""
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    scaled = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0)
    result: Bytes = np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)
    return result


def luminance(colour: Bytes) -> Bytes:
    """Luminance of ``(..., 3)`` RGB by ITU-R BT.601, as DICOM's YBR_FULL has it."""
    weights = np.array((0.299, 0.587, 0.114), np.float32)
    grey: Bytes = np.rint(colour.astype(np.float32) @ weights).astype(np.uint8)
    return grey


def describe(
    policy: IntensityPolicy,
    low: float,
    high: float,
    window: tuple[float, float] | None = None,
) -> str:
    """One line for the record: which values became black and white."""
    unit = f" {policy.unit}" if policy.unit else ""
    if policy.kind == "window":
        return f"window {low:g}..{high:g}{unit}"
    if policy.kind == "voi" and (low, high) == window:
        return f"window of the image's header: {low:g}..{high:g}{unit}"
    if policy.kind in ("percentile", "voi"):
        return (
            f"percentiles {policy.lower:g}..{policy.upper:g} of the series: {low:g}..{high:g}{unit}"
        )
    return f"values {low:g}..{high:g} as 8 bit" + (", luminance" if policy.grey else "")
