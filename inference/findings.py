"""What the model found: the contract between ``inference`` and the DICOM side.

Frozen dataclasses over numpy arrays; this file imports neither torch nor pydicom, so that the
rooms that write DICOM objects can be loaded without the model.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

HALF = 128
"""The least value of a probability in 0 to 255 that belongs to the mask."""


class Presence(enum.StrEnum):
    """Whether the model holds that a target is in the image."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was asked for, and the answer.

    Attributes
    ----------
    target
        The target's name as the model card lists it, e.g. ``"hippocampus"``.
    text
        The sentence that states the finding, one sentence, English.
    phrase
        The part of the sentence that the mask speaks of.
    prompt
        The exact text that the model was given.
    presence
        Present, absent or uncertain.
    confidence
        Calibrated probability that the target is present, 0..1.
    mask
        Boolean array on the grid of the source: ``(frames, rows, columns)`` in the order of the
        images handed in. ``None`` where the target is absent or the task gives no mask.
    key_frame
        Index along the first axis of the frame that shows the finding best; ``None`` without a
        mask.
    predicted_iou
        The mask decoder's own estimate of its overlap, 0..1, at the key frame; ``None`` where
        there is no mask.
    task
        Which kind of question it answers, a value of `inference.tasks.TaskKind`.
    probabilities
        Where they were asked for: the probability of each pixel on the grid of the mask, uint8,
        0 to 255 for 0 to 1. The mask is just where they are 128 or more.

    Raises
    ------
    ValueError
        When presence, mask and key frame contradict each other.
    """

    target: str
    text: str
    phrase: str
    prompt: str
    presence: Presence
    confidence: float
    mask: Mask | None = field(default=None, compare=False)
    key_frame: int | None = None
    predicted_iou: float | None = None
    task: str = "segmentation"
    probabilities: NDArray[np.uint8] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuse a finding that contradicts itself."""
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence of {self.target!r} is {self.confidence}, not in 0..1")
        if self.mask is None:
            if self.key_frame is not None or self.probabilities is not None:
                raise ValueError(f"{self.target!r} has a key frame or probabilities but no mask")
            return
        if self.presence is Presence.ABSENT:
            raise ValueError(f"{self.target!r} is absent but has a mask")
        if self.mask.ndim != 3 or self.mask.dtype != np.bool_:
            raise ValueError(
                f"mask of {self.target!r} must be boolean (frames, rows, columns), "
                f"not {self.mask.dtype} {self.mask.shape}"
            )
        if not self.mask.any():
            raise ValueError(f"mask of {self.target!r} is empty: such a target is absent")
        if self.probabilities is not None and not np.array_equal(
            self.probabilities >= HALF, self.mask
        ):
            raise ValueError(f"probabilities of {self.target!r} do not fit its mask")
        if self.key_frame is None or not 0 <= self.key_frame < self.mask.shape[0]:
            raise ValueError(f"key frame of {self.target!r} is outside its mask")


@dataclass(frozen=True, slots=True)
class Interpretation:
    """All that the model says of one series.

    Attributes
    ----------
    findings
        One entry for each target or sentence, in the order asked.
    model_name, model_version, model_digest
        From the card; the digest is the SHA-256 of the weights, hexadecimal.
    intensity
        How stored values became the model's input, in words and numbers
        (recorded with the result).
    frames
        Number of frames that were looked at.
    """

    findings: tuple[Finding, ...]
    model_name: str
    model_version: str
    model_digest: str
    intensity: str
    frames: int
