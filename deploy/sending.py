"""Send a folder of DICOM files by C-STORE: the command ``send``, and the demo's scanner."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import DicomNodeError
from dicom_node.services.association import Destination
from dicom_node.services.storage_scu import StoreStatus
from dicom_node.services.storage_scu import send as send_files

__all__ = ["AddressError", "SendError", "Sent", "files_under", "parse_address", "send_folder"]

_ADDRESS = re.compile(r"(?P<ae>[^@]{1,16})@(?P<host>\[[0-9A-Fa-f:]+\]|[^:@\s]+):(?P<port>\d{1,5})")
_MOST_SENTENCES = 10


class AddressError(Exception):
    """The address is not of the form AE@host:port; the text is a sentence."""


class SendError(Exception):
    """Nothing could be sent, or the sending broke off; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How many objects were to be sent, and how many the receiver took."""

    total: int
    stored: int


def parse_address(text: str) -> Destination:
    """Return the application entity that ``AE@host:port`` names.

    Raises
    ------
    AddressError
        The text is something else.
    """
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or not 0 < int(match["port"]) < 65536:
        raise AddressError(
            f"{text!r} is no address; write AE@host:port, such as UNIBIOMED@127.0.0.1:11112"
        )
    return Destination(text.strip(), match["ae"], match["host"].strip("[]"), int(match["port"]))


def files_under(path: Path) -> list[Path]:
    """Return the file, or all files of the folder and its sub-folders, sorted.

    Raises
    ------
    SendError
        There is nothing at `path`, or no file in it.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SendError(f"There is no file or folder {path}.")
    files = sorted(found for found in path.rglob("*") if found.is_file())
    if not files:
        raise SendError(f"There is no file in {path}.")
    return files


def send_folder(path: Path, to: str, sender: str, say: Callable[[str], None]) -> Sent:
    """Send one file, or all DICOM files under a folder.

    Parameters
    ----------
    path
        The file or folder. Files that are no DICOM instances are passed over.
    to
        ``AE@host:port``.
    sender
        The AE title to send as.
    say
        Receives a sentence for each object that was not stored, and for what was passed over.

    Raises
    ------
    AddressError
        `to` is no address.
    SendError
        There is nothing to send, or the association was refused or lost.
    """
    destination = parse_address(to)
    files = files_under(path)
    statuses: list[StoreStatus] = []
    try:
        send_files(
            files,
            destination,
            calling_ae_title=sender,
            stop_on_failure=False,
            on_status=statuses.append,
        )
    except DicomNodeError as error:
        done = sum(status.is_stored for status in statuses)
        raise SendError(f"{error.sentence} ({done} of {len(files)} were stored before.)") from error
    instances = [status for status in statuses if status.sop_instance_uid]
    if not instances:
        raise SendError(f"There is no DICOM instance in {path}: {statuses[0].sentence}")
    if passed_over := len(files) - len(instances):
        say(f"Passed over {passed_over} files that are no DICOM instances.")
    refused = [status for status in instances if not status.is_stored]
    for status in refused[:_MOST_SENTENCES]:
        say(f"{status.path.name}: {status.sentence}")
    if len(refused) > _MOST_SENTENCES:
        say(f"... and {len(refused) - _MOST_SENTENCES} more were not stored.")
    return Sent(len(instances), len(instances) - len(refused))
