"""Data sets in Explicit VR Big Endian made ready to be written little endian (PS3.5 7.3, 7.4).

pydicom writes what it has not looked at as the bytes that it read, and words of binary values
(OW and its like) always: both would go out in the wrong order.
"""

from __future__ import annotations

from typing import Any, Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

# Bytes of the words of which such values consist; OB and UN have none that are known.
_WORDS: Final = {"OW": 2, "OL": 4, "OF": 4, "OV": 8, "OD": 8}


def is_big_endian(transfer_syntax_uid: str) -> bool:
    """Whether a transfer syntax is the big endian one."""
    return transfer_syntax_uid == ExplicitVRBigEndian


def turn_to_little_endian(dataset: Dataset) -> None:
    """Turn the words of a data set that was read from Explicit VR Big Endian, items too.

    Its file meta says Explicit VR Little Endian afterwards.

    Raises
    ------
    ValueError
        A value does not consist of whole words.
    """
    # Each is looked at, and so decoded, before any is written.
    dataset.walk(_turn)
    # What the writers go by, together with the file meta.
    dataset.set_original_encoding(False, True, dataset.original_character_set)
    meta: Any = getattr(dataset, "file_meta", None)
    if meta is not None:
        meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian)


def _turn(dataset: Dataset, element: DataElement) -> None:
    size = _WORDS.get(element.VR)
    value = element.value
    if size is None or not isinstance(value, bytes):
        return
    if len(value) % size:
        raise ValueError(f"{element.tag} holds no whole words of {size} bytes")
    turned = bytearray(len(value))
    for place in range(size):
        turned[place::size] = value[size - 1 - place :: size]
    element.value = bytes(turned)
