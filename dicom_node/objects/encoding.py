"""Result objects as files: PS3.10 bytes, the same each time for the same object."""

from __future__ import annotations

from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


def new_object(sop_class_uid: str, modality: str) -> Dataset:
    """Return an empty object of a class, to be written in Explicit VR Little Endian."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = UID(sop_class_uid)
    dataset.Modality = modality
    return dataset


def encode(dataset: Dataset) -> bytes:
    """Return a result object as the bytes of a DICOM file (PS3.10 section 7).

    The file meta information names this project as the implementation. The transfer syntax is the
    one the object was built for: Explicit VR Little Endian, or RLE Lossless for a label map.

    Parameters
    ----------
    dataset
        A built object; not changed.
    """
    built_for = getattr(dataset, "file_meta", None)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = (
        built_for.TransferSyntaxUID
        if built_for is not None and "TransferSyntaxUID" in built_for
        else ExplicitVRLittleEndian
    )
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    plain = Dataset(dataset)
    plain.file_meta = meta
    plain.preamble = b"\x00" * 128
    if any(element.is_raw for element in plain.elements()):
        # Encoded already, for just this transfer syntax: not to be parsed and written again.
        plain.set_original_encoding(False, True, plain._character_set)
    buffer = BytesIO()
    dcmwrite(buffer, plain, enforce_file_format=True)
    return buffer.getvalue()
