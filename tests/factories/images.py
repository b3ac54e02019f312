"""Single-frame images without a place in the patient's space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

from tests.factories.datasets import (
    SOP_CLASSES,
    StudyIdentity,
    base_dataset,
    code,
    new_uid,
    override,
    save,
    set_pixels,
)

ImageKind = Literal["CR", "DX", "MG", "US", "SC", "ES", "XC", "GM", "DMS", "OP"]


def write_image(
    path: Path,
    pixels: NDArray[Any],
    *,
    kind: ImageKind = "CR",
    photometric: str | None = None,
    bits_stored: int | None = None,
    spacing: tuple[float, float] | None = None,
    study: StudyIdentity | None = None,
    series_uid: str | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write one single-frame image that has no place in the patient's space.

    Parameters
    ----------
    pixels
        Stored values: (rows, columns) or (rows, columns, 3), any integer type.
    kind
        CR, DX, MG, US, SC, ES (VL endoscopic), GM (VL microscopic), XC (VL photographic), DMS
        (dermoscopic photography) or OP (ophthalmic photography 8 bit).
    spacing
        Written as Imager Pixel Spacing (CR, DX, MG), as a region calibration (US), else as
        Pixel Spacing; ``None``: uncalibrated.
    """
    ds = base_dataset(SOP_CLASSES[kind], "OT" if kind == "SC" else kind, study)
    ds.SeriesInstanceUID = series_uid or ds.SeriesInstanceUID
    colour = pixels.ndim == 3
    default = "RGB" if colour else "MONOCHROME2"
    set_pixels(ds, pixels, photometric=photometric or default,
               bits_stored=bits_stored or pixels.dtype.itemsize * 8)  # fmt: skip
    _describe_image(ds, kind, spacing)
    override(ds, attributes)
    return save(ds, path, transfer_syntax=transfer_syntax)


def _describe_image(ds: Dataset, kind: str, spacing: tuple[float, float] | None) -> None:
    """Add what each class of single-frame image asks for, and its calibration."""
    ds.PatientOrientation, ds.Laterality = "", ""
    if kind in ("CR", "DX", "MG"):
        del ds.Laterality  # chest: not a paired body part; DX and MG have Image Laterality
        ds.BodyPartExamined = "BREAST" if kind == "MG" else "CHEST"
        ds.PatientOrientation = ["A", "F"] if kind == "MG" else ["L", "F"]
        if spacing:
            ds.ImagerPixelSpacing = list(spacing)
    if kind == "CR":
        ds.ViewPosition = "AP"
    if kind in ("DX", "MG"):
        _describe_x_ray(ds, kind, spacing)
    if kind in ("ES", "XC", "GM", "DMS", "OP"):
        ds.LossyImageCompression, ds.AcquisitionContextSequence = "00", DicomSequence()
        ds.BurnedInAnnotation = "NO"
        ds.AcquisitionDateTime = f"{ds.StudyDate}{ds.StudyTime}"
    if kind == "DMS":
        _describe_dermoscopy(ds)
    if kind == "OP":
        _describe_fundus(ds)
    if kind == "SC":
        ds.ConversionType, ds.ImageType = "WSD", ["DERIVED", "SECONDARY"]
    if kind == "US":
        ds.LossyImageCompression = "00"
        if spacing:
            ds.SequenceOfUltrasoundRegions = DicomSequence([_ultrasound_region(ds, spacing)])
    elif spacing and kind not in ("CR", "DX", "MG"):
        ds.PixelSpacing = list(spacing)


def _describe_x_ray(ds: Dataset, kind: str, spacing: tuple[float, float] | None) -> None:
    """Add the type 1 attributes of DX and mammography images (PS3.3 A.26, A.27)."""
    ds.PresentationIntentType, ds.ImageLaterality = "FOR PRESENTATION", "U"
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape, ds.LossyImageCompression = "IDENTITY", "00"
    if ds.PhotometricInterpretation == "MONOCHROME1":
        ds.PresentationLUTShape = "INVERSE"
    ds.BurnedInAnnotation, ds.DetectorType = "NO", "DIRECT"
    ds.ImagerPixelSpacing = list(spacing or (0.2, 0.2))
    ds.PositionerType = ""
    ds.AcquisitionContextSequence = DicomSequence()
    ds.AnatomicRegionSequence = code("51185008", "SCT", "Chest")
    ds.ViewCodeSequence = code("399348003", "SCT", "antero-posterior")
    ds.WindowCenter, ds.WindowWidth = 128, 256
    if kind == "MG":
        ds.PositionerType, ds.ImageLaterality, ds.OrganExposed = "MAMMOGRAPHIC", "L", "BREAST"
        ds.AnatomicRegionSequence = code("76752008", "SCT", "Breast")
        ds.ViewCodeSequence = code("399162004", "SCT", "cranio-caudal")
        ds.ViewCodeSequence[0].ViewModifierCodeSequence = DicomSequence()
        ds.BreastImplantPresent, ds.PartialView = "NO", "NO"


def _describe_dermoscopy(ds: Dataset) -> None:
    """Add the type 1 and 2 attributes of dermoscopic photography (PS3.3 A.32.11)."""
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = new_uid(), ""
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.RecognizableVisualFeatures = "NO"
    ds.ContactMethod = ds.LightSourcePolarization = None
    ds.EmitterColorTemperature = ds.OpticalMagnificationFactor = None


def _describe_fundus(ds: Dataset) -> None:
    """Add what ophthalmic photography asks for: formally multi-frame (PS3.3 A.41)."""
    ds.NumberOfFrames, ds.FrameIncrementPointer, ds.FrameTime = 1, 0x00181063, 0
    del ds.Laterality
    ds.ImageLaterality, ds.DetectorType, ds.PupilDilated = "R", "CCD", ""
    ds.AnatomicRegionSequence = code("5665001", "SCT", "Retina")
    ds.AcquisitionDeviceTypeCodeSequence = code("409898007", "SCT", "Fundus Camera")
    ds.AcquisitionTimeSynchronized, ds.SynchronizationTrigger = "N", "NO TRIGGER"
    ds.SynchronizationFrameOfReferenceUID = new_uid()
    for keyword in (
        "IlluminationTypeCodeSequence",
        "ImagePathFilterTypeStackCodeSequence",
        "LensesCodeSequence",
        "LightPathFilterTypeStackCodeSequence",
        "RefractiveStateSequence",
    ):
        setattr(ds, keyword, DicomSequence())
    for keyword in (
        "EmmetropicMagnification",
        "HorizontalFieldOfView",
        "IntraOcularPressure",
        "PatientEyeMovementCommanded",
    ):
        setattr(ds, keyword, None)


def _ultrasound_region(ds: Dataset, spacing: tuple[float, float]) -> Dataset:
    """Return one 2-D tissue region over the whole image, in cm per pixel (PS3.3 C.8.5.5)."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = ds.Columns - 1, ds.Rows - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
    region.PhysicalDeltaX, region.PhysicalDeltaY = spacing[1] / 10.0, spacing[0] / 10.0
    return region
