"""The images and masks that pages show: read from the archive, kept in memory for a while."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from fastapi import Request

from dashboard.byte_cache import ByteCache
from dashboard.frames import FrameRead, FrameUnavailableError, PackedFrame, pack
from dashboard.masks import PackedMasks, pack_masks, without_masks
from dashboard.pictures import Overlay, Page, Picture, draw_picture
from dashboard.stacks import Stack, source_of, sources_of_series, stack_of_job, stack_of_source
from db.models import ResultRecord
from db.questions import AskedQuestion
from db.results import findings_of, results_of
from db.reviews import edited_findings
from dicom_node.errors import DicomNodeError
from dicom_node.objects.segmentation_reading import FrameMask, read_segmentation
from workflows.node import Node
from workflows.questions import question_folder, segments_of_answer
from workflows.report_page import report_page_of_job
from workflows.stored_interpretation import StoredInterpretationError
from workflows.stored_interpretation import read as read_interpretation

__all__ = ["Images", "images_of", "segmentation_of"]

_FRAME_BYTES: Final = 256 << 20
_MASK_BYTES: Final = 96 << 20
_PICTURE_BYTES: Final = 32 << 20
_PAGE_BYTES: Final = 0  # drawn once for all who ask at the same time, and not kept
_STACK_BYTES: Final = 16 << 20


class Images:
    """What the pages show of one node's archive.

    Parameters
    ----------
    node
        The node.

    Notes
    -----
    Memory is bounded whatever is looked at: 400 MB in all. Errors are sentences for the reader:
    `FrameUnavailableError`, `PixelError`, `RetriableError`.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._frames = ByteCache[PackedFrame](_FRAME_BYTES)
        self._masks = ByteCache[PackedMasks](_MASK_BYTES)
        self._pictures = ByteCache[Picture](_PICTURE_BYTES)
        self._pages = ByteCache[Page](_PAGE_BYTES)
        self._stacks = ByteCache[Stack](_STACK_BYTES)

    def stack_of_job(self, job_id: int) -> Stack:
        """Return the frames that a job reads; none before its study is complete."""

        def make() -> Stack:
            stack = stack_of_job(self._node, job_id)
            if stack is None:
                raise FrameUnavailableError(f"there is no job {job_id} (any more)")
            return stack

        key = ("job", job_id)
        stack = self._stacks.get(key, make)
        if not stack.places:
            # Not complete yet: the next look should see what came meanwhile.
            self._stacks.forget(key)
        return stack

    def stack_of_series(self, series_id: int, number: int) -> Stack:
        """Return the frames of one part of a series in the archive."""

        def make() -> Stack:
            _, sources, instances = sources_of_series(self._node, series_id)
            name = f"series-{series_id}" + (f"-part-{number + 1}" if number else "")
            return stack_of_source(name, source_of(sources, number), instances)

        return self._stacks.get(("series", series_id, number), make)

    def frame(self, stack: Stack, index: int) -> PackedFrame:
        """Return a frame as it goes to the browser.

        Raises
        ------
        FrameUnavailableError
            There is no such frame, or its file is gone.
        PixelError
            It cannot be decoded.
        RetriableError
            The operating system could not read it.
        """
        if not 0 <= index < len(stack.places):
            raise FrameUnavailableError(f"there are {len(stack.places)} slices, not {index + 1}")
        place = stack.places[index]

        def make() -> PackedFrame:
            (_, first), *others = stack.read(index)
            for further, frame in others:
                kept = stack.places[further]
                self._frames.put((kept.path, kept.etag), pack(frame))
            return pack(first)

        return self._frames.get((place.path, place.etag), make)

    def foresee(self, job_id: int, index: int) -> None:
        """Have a frame ready for who asks for it in a moment; what is wrong is told then."""
        with suppress(DicomNodeError):
            self.frame(self.stack_of_job(job_id), index)

    def masks_of_job(self, job_id: int) -> PackedMasks:
        """Return all masks of a job's segmentation on the job's frames, and what people edited."""
        result = segmentation_of(self._node, job_id)
        if result is None:
            return without_masks()
        stack = self.stack_of_job(job_id)
        with self._node.database.reading() as session:
            edited = edited_findings(session, job_id)
            segments = {one.position: one.segment_number for one in findings_of(session, job_id)}
        edits = {
            (segment, int(frame)): runs
            for position, review in edited.items()
            if (segment := segments.get(position)) is not None
            for frame, runs in (review.edits or {}).items()
        }

        def make() -> PackedMasks:
            read = read_segmentation(self._node.archive.absolute(result.path))
            return pack_masks(
                read.rows, read.columns, read.segments, read.masks(), stack.keys, edits
            )

        verdicts = tuple(sorted(review.id for review in edited.values()))
        return self._masks.get((job_id, result.sha256, verdicts), make)

    def masks_of_answer(self, question: AskedQuestion) -> PackedMasks:
        """Return the masks of an answered question on the frames that it was asked about.

        Raises
        ------
        FrameUnavailableError
            They are not kept any more.
        """

        def make() -> PackedMasks:
            try:
                stored = read_interpretation(question_folder(self._node.home, question.id))
            except StoredInterpretationError as error:
                raise FrameUnavailableError(
                    f"the masks of this answer are not kept any more ({error}); ask again"
                ) from error
            segments, masks = segments_of_answer(stored.interpretation)
            if not masks:
                return without_masks()
            count, rows, columns = masks[0][1].shape
            # The answer speaks of the frames by their order: so do the names here.
            keys = [("", index + 1) for index in range(count)]
            frames = (
                FrameMask(number, *keys[index], mask[index])
                for number, mask in masks
                for index in range(len(mask))
                if mask[index].any()
            )
            return pack_masks(rows, columns, segments, frames, keys)

        return self._masks.get(("question", question.id, question.lease_token), make)

    def picture_of_job(self, job_id: int, side: int) -> Picture:
        """Return the slice that shows a job's first mask best, with all masks on it."""
        result = segmentation_of(self._node, job_id)
        digest = "" if result is None else result.sha256

        def make() -> Picture:
            stack = self.stack_of_job(job_id)
            if not stack.places:
                raise FrameUnavailableError("the study is not complete yet")
            index = self._key_frame(job_id, len(stack.places))
            overlays = [] if result is None else self._overlays(result, stack, index)
            return draw_picture(_first(stack, index), overlays, side)

        return self._pictures.get((job_id, digest, side), make)

    def report_of_job(self, job_id: int) -> Page:
        """Return the report of a job as PDF; who asks for the same one meanwhile waits."""
        return self._pages.get(job_id, lambda: Page(report_page_of_job(self._node, job_id)))

    def picture_of_series(self, series_id: int, number: int, side: int) -> Picture:
        """Return the middle slice of a part of a series."""

        def make() -> Picture:
            stack = self.stack_of_series(series_id, number)
            return draw_picture(_first(stack, len(stack.places) // 2), [], side)

        return self._pictures.get(("series", series_id, number, side), make)

    def _key_frame(self, job_id: int, frames: int) -> int:
        with self._node.database.reading() as session:
            keys = [one.key_frame for one in findings_of(session, job_id)]
        shown = [key for key in keys if key is not None and key < frames]
        return shown[0] if shown else frames // 2

    def _overlays(self, result: ResultRecord, stack: Stack, index: int) -> Sequence[Overlay]:
        read = read_segmentation(self._node.archive.absolute(result.path))
        colours = {segment.number: segment.colour for segment in read.segments}
        return [
            Overlay(one.mask, colours[one.segment])
            for one in read.masks()
            if (one.sop_instance_uid, one.frame_number) == stack.keys[index]
        ]


def _first(stack: Stack, index: int) -> FrameRead:
    return next(stack.read(index))[1]


def segmentation_of(node: Node, job_id: int) -> ResultRecord | None:
    """Return the job's segmentation whose file is there; None without one, or a withdrawn one."""
    with node.database.reading() as session:
        results = results_of(session, job_id)
    return next(
        (
            one
            for one in results
            if one.kind == "segmentation" and one.purged_at is None and one.withdrawal is None
        ),
        None,
    )


def images_of(request: Request) -> Images:
    """Return what the application keeps of images."""
    images: Images = request.app.state.images
    return images
