"""The two kinds of error of this room: one that a retry may cure, and one that it cannot."""

from __future__ import annotations


class InferenceError(Exception):
    """Anything that the model's room raises on purpose; the message is fit to be shown."""


class FinalInferenceError(InferenceError):
    """Trying again with the same input cannot help."""


class RetriableInferenceError(InferenceError):
    """Trying again later, or on another device, may help (memory, a lost device)."""


class DeviceLostError(RetriableInferenceError):
    """The accelerator failed; nothing works on it any more in this process."""


class NotCoveredError(FinalInferenceError):
    """The model card does not list the modality or the target: the node must not ask."""


class CheckpointError(FinalInferenceError):
    """A model folder that cannot be loaded; the message names the file and what is wrong."""


class CancelledError(InferenceError):
    """The caller asked to stop; nothing was produced."""
