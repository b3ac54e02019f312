"""What is looked at as one: the frames of a job, or of a series in the archive, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dashboard.frames import (
    FramePlace,
    FrameRead,
    FrameUnavailableError,
    frames_of,
    read_frame,
    require_file,
)
from dashboard.masks import FrameKey
from db.jobs import sources_of
from db.models import Instance, Job, Series
from db.studies import instances_of_series
from dicom_node.objects.references import frame_references
from dicom_node.objects.series import Source, read_sources
from dicom_node.objects.video import is_video
from workflows.node import Node

__all__ = ["Stack", "source_of", "sources_of_series", "stack_of_job", "stack_of_source"]


_VIDEO_FRAMES: Final = 32
_KEPT: Final = (
    "retention in node.yaml says how long images are kept; send the study again to see it"
)
_GONE: Final = f"the files are not in the archive any more: {_KEPT}"


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames in the order in which they are scrolled through.

    Attributes
    ----------
    name
        For people and file names: ``job-7``.
    modality, kind
        As in `dicom_node.objects.series.Source`.
    places
        Where each frame lies.
    source
        Of a multi-frame image: its attributes, read once for all frames. None for single-frame
        images, whose files are read one by one.
    """

    name: str
    modality: str
    kind: str
    places: tuple[FramePlace, ...]
    source: Source | None = None

    @property
    def size(self) -> int:
        """Bytes, roughly, for the cache."""
        each = 512 if self.source is None or not self.source.frame_headers else 64 << 10
        return each * len(self.places) + 256

    def read(self, index: int) -> Iterator[tuple[int, FrameRead]]:
        """Decode a frame, and those after it that come with it; raises as `read_frame`.

        A video can only be decoded from its start: a number of frames are handed out at once.
        """
        if self.source is None:
            yield index, read_frame(self.places[index])
            return
        require_file(self.places[index].path)
        syntax = str(self.source.headers[0].file_meta.TransferSyntaxUID)
        last = index + (_VIDEO_FRAMES if is_video(syntax) else 1)
        indices = range(index, min(last, len(self.places)))
        yield from zip(indices, frames_of(self.source, indices), strict=True)

    @property
    def keys(self) -> list[FrameKey]:
        """What masks call the frames."""
        return [(place.sop_instance_uid, place.index + 1) for place in self.places]


def stack_of_job(node: Node, job_id: int) -> Stack | None:
    """Return the frames that a job reads, without opening a file where each has one frame.

    Returns
    -------
    Stack or None
        None when there is no such job. Without frames before the study is complete.

    Raises
    ------
    FrameUnavailableError
        The file of a multi-frame image is gone or cannot be read.
    """
    with node.database.reading() as session:
        job = session.get(Job, job_id)
        if job is None:
            return None
        instances = sources_of(session, job_id)
        name, modality, kind = f"job-{job_id}", job.modality, job.source_kind
        frame_numbers = tuple(job.frame_numbers)
    if not frame_numbers:
        return Stack(name, modality, kind, tuple(_place(node, one, 0) for one in instances))
    for source in _read(node, instances):
        if source.frame_numbers == frame_numbers:
            return stack_of_source(name, source, instances)
    raise FrameUnavailableError("the file does not hold the frames any more that the job looked at")


def _place(node: Node, instance: Instance, index: int) -> FramePlace:
    path = node.archive.absolute(instance.path)
    return FramePlace(path, index, instance.sop_instance_uid, instance.sha256)


def sources_of_series(node: Node, series_id: int) -> tuple[Series, list[Source], list[Instance]]:
    """Read what a series of the archive consists of: phases, stacks, single images.

    Raises
    ------
    FrameUnavailableError
        Nothing of it is in the archive any more, or nothing is an image.
    """
    with node.database.reading() as session:
        series = session.get(Series, series_id)
        instances = instances_of_series(session, series_id)
    if series is None or not instances:
        raise FrameUnavailableError(f"this series is not in the archive any more: {_KEPT}")
    return series, _read(node, instances), instances


def _read(node: Node, instances: Sequence[Instance]) -> list[Source]:
    paths = [node.archive.absolute(one.path) for one in instances]
    there = [path for path in paths if path.exists()]
    sources, aside = read_sources(there)
    if not sources:
        reason = aside[0].reason if aside else _GONE
        raise FrameUnavailableError(reason)
    return sources


def source_of(sources: Sequence[Source], number: int) -> Source:
    """Return one of the sources of a series.

    Raises
    ------
    FrameUnavailableError
        There are not so many.
    """
    if not 0 <= number < len(sources):
        raise FrameUnavailableError(f"this series has {len(sources)} parts, not {number + 1}")
    return sources[number]


def stack_of_source(name: str, source: Source, instances: Sequence[Instance]) -> Stack:
    """Return the frames of a source, whose files are those of the instances."""
    digests = {one.sop_instance_uid: one.sha256 for one in instances}
    paths = dict(zip(source.sop_instance_uids, source.paths, strict=True))
    places = tuple(
        FramePlace(
            paths[reference.sop_instance_uid],
            (reference.frame_number or 1) - 1,
            reference.sop_instance_uid,
            digests.get(reference.sop_instance_uid, ""),
        )
        for reference in frame_references(source)
    )
    multi_frame = source if source.frame_numbers else None
    return Stack(name, source.modality, source.kind, places, multi_frame)
