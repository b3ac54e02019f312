"""Multi-frame images: cines, enhanced volumes, reconstructions, and slides in tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

from tests.factories.datasets import (
    StudyIdentity,
    base_dataset,
    code,
    decimal_strings,
    even,
    new_uid,
    override,
    pixel_bytes,
    save,
    set_pixels,
)
from tests.factories.stacks import AXIAL, PET_WEIGHT_KG, injected_fluorine, plane_positions

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."

CINES: Final[Mapping[str, tuple[str, str]]] = {
    "US": (_STORAGE + "3.1", "US"),
    "XA": (_STORAGE + "12.1", "XA"),
    "RF": (_STORAGE + "12.2", "RF"),
    "NM": (_STORAGE + "20", "NM"),
    "SC single bit": (_STORAGE + "7.1", "OT"),
    "SC grayscale byte": (_STORAGE + "7.2", "OT"),
    "SC grayscale word": (_STORAGE + "7.3", "OT"),
    "SC true colour": (_STORAGE + "7.4", "OT"),
    "OP 8 bit": (_STORAGE + "77.1.5.1", "OP"),
    "OP 16 bit": (_STORAGE + "77.1.5.2", "OP"),
    "OP wide field": (_STORAGE + "77.1.5.5", "OP"),
    "IVOCT": (_STORAGE + "14.1", "IVOCT"),
    "enhanced XA": (_STORAGE + "12.1.1", "XA"),
    "enhanced RF": (_STORAGE + "12.2.1", "RF"),
    "RT portal": (_STORAGE + "481.1", "RTIMAGE"),
}
ENHANCED: Final[Mapping[str, tuple[str, str]]] = {
    "CT": (_STORAGE + "2.1", "CT"),
    "legacy CT": (_STORAGE + "2.2", "CT"),
    "MR": (_STORAGE + "4.1", "MR"),
    "MR colour": (_STORAGE + "4.3", "MR"),
    "legacy MR": (_STORAGE + "4.4", "MR"),
    "PET": (_STORAGE + "130", "PT"),
    "legacy PET": (_STORAGE + "128.1", "PT"),
    "XA 3D": (_STORAGE + "13.1.1", "XA"),
    "CBCT": (_STORAGE + "13.1.2", "CT"),
    "tomosynthesis": (_STORAGE + "13.1.3", "MG"),
    "OCT": (_STORAGE + "77.1.5.4", "OPT"),
    "US volume": (_STORAGE + "6.2", "US"),
    "US volume, apex": (_STORAGE + "6.2", "US"),
}


def _frames(ds: Dataset, frames: NDArray[Any], photometric: str, bits: int | None) -> None:
    set_pixels(ds, frames[0], photometric=photometric, bits_stored=bits or frames.itemsize * 8)
    ds.NumberOfFrames = len(frames)
    ds.PixelData = pixel_bytes(frames)


def write_cine(
    path: Path,
    frames: NDArray[Any],
    *,
    kind: str = "US",
    photometric: str | None = None,
    bits_stored: int | None = None,
    study: StudyIdentity | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write frames that stand alone: (frames, rows, columns[, 3]) of any integer type.

    ``kind`` is a key of `CINES`; frames of ``SC single bit`` are 0 and 1.
    """
    sop_class, modality = CINES[kind]
    ds = base_dataset(sop_class, modality, study)
    _frames(ds, frames, photometric or ("RGB" if frames.ndim == 4 else "MONOCHROME2"), bits_stored)
    if kind == "SC single bit":
        ds.BitsAllocated = ds.BitsStored = 1
        ds.HighBit = 0
        ds.PixelData = even(np.packbits(frames.reshape(-1), bitorder="little").tobytes())
    ds.FrameIncrementPointer, ds.FrameTime = 0x00181063, 40
    ds.PatientOrientation, ds.LossyImageCompression = "", "00"
    ds.BurnedInAnnotation = "NO"
    override(ds, attributes)
    return save(ds, path, transfer_syntax=transfer_syntax)


def write_enhanced(
    path: Path,
    volume: NDArray[Any],
    *,
    kind: str = "CT",
    spacing: tuple[float, float] = (1.0, 1.0),
    slice_spacing: float = 2.0,
    orientation: Sequence[float] = AXIAL,
    tilt_degrees: float = 0.0,
    positions: NDArray[np.float64] | None = None,
    phases: int = 1,
    rescale: tuple[float, float] | None = None,
    study: StudyIdentity | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    frame_attributes: Sequence[Mapping[str, Any]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write an enhanced multi-frame image from stored values, (frames, rows, columns[, 3]).

    Parameters
    ----------
    kind
        A key of `ENHANCED`.
    phases
        The frames are that many volumes at the same places, told by Temporal Position Index.
    rescale
        Slope and intercept of Pixel Value Transformation; CT -1024 and PET 1 when not given.
    frame_attributes
        Attributes of Frame Content for each frame.
    """
    study = study or StudyIdentity()
    sop_class, modality = ENHANCED[kind]
    ds = base_dataset(sop_class, modality, study)
    _frames(ds, volume, "RGB" if volume.ndim == 4 else "MONOCHROME2", None)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = study.frame_of_reference_uid, ""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    count = len(volume) // phases
    if positions is None:
        positions = plane_positions(
            count, orientation=orientation, slice_spacing=slice_spacing, tilt_degrees=tilt_degrees
        )
    if kind in ("PET", "legacy PET"):
        _describe_pet(ds)
    shared = Dataset()
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(spacing), slice_spacing
    plane.ImageOrientationPatient = decimal_strings(orientation)
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([plane])
    transformation = Dataset()
    slope, intercept = rescale or ((1.0, -1024.0) if modality == "CT" else (1.0, 0.0))
    transformation.RescaleSlope, transformation.RescaleIntercept = slope, intercept
    transformation.RescaleType = "HU" if modality == "CT" else "US"
    shared.PixelValueTransformationSequence = DicomSequence([transformation])
    ds.SharedFunctionalGroupsSequence = DicomSequence([shared])
    groups = []
    for index in range(len(volume)):
        group, content, position = Dataset(), Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber = "1", index % count + 1
        content.TemporalPositionIndex = index // count + 1
        content.DimensionIndexValues = [1, index % count + 1, index // count + 1]
        override(content, (frame_attributes or [{}] * len(volume))[index])
        position.ImagePositionPatient = decimal_strings(positions[index % count])
        group.FrameContentSequence = DicomSequence([content])
        group.PlanePositionSequence = DicomSequence([position])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = DicomSequence(groups)
    ds.PatientOrientation = ""
    if modality == "US":
        _place_ultrasound(ds, in_patient=kind == "US volume")
    override(ds, attributes)
    return save(ds, path, transfer_syntax=transfer_syntax)


def _place_ultrasound(ds: Dataset, *, in_patient: bool) -> None:
    """Give every frame its place in the volume as well; without `in_patient`, there alone."""
    ds.VolumeFrameOfReferenceUID = new_uid()
    ds.UltrasoundAcquisitionGeometry = "PATIENT" if in_patient else "APEX"
    ds.PatientFrameOfReferenceSource = "TABLE" if in_patient else None
    shared, plane, kind = ds.SharedFunctionalGroupsSequence[0], Dataset(), Dataset()
    plane.ImageOrientationVolume = [float(x) for x in (1, 0, 0, 0, 1, 0)]
    shared.PlaneOrientationVolumeSequence = DicomSequence([plane])
    kind.DataType, kind.AliasedDataType = "TISSUE_INTENSITY", "NO"
    shared.ImageDataTypeSequence = DicomSequence([kind])
    measures = shared.PixelMeasuresSequence[0]
    for index, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        position = Dataset()
        position.ImagePositionVolume = [-20.0, -15.0, float(measures.SliceThickness) * index]
        group.PlanePositionVolumeSequence = DicomSequence([position])
        if not in_patient:
            del group.PlanePositionSequence
    if not in_patient:
        del shared.PlaneOrientationSequence


def write_reconstruction(
    path: Path,
    volume: NDArray[np.uint16],
    *,
    spacing: tuple[float, float] = (4.0, 4.0),
    step: float | None = 5.0,
    orientation: Sequence[float] = AXIAL,
    position: Sequence[float] | None = (-80.0, -60.0, 12.5),
    slots: int = 1,
    study: StudyIdentity | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a nuclear medicine tomography, (slots x slices, rows, columns).

    Parameters
    ----------
    step
        Spacing Between Slices, mm: negative where the slices go against the normal.
    position
        Of the first slice, in the Detector Information Sequence; None: not told.
    slots
        Time slots of a gated one; in each the slices are at the same places.
    """
    study = study or StudyIdentity()
    ds = base_dataset(_STORAGE + "20", "NM", study)
    _frames(ds, volume, "MONOCHROME2", None)
    slices = len(volume) // slots
    gated = slots > 1
    ds.ImageType = ["DERIVED", "PRIMARY", "RECON GATED TOMO" if gated else "RECON TOMO", "EMISSION"]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = study.frame_of_reference_uid, ""
    ds.PixelSpacing, ds.SliceThickness = list(spacing), abs(step or 5.0)
    ds.SpacingBetweenSlices = step
    ds.FrameIncrementPointer = [0x00540060, 0x00540070, 0x00540080] if gated else 0x00540080
    ds.SliceVector = list(range(1, slices + 1)) * slots
    ds.NumberOfSlices = slices
    if gated:
        ds.RRIntervalVector = [1] * len(volume)
        ds.TimeSlotVector = [index // slices + 1 for index in range(len(volume))]
        ds.NumberOfRRIntervals, ds.NumberOfTimeSlots = 1, slots
    detector = Dataset()
    detector.CollimatorType, detector.FocalDistance, detector.StartAngle = "PARA", 0, 0
    if position is not None:
        detector.ImagePositionPatient = list(position)
        detector.ImageOrientationPatient = list(orientation)
    ds.DetectorInformationSequence = DicomSequence([detector])
    ds.NumberOfDetectors, ds.DetectorVector = 1, [1] * len(volume)
    ds.EnergyWindowInformationSequence = DicomSequence()
    ds.EnergyWindowVector, ds.NumberOfEnergyWindows = [1] * len(volume), 1
    ds.RadiopharmaceuticalInformationSequence = DicomSequence()
    ds.PatientOrientationCodeSequence = code("102538003", "SCT", "recumbent")
    ds.PatientGantryRelationshipCodeSequence = code("102540008", "SCT", "headfirst")
    ds.CountsAccumulated, ds.PatientOrientation = 1000, ""
    override(ds, attributes)
    return save(ds, path)


def _describe_pet(ds: Dataset) -> None:
    """370 MBq of 18F to 70 kg an hour before the scan; counts corrected to the injection."""
    ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "ADMIN", ["DECY", "ATTN"]
    ds.DecayCorrected = ds.AttenuationCorrected = "YES"
    ds.PatientWeight = PET_WEIGHT_KG
    item = injected_fluorine()
    item.RadiopharmaceuticalStartDateTime = f"{ds.StudyDate}091500"
    ds.RadiopharmaceuticalInformationSequence = DicomSequence([item])


def write_slide(
    path: Path,
    matrix: NDArray[np.uint8],
    *,
    tile: int = 16,
    sparse: bool = False,
    pixel_mm: float = 0.001,
    flavour: str = "VOLUME",
    study: StudyIdentity | None = None,
    series_uid: str | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write one level of a slide from its total pixel matrix, (rows, columns, 3), in tiles.

    ``sparse``: the tiles state their places, and every second one is left out.
    """
    ds = base_dataset(_STORAGE + "77.1.6", "SM", study)
    ds.SeriesInstanceUID = series_uid or ds.SeriesInstanceUID
    rows, columns = matrix.shape[:2]
    down, along = -(-rows // tile), -(-columns // tile)
    padded = np.full((down * tile, along * tile, 3), 255, np.uint8)
    padded[:rows, :columns] = matrix
    tiles = padded.reshape(down, tile, along, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    places = [(row, column) for row in range(down) for column in range(along)]
    if sparse:
        tiles, places = tiles[::2], places[::2]
    _frames(ds, np.ascontiguousarray(tiles), "RGB", None)
    ds.ImageType = ["ORIGINAL", "PRIMARY", flavour, "NONE"]
    ds.FrameOfReferenceUID = (study or StudyIdentity()).frame_of_reference_uid
    ds.PositionReferenceIndicator = "SLIDE_CORNER"
    ds.DimensionOrganizationType = "TILED_SPARSE" if sparse else "TILED_FULL"
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = rows, columns
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    ds.TotalPixelMatrixOriginSequence = DicomSequence([origin])
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.TotalPixelMatrixFocalPlanes, ds.NumberOfOpticalPaths = 1, 1
    ds.VolumetricProperties, ds.SpecimenLabelInImage = "VOLUME", "NO"
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    _describe_specimen(ds)
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [pixel_mm, pixel_mm], 0.005
    shared.PixelMeasuresSequence = DicomSequence([measures])
    ds.SharedFunctionalGroupsSequence = DicomSequence([shared])
    if sparse:
        ds.PerFrameFunctionalGroupsSequence = DicomSequence(
            [_tile_place(row * tile, column * tile, pixel_mm) for row, column in places]
        )
    override(ds, attributes)
    return save(ds, path, transfer_syntax=transfer_syntax)


def _tile_place(row: int, column: int, pixel_mm: float) -> Dataset:
    group, item = Dataset(), Dataset()
    item.RowPositionInTotalImagePixelMatrix = row + 1
    item.ColumnPositionInTotalImagePixelMatrix = column + 1
    item.XOffsetInSlideCoordinateSystem = 20 - row * pixel_mm
    item.YOffsetInSlideCoordinateSystem = 40 - column * pixel_mm
    item.ZOffsetInSlideCoordinateSystem = 0
    group.PlanePositionSlideSequence = DicomSequence([item])
    return group


def _describe_specimen(ds: Dataset) -> None:
    ds.ContainerIdentifier, ds.ContainerComponentSequence = "S-1", DicomSequence()
    ds.IssuerOfTheContainerIdentifierSequence = DicomSequence()
    ds.ContainerTypeCodeSequence = code("433466003", "SCT", "Microscope slide")
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "S-1-A", new_uid()
    specimen.IssuerOfTheSpecimenIdentifierSequence = DicomSequence()
    specimen.SpecimenPreparationSequence = DicomSequence()
    ds.SpecimenDescriptionSequence = DicomSequence([specimen])
