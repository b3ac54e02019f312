"""What an enhanced multi-frame image says of each of its frames (PS3.3 C.7.6.16).

Every frame becomes a header of its own, with the keywords that single-frame images use. So one way
of sorting slices, telling phases apart and rescaling values serves both forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement

from dicom_node.objects.calibration import number
from dicom_node.objects.headers import Header
from dicom_node.objects.storage_classes import PET_CLASSES

# What every frame takes from its instance: identity, image pixel module, and what SUV needs.
_OF_THE_INSTANCE: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "ImageType",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "WindowCenter",
    "WindowWidth",
    "PixelSpacing",
    "SliceThickness",
    "Units",
    "SUVType",
    "CorrectedImage",
    "DecayCorrection",
    "DecayCorrected",
    "DecayCorrectionDateTime",
    "AttenuationCorrected",
    "PatientWeight",
    "RadiopharmaceuticalInformationSequence",
    "StudyDate",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
)

# The macros that are looked into; of each the first item counts.
_MACROS: Final = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "PixelMeasuresSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "PlanePositionVolumeSequence",
    "PlaneOrientationVolumeSequence",
    "ImageDataTypeSequence",
    "USImageDescriptionSequence",
    "FrameContentSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "XRay3DFrameTypeSequence",
    "MREchoSequence",
    "MRModifierSequence",
    "MRDiffusionSequence",
    "CardiacSynchronizationSequence",
    "TemporalPositionSequence",
    "PETPositionSequence",
)

# Sequences that a converter may have moved into the groups.
_KEPT_SEQUENCES: Final = frozenset(
    {"RadiopharmaceuticalInformationSequence", "ModalityLUTSequence", "VOILUTSequence"}
)

# The name that single-frame images have for the same thing.
_SINGLE_FRAME_NAMES: Final[Mapping[str, str]] = {
    "FrameType": "ImageType",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "TemporalPositionTimeOffset": "TemporalPositionIdentifier",
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
}


# UCUM codes of CID 84 and 85, as Units (0054,1001) has them.
_PET_UNITS: Final[Mapping[str, str]] = {
    "Bq/ml": "BQML",
    "{SUVbw}g/ml": "GML",
    "g/ml{SUVbw}": "GML",
    "g/ml": "GML",
}


class FunctionalGroupsError(Exception):
    """The functional groups contradict the image; the text is a sentence."""


def frame_headers(header: Header) -> list[Header]:
    """Return a header for each frame of an enhanced image; none where nothing is said of frames.

    Raises
    ------
    FunctionalGroupsError
        Other frames are described than there are.
    """
    dataset = header.dataset
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    frames = int(number(dataset, "NumberOfFrames") or 1)
    if not per_frame:
        return []
    if len(per_frame) != frames:
        raise FunctionalGroupsError(
            f"Number of Frames (0028,0008) is {frames}, but Per-Frame Functional Groups Sequence "
            f"(5200,9230) describes {len(per_frame)}."
        )
    base = instance_header(dataset)
    for item in dataset.get("SharedFunctionalGroupsSequence") or ():
        _add_macros(base, item)
    headers = [
        replace(header, dataset=_frame(base, groups, index), frame=index)
        for index, groups in enumerate(per_frame)
    ]
    if str(dataset.SOPClassUID) in PET_CLASSES:
        for one in headers:
            _name_pet_values(one.dataset)
    return headers


def instance_header(dataset: Dataset) -> Dataset:
    """Return what every frame takes from its instance, the elements shared."""
    base = Dataset()
    for keyword in _OF_THE_INSTANCE:
        if keyword in dataset:
            base.add(dataset[keyword])
    return base


def _frame(base: Dataset, groups: Dataset, index: int) -> Dataset:
    frame = Dataset()
    for element in base:
        # Shared, not copied: nothing changes a header after it was read.
        frame.add(element)
    _add_macros(frame, groups)
    _place_in_volume(frame)
    frame.InstanceNumber = index + 1
    return frame


def _place_in_volume(frame: Dataset) -> None:
    """Take the place in the volume for one in the patient, where ultrasound knows no other.

    Distances and volumes are the same in either. Its frame of reference is that of the volume
    (PS3.3 C.8.24.2), which says nothing of where the patient lies: none is named.
    """
    if "ImagePositionPatient" in frame or "ImagePositionVolume" not in frame:
        return
    frame.ImagePositionPatient = list(frame.ImagePositionVolume)
    if "ImageOrientationVolume" in frame:
        frame.ImageOrientationPatient = list(frame.ImageOrientationVolume)
    if "FrameOfReferenceUID" in frame:
        del frame.FrameOfReferenceUID


def _name_pet_values(frame: Dataset) -> None:
    """Say under the names of single-frame PET what an enhanced one says (PS3.3 C.8.22, C.7.6.16).

    Its unit stands in the real world value mapping, and counts are corrected for decay to a time
    of their own.
    """
    mapping = next(iter(frame.get("RealWorldValueMappingSequence") or ()), Dataset())
    code = next(iter(mapping.get("MeasurementUnitsCodeSequence") or ()), Dataset())
    unit = _PET_UNITS.get(str(code.get("CodeValue") or ""))
    slope = number(mapping, "RealWorldValueSlope")
    if "Units" not in frame and unit is not None and slope is not None:
        frame.Units = unit
        frame.RescaleSlope = f"{slope:.10g}"
        frame.RescaleIntercept = f"{number(mapping, 'RealWorldValueIntercept') or 0.0:.10g}"
    done = [
        name
        for keyword, name in (("AttenuationCorrected", "ATTN"), ("DecayCorrected", "DECY"))
        if frame.get(keyword) == "YES"
    ]
    if done and "CorrectedImage" not in frame:
        frame.CorrectedImage = done
    moment = str(frame.get("DecayCorrectionDateTime") or "")
    if len(moment) >= 14 and "DecayCorrection" not in frame:
        frame.DecayCorrection = "START"
        frame.SeriesDate = frame.AcquisitionDate = moment[:8]
        frame.SeriesTime = frame.AcquisitionTime = moment[8:14]


def _add_macros(target: Dataset, groups: Dataset) -> None:
    """Add the attributes of one item of functional groups to a header."""
    for macro in _MACROS:
        item = next(iter(groups.get(macro) or ()), Dataset())
        for element in item:
            is_kept = element.VR != "SQ" or element.keyword in _KEPT_SEQUENCES
            if is_kept and element.value not in (None, ""):
                target.add(_renamed(element))
    # Kept whole: its slope and unit belong together.
    if groups.get("RealWorldValueMappingSequence"):
        target.add(groups["RealWorldValueMappingSequence"])


def _renamed(element: DataElement) -> DataElement:
    name = _SINGLE_FRAME_NAMES.get(element.keyword)
    tag = None if name is None else tag_for_keyword(name)
    if name is None or tag is None:
        return element
    value = element.value
    if name in ("InversionTime", "TemporalPositionIdentifier") and isinstance(value, (list, tuple)):
        value = value[0]
    vr = {"ImageType": "CS", "AcquisitionNumber": "IS", "TemporalPositionIdentifier": "DS"}
    return DataElement(tag, vr.get(name, "DS"), value)
