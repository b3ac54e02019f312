"""Videos: one stream for all frames, compressed as cameras do."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import HEVCMP51, MPEG2MPHL, MPEG4HP41, UID

from tests.factories.datasets import (
    StudyIdentity,
    base_dataset,
    even,
    override,
    save,
    set_pixels,
)

VIDEOS: Final[Mapping[str, tuple[str, str]]] = {
    "ES": ("1.2.840.10008.5.1.4.1.1.77.1.1.1", "ES"),
    "GM": ("1.2.840.10008.5.1.4.1.1.77.1.2.1", "GM"),
    "XC": ("1.2.840.10008.5.1.4.1.1.77.1.4.1", "XC"),
}
CODECS: Final[Mapping[str, tuple[str, str]]] = {
    MPEG2MPHL: ("mpeg2video", "mpegts"),
    MPEG4HP41: ("libx264", "mp4"),
    HEVCMP51: ("libx265", "mpegts"),
}


def write_video(
    path: Path,
    frames: NDArray[np.uint8],
    *,
    kind: str = "ES",
    transfer_syntax: str = MPEG4HP41,
    fragments: int = 1,
    study: StudyIdentity | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write RGB frames as a video; even numbers of rows and columns. Needs PyAV."""
    sop_class, modality = VIDEOS[kind]
    ds = base_dataset(sop_class, modality, study)
    set_pixels(ds, frames[0], photometric="YBR_PARTIAL_420", bits_stored=8)
    ds.NumberOfFrames, ds.FrameTime, ds.CineRate = len(frames), 40, 25
    ds.FrameIncrementPointer, ds.PatientOrientation = 0x00181063, ""
    ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", "ISO_14496_10"
    ds.LossyImageCompressionRatio, ds.BurnedInAnnotation = 30, "NO"
    override(ds, attributes)
    stream = encode_video(frames, *CODECS[transfer_syntax])
    size = -(-len(stream) // fragments)
    size += size % 2
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    return _save_stream(ds, path, parts, transfer_syntax)


def _save_stream(ds: FileDataset, path: Path, parts: list[bytes], transfer_syntax: str) -> Path:
    """Write the fragments of one stream; `save` would try to compress them."""
    save(ds, path)
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.PixelData = encapsulate([even(part) for part in parts], has_bot=False)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return path


def encode_video(frames: NDArray[np.uint8], codec: str, container: str) -> bytes:
    """Return a video of RGB frames, nearly without loss."""
    import av

    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "4", "qscale": "1", "x265-params": "log-level=none"}
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    return target.getvalue()
