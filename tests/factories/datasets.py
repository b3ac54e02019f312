"""Data sets, pixel data and files: what the writers of this package are made of."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, FileMetaDataset, dcmwrite
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

REMOVE: Final = object()
"""As the value of an override: take the attribute out of the data set."""

SOP_CLASSES: Final[Mapping[str, str]] = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
    "ES": "1.2.840.10008.5.1.4.1.1.77.1.1",
    "GM": "1.2.840.10008.5.1.4.1.1.77.1.2",
    "XC": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "DMS": "1.2.840.10008.5.1.4.1.1.77.1.7",
    "OP": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
    "SR": "1.2.840.10008.5.1.4.1.1.88.11",
}


def new_uid() -> str:
    """Return a fresh UID under 2.25."""
    return str(generate_uid(prefix="2.25."))


@dataclass(frozen=True)
class StudyIdentity:
    """Patient and study attributes that the instances of one study share."""

    study_instance_uid: str = field(default_factory=new_uid)
    frame_of_reference_uid: str = field(default_factory=new_uid)
    patient_id: str = "PHANTOM-1"
    patient_name: str = "Phantom^Water"
    patient_birth_date: str = "19700101"
    patient_sex: str = "O"
    accession_number: str = "A100"
    study_id: str = "1"
    study_date: str = "20260102"
    study_time: str = "101500"
    study_description: str = "Simulated"


def code(value: str, scheme: str, meaning: str) -> DicomSequence:
    """Return a code sequence of one item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return DicomSequence([item])


def base_dataset(sop_class: str, modality: str, study: StudyIdentity | None = None) -> FileDataset:
    """Return a data set with the patient, study, series, equipment and SOP common modules."""
    study = study or StudyIdentity()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = UID(sop_class), UID(new_uid())
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study.study_instance_uid, new_uid()
    ds.PatientID, ds.PatientName = study.patient_id, study.patient_name
    ds.PatientBirthDate, ds.PatientSex = study.patient_birth_date, study.patient_sex
    ds.AccessionNumber, ds.StudyID = study.accession_number, study.study_id
    ds.StudyDate, ds.StudyTime = study.study_date, study.study_time
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = study.study_date
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = study.study_time
    ds.StudyDescription, ds.ReferringPhysicianName = study.study_description, ""
    ds.Modality, ds.Manufacturer = modality, "UniBiomed simulation"
    ds.ManufacturerModelName, ds.InstitutionName = "Phantom", "Simulated hospital"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    return ds


def decimal_strings(values: Iterable[float]) -> list[str]:
    """Return numbers as DS, which has room for 16 characters (PS3.5 section 6.2)."""
    return [f"{value:.10g}"[:16] for value in values]


def even(data: bytes) -> bytes:
    """Return bytes as a value of OB or OW: of even length (PS3.5 section 7.1.1)."""
    return data + b"\0" * (len(data) % 2)


def pixel_bytes(pixels: NDArray[Any]) -> bytes:
    """Return pixels as Pixel Data holds them, uncompressed: little endian, of even length."""
    return even(np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes())


def override(ds: Dataset, attributes: Mapping[str, Any] | None) -> None:
    """Set the given keywords; ``REMOVE`` deletes them."""
    for keyword, value in (attributes or {}).items():
        if value is not REMOVE:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)


def set_pixels(ds: Dataset, pixels: NDArray[Any], *, photometric: str, bits_stored: int) -> None:
    """Put one frame (rows, columns[, 3]) into a data set, uncompressed."""
    signed = np.issubdtype(pixels.dtype, np.signedinteger)
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated, ds.BitsStored = pixels.dtype.itemsize * 8, bits_stored
    ds.HighBit, ds.PixelRepresentation = bits_stored - 1, int(signed)
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PixelData = pixel_bytes(pixels)
    ds["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"


def save(ds: FileDataset, path: Path, *, transfer_syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a file in DICOM File Format, encoded or compressed in the given transfer syntax."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    syntax = UID(transfer_syntax)
    if syntax.is_compressed and not syntax.is_deflated:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    little = syntax.is_little_endian
    if not little and ds.get("BitsAllocated") == 16 and "PixelData" in ds:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    dcmwrite(
        path,
        ds,
        enforce_file_format=True,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=little,
    )
    return path


def write_text_report(
    path: Path, *, study: StudyIdentity | None = None, text: str = "No pixel data here."
) -> Path:
    """Write a Basic Text SR: an object without pixel data."""
    ds = base_dataset(SOP_CLASSES["SR"], "SR", study)
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.ReferencedPerformedProcedureStepSequence = DicomSequence()
    ds.PerformedProcedureCodeSequence = DicomSequence()
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = code("18748-4", "LN", "Diagnostic imaging report")
    item = Dataset()
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", text
    item.ConceptNameCodeSequence = code("121071", "DCM", "Finding")
    ds.ContentSequence = DicomSequence([item])
    del ds.ImageType
    return save(ds, path)


def truncate(path: Path, *, keep: float = 0.5) -> Path:
    """Cut a file off after the given part of its length, in place."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def strip_meta(path: Path) -> Path:
    """Remove preamble and file meta information: a bare data set, as old archives keep it."""
    data = path.read_bytes()
    group_length = struct.unpack("<I", data[140:144])[0]
    path.write_bytes(data[144 + group_length :])
    return path
