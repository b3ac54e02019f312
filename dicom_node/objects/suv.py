"""Standardised uptake value from the header of a PET series (PS3.3 C.8.9.1).

The arithmetic follows the vendor-neutral pseudo-code of QIBA's FDG-PET/CT profile: SUVbw is the
activity concentration times body weight over the injected dose, decayed to the time to which the
counts were corrected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pydicom import Dataset

from dicom_node.objects.calibration import number
from dicom_node.objects.decoding import PixelError

_BODY_WEIGHT_TYPES: Final = frozenset({"", "BW"})
# A dose below this is in MBq or mCi; heavier and lighter patients than these do not exist.
_SMALLEST_DOSE_BQ: Final = 1e5
_LIGHTEST_KG: Final = 0.3
_HEAVIEST_KG: Final = 600.0
_LONGEST_DECAY_HALF_LIVES: Final = 20.0
_DAY: Final = timedelta(days=1)


def suv_factor(headers: Sequence[Dataset]) -> tuple[float, str]:
    """Return the factor from rescaled values to SUVbw in g/ml, and how it was found.

    Parameters
    ----------
    headers
        Attributes of all slices of one PET volume.

    Raises
    ------
    PixelError
        The header does not give SUVbw; the sentence names the attribute.
    """
    first = headers[0]
    units = str(first.get("Units") or "").strip().upper()
    if units == "GML":
        suv_type = str(first.get("SUVType") or "").strip().upper()
        if suv_type not in _BODY_WEIGHT_TYPES:
            raise _refusal(f"SUV Type (0054,1006) is {suv_type}, not BW (body weight)")
        return 1.0, "SUVbw as stored: Units (0054,1001) GML"
    if units == "CNTS":
        return _philips_factor(first)
    if units != "BQML":
        raise _refusal(f"Units (0054,1001) is {units or 'absent'}, not BQML or GML")
    _require_corrections(first)
    weight = _between(
        first, "PatientWeight", "Patient's Weight (0010,1030)", _LIGHTEST_KG, _HEAVIEST_KG
    )
    item = _dose_item(first)
    dose = _between(
        item, "RadionuclideTotalDose", "Radionuclide Total Dose (0018,1074)",
        _SMALLEST_DOSE_BQ, 1e13,
    )  # fmt: skip
    half_life = _between(
        item, "RadionuclideHalfLife", "Radionuclide Half Life (0018,1075)", 1.0, 1e9
    )
    decay, how = _decay_seconds(headers, item, half_life)
    factor = weight * 1000.0 / (dose * 2.0 ** (-decay / half_life))
    return factor, (
        f"SUVbw = Bq/ml x {weight:g} kg / {dose:.6g} Bq decayed over {decay:.0f} s "
        f"with half-life {half_life:g} s ({how}); factor {factor:.8g}"
    )


def _refusal(reason: str) -> PixelError:
    return PixelError(f"No SUV can be computed for this PET series: {reason}.")


def _require_corrections(dataset: Dataset) -> None:
    value = dataset.get("CorrectedImage") or ()
    done = {str(v).strip().upper() for v in ([value] if isinstance(value, str) else value)}
    for code, meaning in (("ATTN", "attenuation"), ("DECY", "decay")):
        if code not in done:
            raise _refusal(
                f"Corrected Image (0028,0051) does not list {code}: it is not corrected for "
                f"{meaning}"
            )


def _between(dataset: Dataset, keyword: str, name: str, low: float, high: float) -> float:
    value = number(dataset, keyword)
    if value is None:
        raise _refusal(f"{name} is absent or empty")
    if not low <= value <= high:
        raise _refusal(f"{name} is {value:g}, which cannot be")
    return value


def _dose_item(dataset: Dataset) -> Dataset:
    items: list[Dataset] = list(dataset.get("RadiopharmaceuticalInformationSequence") or ())
    if len(items) != 1:
        raise _refusal(
            "Radiopharmaceutical Information Sequence (0054,0016) has "
            f"{len(items)} items where one is needed"
        )
    return items[0]


def _decay_seconds(
    headers: Sequence[Dataset], item: Dataset, half_life: float
) -> tuple[float, str]:
    """Return how long the dose decayed until the time to which the counts were corrected."""
    correction = str(headers[0].get("DecayCorrection") or "").strip().upper()
    if correction == "ADMIN":
        return 0.0, "counts are corrected to the administration"
    if correction != "START":
        raise _refusal(
            f"Decay Correction (0054,1102) is {correction or 'absent'}, not START or ADMIN"
        )
    scan, how = _reference_time(headers, half_life)
    given = _administration(item, scan)
    decay = (scan - given).total_seconds()
    if not 0.0 <= decay <= _LONGEST_DECAY_HALF_LIVES * half_life:
        raise _refusal(
            f"the injection ({given:%H:%M:%S}) and the scan ({scan:%H:%M:%S}) are {decay:.0f} s "
            "apart by Radiopharmaceutical Start Time (0018,1072) and Series Time (0008,0031)"
        )
    return decay, how


def _reference_time(headers: Sequence[Dataset], half_life: float) -> tuple[datetime, str]:
    """Return the time to which START corrects.

    The series' start, unless the series was made after its acquisition (a derived series states
    its own time): then the start is worked out from the acquisition and Frame Reference Time.
    """
    first = headers[0]
    series = _moment(first, "SeriesDate", "SeriesTime")
    acquired = [
        (moment, header)
        for header in headers
        if (moment := _moment(header, "AcquisitionDate", "AcquisitionTime")) is not None
    ]
    if series is not None and all(series <= moment for moment, _ in acquired):
        return series, "counts are corrected to the start of the series"
    if not acquired:
        raise _refusal(
            "Series Time (0008,0031) and Acquisition Time (0008,0032) are absent: the time to "
            "which the counts were corrected is unknown"
        )
    earliest, header = min(acquired, key=lambda pair: pair[0])
    reference = number(header, "FrameReferenceTime")
    duration = number(header, "ActualFrameDuration")
    if reference is None or duration is None or reference <= 0.0 or duration <= 0.0:
        return earliest, "counts are taken as corrected to the first acquisition"
    # Mean count rate of a frame is reached at this time after its start (QIBA 3.2).
    during = math.log(2.0) / half_life * duration / 1000.0
    average = half_life / math.log(2.0) * math.log(during / -math.expm1(-during))
    return (
        earliest + timedelta(seconds=average - reference / 1000.0),
        "counts are corrected to the start worked out from Frame Reference Time",
    )


def _administration(item: Dataset, scan: datetime) -> datetime:
    """Return when the dose was given; de-identified files often keep only its time of day."""
    stated = _parse(str(item.get("RadiopharmaceuticalStartDateTime") or ""))
    if stated is not None and timedelta(0) <= scan - stated <= _DAY:
        return stated
    text = str(item.get("RadiopharmaceuticalStartTime") or "")
    given = _parse(f"{scan:%Y%m%d}{text.replace(':', '')}") if text else stated
    if given is None:
        raise _refusal("Radiopharmaceutical Start Time (0018,1072) is absent or unreadable")
    # Given before midnight, scanned after it.
    return given - _DAY if text and given > scan else given


def _moment(dataset: Dataset, date: str, time: str) -> datetime | None:
    day = str(dataset.get(date) or dataset.get("StudyDate") or "").replace(".", "")
    clock = str(dataset.get(time) or "").replace(":", "")
    return _parse(day + clock) if len(day) == 8 and clock else None


def _parse(text: str) -> datetime | None:
    """Parse YYYYMMDDHHMMSS[.ffffff]; an offset from UTC is left out: all times are of one place."""
    text = text.strip().split("+")[0].split("-")[0]
    whole, _, part = text.partition(".")
    try:
        moment = datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S")
        return moment + timedelta(seconds=float(f"0.{part}")) if part else moment
    except ValueError:
        return None


def _philips_factor(dataset: Dataset) -> tuple[float, str]:
    """Return Philips' own SUV scale factor (7053,xx00) for counts."""
    try:
        block = dataset.private_block(0x7053, "Philips PET Private Group")
        value = block[0x00].value
        factor = float(value.decode("ascii") if isinstance(value, bytes) else value)
    except (KeyError, TypeError, ValueError, UnicodeDecodeError):
        factor = 0.0
    if not math.isfinite(factor) or factor <= 0.0:
        raise _refusal(
            "Units (0054,1001) is CNTS and Philips' SUV scale factor (7053,1000) is absent"
        )
    return factor, f"SUVbw by Philips' scale factor (7053,1000) {factor:g}"
