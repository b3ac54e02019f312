"""What lies there big endian goes out little endian with the same values."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian
from pynetdicom import build_context, evt

from dicom_node.byte_order import turn_to_little_endian
from dicom_node.services.dicomweb.files import whole_file
from dicom_node.services.dicomweb.frames import encoded_frames
from dicom_node.services.dicomweb.multipart import media_type
from dicom_node.services.storage_scu import send
from tests.dicom_node.services.conftest import Serve

FILES = (
    "cornerstone3D/CTImage.dcm_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm",
    "dcm_qa_ts/3.dcm",
    "pydicom/MR_small_bigendian.dcm",
    "pydicom/ExplVR_BigEnd.dcm",
    "pydicom/SC_rgb_small_odd_big_endian.dcm",
)


def written(dataset: Dataset, *, little: bool) -> bytes:
    out = BytesIO()
    dataset.save_as(out, implicit_vr=False, little_endian=little, enforce_file_format=True)
    return out.getvalue()


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20), st.integers(0, 65535))
def test_values_stay_the_same(pixels: list[int], rows: int) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.PatientName, dataset.Rows = "A^B", rows
    item = Dataset()
    item.add_new("VectorGridData", "OF", np.array(pixels, ">f4").tobytes())
    item.add_new("Columns", "US", rows)
    dataset.DeformableRegistrationGridSequence = [item]
    dataset.add_new("PixelData", "OW", np.array(pixels, ">u2").tobytes())
    read = dcmread(BytesIO(written(dataset, little=False)))
    turn_to_little_endian(read)
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    again = dcmread(BytesIO(written(read, little=True)))
    assert np.frombuffer(again.PixelData, "<u2").tolist() == pixels
    inner = again.DeformableRegistrationGridSequence[0]
    assert np.frombuffer(inner.VectorGridData, "<f4").tolist() == pixels
    assert (again.Rows, inner.Columns, again.PatientName) == (rows, rows, "A^B")


@pytest.mark.parametrize("name", FILES)
def test_real_files_by_dimse_and_by_web(
    name: str, shared_data: Path, serve: Serve, tmp_path: Path
) -> None:
    path = shared_data / "dicom" / name
    stored = dcmread(path)
    came: list[Dataset] = []

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        came.append(dataset)
        return 0

    for syntax in (ExplicitVRLittleEndian, "1.2.840.10008.1.2"):
        destination = serve(
            (evt.EVT_C_STORE, store), contexts=[build_context(stored.SOPClassUID, syntax)]
        )
        [status] = send([path], destination, calling_ae_title="ME", transcode=True)
        assert status.verdict == "stored", status.sentence
        assert came[-1].file_meta.TransferSyntaxUID == syntax
        assert (came[-1].pixel_array == stored.pixel_array).all()
        assert came[-1].Rows == stored.Rows
    _, pieces = whole_file(path, [ExplicitVRLittleEndian])
    fetched = dcmread(BytesIO(b"".join(pieces)))
    assert (fetched.pixel_array == stored.pixel_array).all()
    [frame] = encoded_frames(path, [1], [media_type("application/octet-stream")]).frames
    little = stored.pixel_array.astype(stored.pixel_array.dtype.newbyteorder("<"))
    assert frame.startswith(little.tobytes())
