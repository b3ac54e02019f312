"""The findings that have a mask, numbered as the segments of a SEG."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dicom_node.errors import FinalError
from dicom_node.objects.colours import told_apart
from dicom_node.objects.terminology import Codes, Term, describe
from inference.findings import Finding, Interpretation, Mask


class SegmentationError(FinalError):
    """The masks and the source do not go together: no SEG can be built of them."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A finding with a mask, and its number in the SEG.

    Attributes
    ----------
    number
        Segment Number, from 1 without gaps.
    index
        Index of the finding in the interpretation, from 0.
    term
        The target's; its colour is that of the segment, which no other one of the object has.
    """

    number: int
    index: int
    finding: Finding
    term: Term

    @property
    def mask(self) -> Mask:
        """The mask, shape (frames, rows, columns)."""
        if self.finding.mask is None:
            raise SegmentationError(f"finding {self.index} has no mask")
        return self.finding.mask


def segments_of(interpretation: Interpretation, codes: Codes = Codes.ALL) -> tuple[Segment, ...]:
    """Return the findings that have a mask as segments 1..k, in their order."""
    with_mask = [
        (index, finding)
        for index, finding in enumerate(interpretation.findings)
        if finding.mask is not None
    ]
    terms = [describe(finding.target, codes) for _, finding in with_mask]
    colours = told_apart([term.colour for term in terms])
    return tuple(
        Segment(number, index, finding, replace(term, colour=colour))
        for number, ((index, finding), term, colour) in enumerate(
            zip(with_mask, terms, colours, strict=True), start=1
        )
    )
