"""Read an object back from where it was stored, and compare it with what was sent."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from deploy.peer_step import Step
from dicom_node.errors import DicomNodeError, NothingTakenError
from dicom_node.objects.decoding import PixelError, decode
from dicom_node.objects.headers import UnreadableError, read_header
from dicom_node.services.retrieve_scu import Wanted
from dicom_node.uid_names import name_of_uid
from workflows.carriers import Carrier, DimseCarrier
from workflows.home import Home
from workflows.node import Node, open_node
from workflows.own_moves import may_any_store, move_here, senders_of, take_away, what_to_tell_it

__all__ = ["differences", "object_to_store", "read_back"]

_WHAT: Final = "test object read back"
_MOVE_SECONDS: Final = 60.0
# How the rest is written, not what it says.
_ENCODING: Final = frozenset({"SpecificCharacterSet", "PixelData"})


def object_to_store() -> Dataset:
    """Return a Secondary Capture Image of all grey values that nobody can take for a patient's."""
    now = datetime.now()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(None)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(None), generate_uid(None)
    dataset.PatientName, dataset.PatientID = "TEST^UNIBIOMED NODE", "UNIBIOMED-TEST"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.ReferringPhysicianName = ""
    dataset.StudyDate, dataset.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    dataset.StudyDescription = "Connection test of the UniBiomed node"
    dataset.SeriesDescription = "Letters beyond ASCII: Größe, naïve, señal"
    dataset.StudyID = dataset.AccessionNumber = ""
    dataset.Modality, dataset.ConversionType = "OT", "SYN"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.NominalScannedPixelSpacing = [0.25, 0.5]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.Rows = dataset.Columns = 16
    dataset.PixelData = bytes(range(256))
    return dataset


def read_back(home: Home, there: Carrier, sent: Path) -> Step:
    """Fetch what was stored from `sent`, by whichever way is offered, and compare the two.

    By C-GET or WADO-RS, or else by a C-MOVE to the node's own listener, if that runs.
    """
    header = dcmread(sent, stop_before_pixels=True)
    wanted = Wanted(
        str(header.StudyInstanceUID), str(header.SeriesInstanceUID), str(header.SOPInstanceUID)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            there.fetch(wanted, folder)
        except DicomNodeError as error:
            if not isinstance(there, DimseCarrier):
                return Step(_WHAT, False, error.sentence)
            # Some offer C-GET, and abort when it is asked for: Orthanc 1.10 where it is forbidden.
            return _moved_back(home, there, wanted, sent, error.sentence)
        return _compared(there.fetch_name, sent, folder)


def _moved_back(home: Home, there: DimseCarrier, wanted: Wanted, sent: Path, before: str) -> Step:
    """Have it sent to the listener of the node, which takes it for no study."""
    unknown = f"{there.find_name} alone tells that the object is there"
    if not home.listener_json.exists():
        said = (
            f"{before}; a C-MOVE would come to the node, which does not run. {unknown}; start the "
            "node and try again"
        )
        return Step(_WHAT, None, said)
    node = open_node(home, role="peers")
    folder = home.work / f"read-back-{wanted.instance}"
    try:
        senders = senders_of(node.settings, there.destination.name, there.destination.ae_title)
        if not may_any_store(node.settings, senders):
            said = (
                f"{before}; and by C-MOVE it could not bring anything here. {unknown}; list "
                f"{' or '.join(senders)} under peers in node.yaml, with allow: [echo, store]"
            )
            return Step(_WHAT, None, said)
        folder.mkdir()
        return _moved(node, there, wanted, sent, folder, senders)
    except NothingTakenError as error:
        return Step(_WHAT, None, f"{before}; {error.sentence}. {unknown}")
    except DicomNodeError as error:
        return Step(_WHAT, False, f"{before}; {error.sentence}")
    finally:
        take_away(folder)
        node.database.dispose()


def _moved(
    node: Node,
    there: DimseCarrier,
    wanted: Wanted,
    sent: Path,
    folder: Path,
    senders: Sequence[str],
) -> Step:
    got = move_here(
        node,
        there.destination,
        wanted,
        folder,
        senders=senders,
        longest_seconds=_MOVE_SECONDS,
    )
    if got.completed and not any(folder.iterdir()):
        said = (
            "it says that it moved the object, and none came here as moved: "
            f"{what_to_tell_it(node)} Or it leaves out Move Originator (0000,1030) and (0000,1031)"
        )
        return Step(_WHAT, False, said)
    return _compared("C-MOVE", sent, folder)


def _compared(way: str, sent: Path, folder: Path) -> Step:
    came = next(iter(folder.iterdir()), None)
    if came is None:
        return Step(_WHAT, False, f"its {way} brought nothing")
    try:
        same, differ, added = differences(sent, came)
    except (InvalidDicomError, UnreadableError, PixelError) as error:
        return Step(_WHAT, False, f"what came by {way} cannot be read: {error}")
    if differ:
        return Step(_WHAT, False, f"by {way}: what came back differs: {', '.join(differ)}")
    syntax = name_of_uid(str(read_header(came).dataset.file_meta.TransferSyntaxUID))
    said = f"by {way}: {same} elements and all pixels are as they were sent, in {syntax}"
    return Step(_WHAT, True, f"{said}; it added {', '.join(added)}" if added else said)


def differences(sent: Path, came: Path) -> tuple[int, list[str], list[str]]:
    """Compare two files by what they say, not by how they are encoded.

    Returns
    -------
    tuple
        How many elements are the same; which differ or are missing, by their keywords, with the
        number of pixels; and which were added.

    Raises
    ------
    InvalidDicomError, UnreadableError, PixelError
        One of them cannot be read.
    """
    ours, theirs = dcmread(sent), dcmread(came)
    differ, same = [], 0
    for element in ours:
        if element.keyword in _ENCODING:
            continue
        other = theirs.get(element.tag)
        if other is not None and other.value == element.value:
            same += 1
        else:
            differ.append(
                f"{element.keyword or element.tag} {'changed' if other else 'is missing'}"
            )
    before, after = (decode(path, read_header(path).dataset).values for path in (sent, came))
    if before.shape != after.shape:
        differ.append(f"{after.shape} pixels in place of {before.shape}")
    elif wrong := np.count_nonzero(before != after):
        differ.append(f"{wrong} of {before.size} pixels changed")
    added = [
        element.keyword or str(element.tag)
        for element in theirs
        if element.tag not in ours and element.keyword not in _ENCODING
    ]
    return same, differ, added
