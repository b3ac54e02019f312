"""Room for the values of a source: memory, or a file where memory would not do."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import DTypeLike, NDArray

from dicom_node.errors import RetriableError

_PART_OF_MEMORY: Final = 3
"""A source may take one part in three of what is free: the model and the masks need the rest."""


def room_for(shape: tuple[int, ...], dtype: DTypeLike, scratch: Path | None) -> NDArray[Any]:
    """Return an array to fill frame by frame.

    Parameters
    ----------
    shape, dtype
        Of the array.
    scratch
        Folder for what does not fit into memory; the system's for temporary files where not given.

    Returns
    -------
    ndarray
        In memory, or mapped from a file without a name: it is gone as soon as the array is.

    Raises
    ------
    RetriableError
        The disk has no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= psutil.virtual_memory().available // _PART_OF_MEMORY:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            # Now, with a sentence; a hole in the file would end the process when it is filled.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise RetriableError(
            f"The pixel values take {size / 1e9:.1f} GB, more than a third of the free memory, and "
            f"the folder {scratch or tempfile.gettempdir()} cannot hold them: {error.strerror}."
        ) from error
