"""Names of UIDs, those that are younger than pydicom's dictionary as well."""

from __future__ import annotations

from typing import Final

from pydicom.uid import UID

# PS3.6 table A-1.
_YOUNGER: Final = {
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
}


def name_of_uid(uid: str) -> str:
    """Return the standard's name of a UID; the UID itself where it has none."""
    return _YOUNGER.get(uid) or str(UID(uid).name)
