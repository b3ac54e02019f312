"""Single-frame CT, MR and PET series of any orientation, spacing and completeness."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

from tests.factories.datasets import (
    SOP_CLASSES,
    StudyIdentity,
    base_dataset,
    code,
    decimal_strings,
    new_uid,
    override,
    save,
    set_pixels,
)

AXIAL: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL: Final = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL: Final = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE: Final = (0.8, 0.6, 0.0, -0.48, 0.64, -0.6)
EIGHT_ORIENTATIONS: Final = (
    AXIAL,
    SAGITTAL,
    CORONAL,
    OBLIQUE,
    (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),  # prone, feet up
    (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),  # mirrored left to right
    (0.0, 1.0, 0.0, 1.0, 0.0, 0.0),  # rows and columns exchanged
    (0.0, -0.6, 0.8, 1.0, 0.0, 0.0),
)


def ball(
    shape: tuple[int, int, int],
    *,
    centre_mm: tuple[float, float, float],
    radius_mm: float,
    spacing: tuple[float, float, float] = (2.0, 1.0, 1.0),
) -> NDArray[np.bool_]:
    """Return the mask of a ball: shape (frames, rows, columns), lengths in the same order."""
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)),
                       indexing="ij")  # fmt: skip
    distance = sum((a - c) ** 2 for a, c in zip(axes, centre_mm, strict=True))
    return np.asarray(distance <= radius_mm**2, dtype=np.bool_)


def plane_positions(
    count: int,
    *,
    orientation: Sequence[float] = AXIAL,
    slice_spacing: float = 2.0,
    origin: Sequence[float] = (-10.0, 20.0, 30.0),
    tilt_degrees: float = 0.0,
) -> NDArray[np.float64]:
    """Return Image Position (Patient) of each frame, shape (count, 3), in mm.

    With a gantry tilt the stack moves by ``tan(tilt)`` along the columns for each step along
    the normal, as a sheared CT series does.
    """
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    step = slice_spacing * (normal + np.tan(np.radians(tilt_degrees)) * column)
    return np.asarray(np.array(origin, dtype=float) + np.arange(count)[:, None] * step)


def _plane(
    ds: Dataset,
    study: StudyIdentity,
    *,
    position: NDArray[np.float64],
    orientation: Sequence[float],
    spacing: tuple[float, float],
    thickness: float,
) -> None:
    """Fill in the frame of reference and image plane modules (PS3.3 C.7.4.1, C.7.6.2)."""
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = study.frame_of_reference_uid, ""
    ds.ImagePositionPatient = decimal_strings(position)
    ds.ImageOrientationPatient = decimal_strings(orientation)
    ds.PixelSpacing, ds.SliceThickness = list(spacing), thickness
    ds.PatientPosition = "HFS"


class SeriesOptions(TypedDict, total=False):
    """What can be told to every writer of a series.

    Attributes
    ----------
    spacing, slice_spacing
        Pixel Spacing (row spacing, column spacing) and the distance of neighbours, mm.
    orientation, origin, positions
        Image Orientation (Patient); position of frame 0; or every position at once, shape
        (frames, 3), which then overrules them.
    tilt_degrees
        Gantry tilt.
    skip
        Frame indices that are not written (missing slices).
    study, series_uid, series_number, first_instance
        Identity; two calls with the same ``study`` and ``series_uid`` add to one series.
    attributes, per_frame
        Overrides for all instances, and per frame (sequences of one value for each frame).
    """

    spacing: tuple[float, float]
    slice_spacing: float
    orientation: Sequence[float]
    origin: Sequence[float]
    tilt_degrees: float
    positions: NDArray[np.float64] | None
    skip: Collection[int]
    study: StudyIdentity | None
    series_uid: str | None
    series_number: int
    first_instance: int
    transfer_syntax: str
    attributes: Mapping[str, Any] | None
    per_frame: Mapping[str, Sequence[Any]] | None


def _write_stack(
    folder: Path,
    modality: Literal["CT", "MR", "PT"],
    stored: NDArray[Any],
    describe: Callable[[Dataset, int], None],
    *,
    bits_stored: int = 16,
    spacing: tuple[float, float] = (1.0, 1.0),
    slice_spacing: float = 2.0,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10.0, 20.0, 30.0),
    tilt_degrees: float = 0.0,
    positions: NDArray[np.float64] | None = None,
    skip: Collection[int] = (),
    study: StudyIdentity | None = None,
    series_uid: str | None = None,
    series_number: int = 1,
    first_instance: int = 1,
    transfer_syntax: str = ExplicitVRLittleEndian,
    attributes: Mapping[str, Any] | None = None,
    per_frame: Mapping[str, Sequence[Any]] | None = None,
) -> list[Path]:
    """Write a stack of single-frame images; ``describe(ds, index)`` adds the modality module.

    The rest is what `SeriesOptions` names.
    """
    study, series_uid = study or StudyIdentity(), series_uid or new_uid()
    if positions is None:
        positions = plane_positions(
            len(stored),
            orientation=orientation,
            slice_spacing=slice_spacing,
            origin=origin,
            tilt_degrees=tilt_degrees,
        )
    paths = []
    for index, pixels in enumerate(stored):
        if index in skip:
            continue
        ds = base_dataset(SOP_CLASSES[modality], modality, study)
        ds.SeriesInstanceUID, ds.SeriesNumber = series_uid, series_number
        ds.InstanceNumber = first_instance + index
        _plane(ds, study, position=positions[index], orientation=orientation, spacing=spacing,
               thickness=slice_spacing)  # fmt: skip
        set_pixels(ds, pixels, photometric="MONOCHROME2", bits_stored=bits_stored)
        describe(ds, index)
        override(ds, attributes)
        override(ds, {k: v[index] for k, v in (per_frame or {}).items()})
        # Names that do not sort like the slices: order must come from the geometry.
        name = f"{(index * 7919 + 13) % 9973:04d}_{first_instance + index:04d}.dcm"
        paths.append(save(ds, Path(folder) / name, transfer_syntax=transfer_syntax))
    return paths


def write_ct_series(
    folder: Path, volume: NDArray[Any], **options: Unpack[SeriesOptions]
) -> list[Path]:
    """Write a CT series and return its paths, frame by frame along the normal.

    Parameters
    ----------
    folder
        Where the files go; made if absent. File names do not sort like the slices.
    volume
        Values in HU, integers in -1024..31743, shape (frames, rows, columns).
    options
        See `SeriesOptions`.
    """
    tilt_degrees = options.get("tilt_degrees", 0.0)

    def describe(ds: Dataset, index: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
        ds.KVP, ds.AcquisitionNumber, ds.GantryDetectorTilt = 120, 1, tilt_degrees
        ds.WindowCenter, ds.WindowWidth = 40, 400
        ds.BodyPartExamined = "ABDOMEN"

    stored = (np.asarray(volume).astype(np.int32) + 1024).astype(np.uint16)
    return _write_stack(folder, "CT", stored, describe, **options)


def write_mr_series(
    folder: Path, volume: NDArray[Any], **options: Unpack[SeriesOptions]
) -> list[Path]:
    """Write an MR series, sagittal if not told otherwise; see `write_ct_series`.

    ``volume`` has stored values 0..4095 (no rescale).
    """
    options.setdefault("orientation", SAGITTAL)

    def describe(ds: Dataset, index: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "NONE", ""
        ds.MRAcquisitionType, ds.EchoTrainLength = "2D", 1
        ds.RepetitionTime, ds.EchoTime, ds.MagneticFieldStrength = 500, 15, 1.5
        ds.BodyPartExamined = "BRAIN"

    stored = np.asarray(volume).astype(np.uint16)
    return _write_stack(folder, "MR", stored, describe, bits_stored=12, **options)


PET_DOSE_BQ: Final = 370e6
PET_WEIGHT_KG: Final = 70.0
PET_HALF_LIFE_S: Final = 6586.2
PET_DELAY_S: Final = 3600.0


def injected_fluorine() -> Dataset:
    """Return the item of Radiopharmaceutical Information, without when it was given."""
    item = Dataset()
    item.RadionuclideTotalDose = PET_DOSE_BQ
    item.RadionuclideHalfLife = PET_HALF_LIFE_S
    return item


def write_pet_series(
    folder: Path,
    suv: NDArray[Any],
    *,
    decay_correction: Literal["START", "ADMIN"] = "START",
    **options: Unpack[SeriesOptions],
) -> list[Path]:
    """Write a PET series whose SUVbw are the given values, stored as BQML, one slope per slice.

    370 MBq of 18F given to 70 kg at 09:15:00, scanned at 10:15:00; with ``START`` the counts are
    corrected for decay to the start of the series, with ``ADMIN`` to the injection. Spaced by
    4 mm in all directions if not told otherwise; see `write_ct_series`.
    """
    options.setdefault("spacing", (4.0, 4.0))
    options.setdefault("slice_spacing", 4.0)
    suv = np.asarray(suv, dtype=np.float64)
    dose = PET_DOSE_BQ
    if decay_correction == "START":
        dose *= 2.0 ** (-PET_DELAY_S / PET_HALF_LIFE_S)
    becquerel_per_ml = suv * dose / (PET_WEIGHT_KG * 1000.0)
    slopes = np.maximum(becquerel_per_ml.max(axis=(1, 2)), 1.0) / 32767.0
    stored = np.rint(becquerel_per_ml / slopes[:, None, None]).astype(np.int16)

    def describe(ds: Dataset, index: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY"]
        ds.SeriesType, ds.Units, ds.CountsSource = ["WHOLE BODY", "IMAGE"], "BQML", "EMISSION"
        ds.DecayCorrection, ds.CorrectedImage = decay_correction, ["DECY", "ATTN"]
        ds.CollimatorType, ds.NumberOfSlices, ds.ImageIndex = "NONE", len(suv), index + 1
        ds.ReconstructionMethod, ds.AttenuationCorrectionMethod = "OSEM", "CT"
        ds.RandomsCorrectionMethod, ds.ScatterCorrectionMethod = "DLYD", ""
        ds.RescaleIntercept, ds.RescaleSlope = 0, f"{slopes[index]:.10g}"
        ds.FrameReferenceTime, ds.ActualFrameDuration, ds.DecayFactor = 0, 120000, 1
        ds.PatientWeight, ds.BodyPartExamined = PET_WEIGHT_KG, "WHOLEBODY"
        dose_item = injected_fluorine()
        dose_item.RadiopharmaceuticalStartTime = "091500"
        dose_item.Radiopharmaceutical = "Fluorodeoxyglucose"
        dose_item.RadionuclideCodeSequence = code("77004003", "SCT", "^18^Fluorine")
        ds.RadiopharmaceuticalInformationSequence = DicomSequence([dose_item])
        ds.PatientOrientationCodeSequence = code("102538003", "SCT", "recumbent")
        ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = code(
            "40199007", "SCT", "supine"
        )
        del ds.PatientPosition  # the orientation codes below stand in its place
        ds.PatientGantryRelationshipCodeSequence = code("102540008", "SCT", "headfirst")

    # The stored value is rounded to the DS text, so the tests compare within 1e-4 of the maximum.
    return _write_stack(folder, "PT", stored, describe, **options)


def write_two_phase_ct(
    folder: Path,
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    phase_keyword: str | None = "AcquisitionNumber",
    phase_values: tuple[Any, Any] = (1, 2),
    **options: Unpack[SeriesOptions],
) -> list[Path]:
    """Write one CT series in which each position occurs twice; phase 1's paths come first.

    ``phase_keyword`` names the attribute that tells the phases apart; with ``None`` only the
    Instance Number does.
    """
    options["study"] = options.get("study") or StudyIdentity()
    options["series_uid"] = new_uid()
    paths = []
    for number, volume in enumerate((first, second)):
        options["first_instance"] = 1 + number * len(first)
        if phase_keyword is not None:
            options["attributes"] = {phase_keyword: phase_values[number]}
        paths += write_ct_series(Path(folder) / f"phase{number + 1}", volume, **options)
    return paths


def write_localizer(
    folder: Path,
    *,
    study: StudyIdentity | None = None,
    series_uid: str | None = None,
    rows: int = 24,
    columns: int = 40,
) -> Path:
    """Write a coronal CT scout (Image Type value 3 LOCALIZER), e.g. into a given series."""
    return write_ct_series(
        Path(folder) / "localizer", np.zeros((1, rows, columns), np.int16), orientation=CORONAL,
        study=study, series_uid=series_uid, first_instance=900,
        attributes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    )[0]  # fmt: skip
