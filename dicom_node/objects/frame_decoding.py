"""All frames of a source, decoded in its order; by several processes where that pays.

Decoders hold the interpreter's lock, so threads do not help. A process is lent only to slow
transfer syntaxes: JPEG 2000 takes 25 ms for a slice of 512 x 512 that uncompressed takes 0.2 ms.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import Final

from pydicom import Dataset, config
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.errors import RetriableError
from dicom_node.objects.decoding import PixelError, StoredPixels, decode_frames
from dicom_node.objects.headers import PixelElement
from dicom_node.objects.series import Source

# Seconds for a million pixels on one core, measured on noisy 12-bit CT.
_SECONDS_PER_MEGAPIXEL: Final[Mapping[UID, float]] = {
    JPEGBaseline8Bit: 0.01,
    JPEGLossless: 0.011,
    JPEGLosslessSV1: 0.011,
    JPEGLSLossless: 0.015,
    JPEGLSNearLossless: 0.015,
    JPEG2000Lossless: 0.1,
    JPEG2000: 0.1,
    HTJ2KLossless: 0.03,
    HTJ2KLosslessRPCL: 0.03,
    HTJ2K: 0.03,
    RLELossless: 0.004,
}
# Below this, starting processes takes longer than they save.
_WORTH_SECONDS: Final = 3.0
_MOST_PROCESSES: Final = 8
_PIXELS_PER_TASK: Final = 1 << 21
_TASK_SECONDS: Final = 300.0

# What decoding looks at; the rest of a header would only be copied from process to process.
_PIXEL_KEYWORDS: Final = (
    "SOPInstanceUID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)

_File = tuple[Path, Dataset, PixelElement | None, tuple[int, ...]]


def stored_frames(source: Source, *, processes: int | None = None) -> Iterator[StoredPixels]:
    """Decode the frames of a source one after the other.

    Parameters
    ----------
    source
        The source; few frames are in memory at a time.
    processes
        How many decode; chosen by the work that there is when not given.

    Raises
    ------
    PixelError
        Naming the attribute or the transfer syntax, and why.
    RetriableError
        A file could not be read, or a decoding process gave no answer in time.
    """
    files = _files(source)
    count = processes if processes is not None else processes_for(source)
    if count < 2:
        for file in files:
            yield from decode_frames(*file)
        return
    yield from _by_processes(_tasks(files, source.shape[1] * source.shape[2]), count)


def _files(source: Source) -> list[_File]:
    elements: Sequence[PixelElement | None] = source.pixel_elements or [None] * len(source.paths)
    frames = tuple(number - 1 for number in source.frame_numbers) or (0,)
    return [
        (path, header, element, frames)
        for path, header, element in zip(source.paths, source.headers, elements, strict=True)
    ]


def processes_for(source: Source) -> int:
    """Return how many processes decode a source: several only where that saves time."""
    syntax = UID(source.headers[0].file_meta.TransferSyntaxUID, config.IGNORE)
    frames, rows, columns = source.shape
    samples = int(source.headers[0].get("SamplesPerPixel") or 1)
    seconds = _SECONDS_PER_MEGAPIXEL.get(syntax, 0.0) * frames * rows * columns * samples / 1e6
    # A child of a Celery worker may have no children; its siblings use the other cores.
    if seconds < _WORTH_SECONDS or multiprocessing.current_process().daemon:
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)


def _tasks(files: Sequence[_File], pixels: int) -> Iterator[list[_File]]:
    """Cut the work into lists of files, or parts of one file, of some million pixels each."""
    size = max(1, _PIXELS_PER_TASK // pixels)
    if len(files) == 1:
        path, header, element, frames = files[0]
        for start in range(0, len(frames), size):
            yield [(path, _pixel_header(header), element, frames[start : start + size])]
        return
    for start in range(0, len(files), size):
        yield [(p, _pixel_header(h), e, f) for p, h, e, f in files[start : start + size]]


def _pixel_header(header: Dataset) -> Dataset:
    reduced = Dataset()
    for keyword in _PIXEL_KEYWORDS:
        if keyword in header:
            reduced.add(header[keyword])
    reduced.file_meta = header.file_meta
    return reduced


def _by_processes(tasks: Iterator[list[_File]], count: int) -> Iterator[StoredPixels]:
    context = multiprocessing.get_context("forkserver")
    # The server imports once; each process is then forked from it without our threads.
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent)
    waiting: deque[Future[list[StoredPixels]]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_decode, task))
            if len(waiting) > 2 * count:
                yield from waiting.popleft().result(timeout=_TASK_SECONDS)
        while waiting:
            yield from waiting.popleft().result(timeout=_TASK_SECONDS)
    except BrokenProcessPool as error:
        raise PixelError(
            "A decoder ended its process on the pixel data of this source: they are damaged, or "
            "memory ran out."
        ) from error
    except StillRunning as error:
        raise RetriableError(
            f"A decoder gave no answer within {_TASK_SECONDS:.0f} s for a few images."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _decode(task: list[_File]) -> list[StoredPixels]:
    return [stored for file in task for stored in decode_frames(*file)]


def _end_with_parent() -> None:
    """End this process when the one that asked is gone: a killed worker must leave nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
