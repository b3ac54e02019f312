"""A simulated CT phantom as a DICOM series: the study that the demo sends when it is given none.

Every number of the phantom is known (`learning.phantom`), so that masks and volumes which come
back can be held against the truth.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from learning.phantom import Phantom, generate_phantom

__all__ = ["demo_phantom", "write_phantom_study"]

DEMO_SEED = 7
_INTERCEPT = -1024


def demo_phantom() -> Phantom:
    """Return the phantom that the demo sends: two inserts, 40 slices of 3 mm."""
    return generate_phantom(DEMO_SEED, inserts=2)


def write_phantom_study(phantom: Phantom, folder: Path) -> list[Path]:
    """Write a phantom as one axial CT series (PS3.3 A.3), a new study each time.

    Parameters
    ----------
    phantom
        The simulated series.
    folder
        Where the files go; made when missing.

    Returns
    -------
    list of Path
        One file for each slice, from the feet to the head.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now()
    common = _common(phantom, now)
    paths = []
    for index, plane in enumerate(phantom.volume):
        path = folder / f"slice-{index + 1:03d}.dcm"
        _slice(common, phantom, index, plane, now).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _common(phantom: Phantom, now: datetime) -> Dataset:
    """Return what all slices share."""
    rows, columns = phantom.volume.shape[1:]
    common = Dataset()
    # Patient, General Study, General Series, Frame of Reference, General Equipment
    common.PatientName = "Phantom^Simulated"
    common.PatientID = "PHANTOM"
    common.PatientBirthDate = ""
    common.PatientSex = "O"
    common.StudyInstanceUID = generate_uid(prefix=None)
    common.StudyDate = now.strftime("%Y%m%d")
    common.StudyTime = now.strftime("%H%M%S")
    common.StudyID = "1"
    common.AccessionNumber = ""
    common.ReferringPhysicianName = ""
    common.StudyDescription = "Simulated CT phantom"
    common.SeriesInstanceUID = generate_uid(prefix=None)
    common.SeriesNumber = 1
    common.SeriesDescription = "Phantom with inserts"
    common.Modality = "CT"
    common.PatientPosition = "HFS"
    common.BodyPartExamined = "ABDOMEN"
    common.FrameOfReferenceUID = generate_uid(prefix=None)
    common.PositionReferenceIndicator = ""
    common.Manufacturer = "UniBiomed Node"
    common.ManufacturerModelName = "Simulated phantom"
    # Image Plane, Image Pixel, CT Image
    common.PixelSpacing = [phantom.spacing[1], phantom.spacing[2]]
    common.SliceThickness = phantom.spacing[0]
    common.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    common.Rows, common.Columns = rows, columns
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.BitsAllocated = 16
    common.BitsStored = 16
    common.HighBit = 15
    common.PixelRepresentation = 0
    common.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.RescaleIntercept = _INTERCEPT
    common.RescaleSlope = 1
    common.RescaleType = "HU"
    common.WindowCenter, common.WindowWidth = 60, 400
    common.KVP = 120
    common.AcquisitionNumber = 1
    return common


def _slice(
    common: Dataset, phantom: Phantom, index: int, plane: NDArray[np.float32], now: datetime
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    one = FileDataset("", common, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID = CTImageStorage
    one.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    one.InstanceNumber = index + 1
    one.ContentDate = now.strftime("%Y%m%d")
    one.ContentTime = now.strftime("%H%M%S")
    # The image's corner voxel, so that the phantom's middle lies at the origin.
    extents = [n * s for n, s in zip(phantom.volume.shape, phantom.spacing, strict=True)]
    depth, height, width = (
        (0.5 + step) * spacing - extent / 2
        for step, spacing, extent in zip((index, 0, 0), phantom.spacing, extents, strict=True)
    )
    one.ImagePositionPatient = [round(width, 3), round(height, 3), round(depth, 3)]
    one.SliceLocation = round(depth, 3)
    one.PixelData = (plane - _INTERCEPT).clip(0, 65535).astype("<u2").tobytes()
    return one
