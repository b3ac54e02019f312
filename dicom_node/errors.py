"""The two kinds of error of the DICOM side: one that a retry may cure, and one that it cannot."""

from __future__ import annotations


class DicomNodeError(Exception):
    """Base of the errors raised by ``dicom_node``.

    Parameters
    ----------
    sentence : str
        What was wrong, where, and what to do: written for a PACS administrator, without patient
        data.

    Attributes
    ----------
    sentence : str
        The same text.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class RetriableError(DicomNodeError):
    """The same call may succeed later: network, a peer without room, a full disk.

    Attributes
    ----------
    after_seconds : float or None
        When, if the other side said so.
    """

    def __init__(self, sentence: str, after_seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.after_seconds = after_seconds


class FinalError(DicomNodeError):
    """The same call will fail again: a refused object, a class the peer does not take."""


class RejectedError(FinalError):
    """A peer rejected the association and calls that permanent (PS3.8 9.3.4).

    Only its administrator can change that; but a peer that is starting, or whose list of AEs is
    being edited, answers the same. So it is worth a few attempts more.
    """


class NothingTakenError(FinalError):
    """A peer accepted an association, and in it none of the offered presentation contexts."""


class StorageFullError(RetriableError):
    """The archive has no room: the disk is full or under its watermark; later may do."""
