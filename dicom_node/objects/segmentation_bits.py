"""The single frames of a segmentation, read without unpacking the whole object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset


def frame_bits(dataset: Dataset, index: int) -> NDArray[np.bool_]:
    """Return one frame of an uncompressed BINARY segmentation.

    The bits of all frames follow each other without gaps, the first pixel in the lowest bit
    (PS3.5 8.1.1, 8.2).

    Parameters
    ----------
    dataset
        The object, with its Pixel Data.
    index
        Of the frame, from 0.

    Returns
    -------
    ndarray of bool
        Shape (rows, columns).

    Raises
    ------
    ValueError
        When the pixel data end before the frame does.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    start, stop = index * rows * columns, (index + 1) * rows * columns
    data = dataset.PixelData[start // 8 : (stop + 7) // 8]
    if len(data) * 8 < stop - start // 8 * 8:
        raise ValueError(f"the pixel data end before frame {index + 1}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    offset = start % 8
    return bits[offset : offset + rows * columns].astype(np.bool_).reshape(rows, columns)
