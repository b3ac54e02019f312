"""Errors that end a job in another way than failing."""

from __future__ import annotations

from dicom_node.errors import FinalError


class NotApplicableError(FinalError):
    """The model was not made for this source: nothing went wrong, and there is nothing to do."""
