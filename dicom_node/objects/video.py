"""Frames of the video transfer syntaxes: MPEG-2, H.264 and H.265 (PS3.5 8.2.5 to 8.2.8)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

# MPEG2 (100, 101), MPEG-4 AVC/H.264 (102 to 106), HEVC/H.265 (107, 108); with ".1" in fragments.
_VIDEO: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109))


class VideoError(Exception):
    """The stream cannot be decoded; the text is the end of a sentence."""


def is_video(transfer_syntax_uid: str) -> bool:
    """Whether a transfer syntax holds one stream with all frames."""
    uid = str(transfer_syntax_uid)
    return uid in _VIDEO or (uid.endswith(".1") and uid[:-2] in _VIDEO)


def video_frames(stream: bytes, frames: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Decode frames of a video stream in one pass.

    Parameters
    ----------
    stream
        The stream, elementary or in a container (MPEG-TS, MP4, MPEG-PS).
    frames
        Indices from 0, increasing.

    Yields
    ------
    ndarray
        RGB, uint8, (rows, columns, 3).

    Raises
    ------
    VideoError
        The stream is damaged, has fewer frames, or the decoder is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError("its decoder is not installed (PyAV: the extra 'video')") from error
    wanted = iter(frames)
    following = next(wanted, None)
    try:
        with av.open(io.BytesIO(stream), "r") as container:
            for index, picture in enumerate(container.decode(video=0)):
                if following is None:
                    return
                if index == following:
                    yield picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                    following = next(wanted, None)
    except (av.FFmpegError, IndexError) as error:
        raise VideoError(f"FFmpeg found no picture in it ({error})") from error
    if following is not None:
        raise VideoError(f"it ends before frame {following + 1}")
