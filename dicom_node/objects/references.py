"""How result objects point at the images that they speak of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from dicom_node.objects.series import Source
from dicom_node.objects.storage_classes import is_multi_frame_class


def is_multi_frame(header: Dataset) -> bool:
    """Whether references to an image name the frame: its class decides, not one attribute."""
    return is_multi_frame_class(str(header.SOPClassUID))


@dataclass(frozen=True, slots=True)
class FrameReference:
    """One frame of a source.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid
        The instance that holds the frame.
    frame_number
        From 1; ``None`` for a class that has single frames (PS3.3 table 10-3: the attribute is only
        for multi-frame images).
    image_number
        What viewers call the image: Instance Number, or the frame number within an instance.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    image_number: int

    @property
    def frame_numbers(self) -> list[int] | None:
        """The frame number as the macro takes it."""
        return None if self.frame_number is None else [self.frame_number]

    def item(self) -> Dataset:
        """Return the Image SOP Instance Reference macro (PS3.3 10.3)."""
        item = Dataset()
        item.ReferencedSOPClassUID = self.sop_class_uid
        item.ReferencedSOPInstanceUID = self.sop_instance_uid
        if self.frame_number is not None:
            item.ReferencedFrameNumber = self.frame_number
        return item


def frame_references(source: Source) -> tuple[FrameReference, ...]:
    """Return a reference for each frame of a source, in the order of its masks."""
    if source.frame_numbers:
        header = source.headers[0]
        return tuple(
            FrameReference(str(header.SOPClassUID), str(header.SOPInstanceUID), number, number)
            for number in source.frame_numbers
        )
    numbers = _image_numbers(source.headers)
    return tuple(
        FrameReference(str(header.SOPClassUID), str(header.SOPInstanceUID), None, number)
        for header, number in zip(source.headers, numbers, strict=True)
    )


def _image_numbers(headers: Sequence[Dataset]) -> list[int]:
    """Return the Instance Numbers, or positions from 1 where they are absent or not unique."""
    numbers: list[int] = []
    for header in headers:
        value = header.get("InstanceNumber")
        numbers.append(int(value) if value not in (None, "") else 0)
    if 0 in numbers or len(set(numbers)) < len(numbers):
        return list(range(1, len(headers) + 1))
    return numbers


def referenced_series(source: Source) -> DicomSequence:
    """Return Referenced Series Sequence with every instance of the source (PS3.3 C.12.2).

    OHIF drops a SEG that lacks it.
    """
    series = Dataset()
    series.SeriesInstanceUID = source.headers[0].SeriesInstanceUID
    instances = []
    for header in source.headers:
        item = Dataset()
        item.ReferencedSOPClassUID = header.SOPClassUID
        item.ReferencedSOPInstanceUID = header.SOPInstanceUID
        instances.append(item)
    series.ReferencedInstanceSequence = DicomSequence(instances)
    return DicomSequence([series])
