"""Storage and Verification SCU: send files, ask whether a peer is there (PS3.4 A, B)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from dicom_node.byte_order import is_big_endian, turn_to_little_endian
from dicom_node.counters import OBJECTS_SENT
from dicom_node.errors import FinalError, NothingTakenError, RetriableError
from dicom_node.part10 import read_file_meta
from dicom_node.services.association import (
    MAX_PROPOSED_CONTEXTS,
    UNCOMPRESSED,
    VERIFICATION,
    Destination,
)
from dicom_node.services.command_set import Originator
from dicom_node.services.dialling import dial
from dicom_node.uid_names import name_of_uid

Verdict = Literal["stored", "warning", "retry", "final"]

_EXPLICIT, _IMPLICIT = UNCOMPRESSED
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_DIRECTORY: Final = "1.2.840.10008.1.3.10"

CLASS_REFUSED: Final = 0x0122
NOT_AUTHORISED: Final = 0x0124
# PS3.7 annex C: statuses of any service that a C-STORE may be answered with, and what they ask for.
GENERAL_STATUSES: Final[Mapping[int, tuple[Verdict, str]]] = {
    0x0000: ("stored", "stored"),
    0x0001: ("warning", "stored, with optional attributes not supported"),
    0x0107: ("warning", "stored, with attributes it does not know"),
    0x0110: ("retry", "it failed while processing; its log knows more"),
    0x0111: ("warning", "it says that it has an instance with this UID already"),
    0x0116: ("warning", "stored, with attribute values out of range"),
    CLASS_REFUSED: ("final", "it does not take this SOP class"),
    NOT_AUTHORISED: ("final", "we are not authorised to store there"),
    0x0213: ("retry", "it has no resources for it now"),
}
# PS3.4 Table B.2-1: first and last of each kind.
STATUS_RANGES: Final[Mapping[tuple[int, int], tuple[Verdict, str]]] = {
    (0xB000, 0xBFFF): ("warning", "stored, but it changed or dropped something"),
    (0xA700, 0xA7FF): ("retry", "it is out of resources"),
    (0xA900, 0xA9FF): ("final", "it finds that the object does not match its SOP class"),
    (0xC000, 0xCFFF): ("final", "it cannot understand the object"),
}


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What became of one file.

    Attributes
    ----------
    path : Path
        The file.
    sop_instance_uid, sop_class_uid : str
        Of the file; empty when it could not be read.
    status : int or None
        Of the C-STORE-RSP; None when the file was not sent.
    verdict : {"stored", "warning", "retry", "final"}
        ``warning`` is stored, too. ``retry``: the same may succeed later. ``final``: it will not.
    sentence : str
        For an administrator.
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    status: int | None
    verdict: Verdict
    sentence: str

    @property
    def is_class_refused(self) -> bool:
        """Whether the peer takes no object of this class: no context for it, or status 0122."""
        return (
            self.verdict == "final"
            and self.status in (None, CLASS_REFUSED)
            and bool(self.sop_class_uid)
        )

    @property
    def is_stored(self) -> bool:
        """Whether the peer has the object."""
        return self.verdict in ("stored", "warning")


@dataclass(frozen=True, slots=True)
class EchoResult:
    """Answer to a C-ECHO: whether the peer is there, the seconds it took, and a sentence.

    The seconds are 0 of a peer that is there, but takes no C-ECHO; the sentence says so.
    """

    ok: bool
    seconds: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Item:
    """A file to send: what its context must offer."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    has_meta: bool

    def contexts(self, *, transcode: bool = False) -> list[tuple[str, str]]:
        """Return (class, transfer syntax) pairs to propose, the file's own syntax first."""
        syntaxes = [self.transfer_syntax_uid]
        if self.transfer_syntax_uid in (_EXPLICIT, _DEFLATED):
            syntaxes.append(_IMPLICIT)
        elif self.transfer_syntax_uid == _IMPLICIT:
            syntaxes.append(_EXPLICIT)
        if transcode and (self.is_compressed or is_big_endian(self.transfer_syntax_uid)):
            syntaxes += UNCOMPRESSED
        return [(self.sop_class_uid, syntax) for syntax in syntaxes]

    @property
    def is_compressed(self) -> bool:
        """Whether the pixel data must be decoded to be sent in an uncompressed syntax."""
        return self.transfer_syntax_uid not in (_EXPLICIT, _IMPLICIT, _DEFLATED, _BIG_ENDIAN)


def send(
    files: Sequence[Path],
    destination: Destination,
    *,
    calling_ae_title: str,
    stop_on_failure: bool = True,
    on_status: Callable[[StoreStatus], None] | None = None,
    transcode: bool = False,
    originator: Originator | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[StoreStatus]:
    """Send files in the given order, as the bytes that they are.

    All go over one association as long as their classes and transfer syntaxes fit into its 128
    presentation contexts. Where the peer does not take a file's own syntax, it is recoded between
    the uncompressed little endian ones; compressed and big endian files only if ``transcode`` says
    so.

    Parameters
    ----------
    files : sequence of Path
        Files that depend on others (an SR on its SEG) come after them.
    destination : Destination
        Whom to send to.
    calling_ae_title : str
        Ours.
    stop_on_failure : bool
        Whether the files after one that was not stored are left unsent (their verdict is "retry").
    on_status : callable, optional
        Called with each status as it comes.
    transcode : bool
        Whether compressed files are decompressed, and big endian ones turned, for a peer that does
        not take their syntax.
    originator : Originator, optional
        Who asked for this by a C-MOVE.
    is_cancelled : callable
        Asked before each file; once true, the files that are left stay unsent.

    Returns
    -------
    list of StoreStatus
        One for each file, in their order.

    Raises
    ------
    RetriableError
        No association now, or it was lost: statuses so far went to ``on_status``.
    FinalError
        The association was refused for good, or nothing of what was offered is taken.
    """
    statuses: dict[int, StoreStatus] = {}

    def note(index: int, status: StoreStatus) -> None:
        statuses[index] = status
        if on_status is not None:
            on_status(status)

    items: list[tuple[int, Item]] = []
    for index, path in enumerate(files):
        try:
            items.append((index, read_item(path)))
        except FinalError as error:
            note(index, StoreStatus(path, "", "", None, "final", error.sentence))
    failed = next((s for s in statuses.values() if stop_on_failure), None)
    for group, contexts in _associations(items, transcode=transcode):
        if (failed is not None and stop_on_failure) or is_cancelled():
            break
        with dial(destination, contexts, calling_ae_title=calling_ae_title) as association:
            for index, item in group:
                if is_cancelled():
                    break
                status = store(association, item, destination, originator=originator)
                note(index, status)
                if not status.is_stored and stop_on_failure:
                    failed = status
                    break
    for index, item in items:
        if index not in statuses:
            why = "not sent, because it was cancelled"
            if failed is not None and stop_on_failure:
                why = f"not sent, because {failed.path.name} was not stored"
            note(index, _unsent(item, "retry", why))
    return [statuses[index] for index in sorted(statuses)]


def verify(destination: Destination, calling_ae_title: str) -> EchoResult:
    """Ask a peer by C-ECHO whether it is there; failures are told, not raised."""
    began = time.monotonic()
    try:
        context = build_context(VERIFICATION, list(UNCOMPRESSED))
        with dial(destination, [context], calling_ae_title=calling_ae_title) as association:
            status = association.send_c_echo().get("Status")
    except NothingTakenError:
        # Not every PACS lets everybody verify; that it accepted the association tells the same.
        words = f"{destination} answers, but does not take Verification (C-ECHO)"
        return EchoResult(True, 0.0, words)
    except (RetriableError, FinalError) as error:
        return EchoResult(False, time.monotonic() - began, error.sentence)
    seconds = time.monotonic() - began
    if status == 0:
        return EchoResult(True, seconds, f"{destination} answers")
    said = "nothing in time" if status is None else f"status {status:04X}"
    return EchoResult(False, seconds, f"{destination} answers the C-ECHO with {said}")


def _associations(
    items: Sequence[tuple[int, Item]], *, transcode: bool
) -> Iterator[tuple[list[tuple[int, Item]], list[PresentationContext]]]:
    """Cut the files, in order, into groups whose contexts fit into one association."""
    group: list[tuple[int, Item]] = []
    pairs: dict[tuple[str, str], None] = {}
    for index, item in items:
        wanted = dict.fromkeys(item.contexts(transcode=transcode))
        if len(pairs | wanted) > MAX_PROPOSED_CONTEXTS:
            yield group, [build_context(uid, syntax) for uid, syntax in pairs]
            group, pairs = [], {}
        pairs |= wanted
        group.append((index, item))
    if group:
        yield group, [build_context(uid, syntax) for uid, syntax in pairs]


def read_item(path: Path) -> Item:
    """Return what must be known of a file to send it.

    Raises
    ------
    FinalError
        If it cannot be read, is no DICOM instance, or is a DICOMDIR.
    """
    try:
        try:
            with path.open("rb") as file:
                meta = read_file_meta(file, path.name)
        except FinalError:
            meta = None
        if meta and meta.sop_class_uid and meta.sop_instance_uid and meta.transfer_syntax_uid:
            item = Item(path, *meta[:3], has_meta=True)
        else:
            item = _read_without_meta(path)
    except OSError as error:
        raise FinalError(f"{path.name}: cannot be read ({error.strerror})") from error
    if item.sop_class_uid == _DIRECTORY:
        raise FinalError(f"{path.name}: a DICOMDIR is an index, not an instance; not sent")
    return item


def _read_without_meta(path: Path) -> Item:
    """Read a file that lacks preamble or file meta, as old writers and some exports make them."""
    try:
        # What has neither preamble nor the first tags of an instance is text, or anything else.
        with path.open("rb") as file:
            start = file.read(132)
        if start[128:] != b"DICM" and start[:2] not in (b"\x02\0", b"\x08\0", b"\0\x08"):
            raise FinalError(f"{path.name}: not a DICOM file")
        header = dcmread(path, force=True, stop_before_pixels=True)
        sop_class = str(header.get("SOPClassUID", ""))
        instance = str(header.get("SOPInstanceUID", ""))
        implicit = bool(header.original_encoding[0])
    except (InvalidDicomError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise FinalError(f"{path.name}: not a DICOM file ({error})") from error
    if not sop_class or not instance:
        raise FinalError(f"{path.name}: not a DICOM instance (no SOP Class or Instance UID)")
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    return Item(
        path, sop_class, instance, syntax or (_IMPLICIT if implicit else _EXPLICIT), has_meta=False
    )


def store(
    association: Association,
    item: Item,
    destination: Destination,
    *,
    originator: Originator | None = None,
) -> StoreStatus:
    """Send one file on an open association, transcoded if that is what was agreed.

    Raises
    ------
    RetriableError
        If the association is lost, or no response comes in time.
    """
    syntax = _agreed_syntax(association, item)
    if syntax is None:
        name, how = name_of_uid(item.sop_class_uid), name_of_uid(item.transfer_syntax_uid)
        return _unsent(item, "final", f"{destination} does not take {name} in {how}")
    exact = syntax == item.transfer_syntax_uid and item.has_meta
    if not association.is_established:
        raise _lost(destination, item)
    try:
        answer = association.send_c_store(
            item.path if exact else _dataset(item),
            originator_aet=originator.ae_title if originator else None,
            originator_id=originator.message_id if originator else None,
        )
    except (ValueError, AttributeError, OSError, NotImplementedError) as error:
        sentence = f"{item.path.name} cannot be encoded to be sent: {error}"
        return StoreStatus(item.path, item.sop_instance_uid, "", None, "final", sentence)
    except RuntimeError as error:  # pynetdicom: the association is not established any more
        raise _lost(destination, item) from error
    if "Status" not in answer:
        raise _lost(destination, item)
    return _judge(item, answer, destination)


def _agreed_syntax(association: Association, item: Item) -> str | None:
    agreed = {
        str(context.transfer_syntax[0])
        for context in association.accepted_contexts
        if context.abstract_syntax == item.sop_class_uid and context.as_scu
    }
    own = (syntax for _, syntax in item.contexts(transcode=True) if syntax in agreed)
    return next(own, None)


def _dataset(item: Item) -> Dataset:
    dataset = dcmread(item.path, force=not item.has_meta)
    dataset.file_meta.TransferSyntaxUID = UID(item.transfer_syntax_uid)
    if is_big_endian(item.transfer_syntax_uid):
        turn_to_little_endian(dataset)
    if item.is_compressed:
        try:
            # The UID stays: it is the same image to whoever retrieves it.
            dataset.decompress(generate_instance_uid=False)
        except RuntimeError as error:
            raise ValueError(f"it cannot be decompressed ({error})") from error
    return dataset


def _judge(item: Item, answer: Dataset, destination: Destination) -> StoreStatus:
    """Read a C-STORE status (PS3.4 Table B.2-1, PS3.7 annex C)."""
    code = int(answer.Status)
    comment = str(answer.get("ErrorComment", ""))[:64]
    verdict, meaning = judge_status(code)
    OBJECTS_SENT.labels(verdict).inc()
    said = f", comment {comment!r}" if comment and code else ""
    return StoreStatus(
        item.path,
        item.sop_instance_uid,
        item.sop_class_uid,
        code,
        verdict,
        f"{destination} answered {code:04X}: {meaning}{said}",
    )


def judge_status(code: int) -> tuple[Verdict, str]:
    """Return what a storage status asks for, and its meaning (PS3.4 Table B.2-1, PS3.7 annex C)."""
    if code in GENERAL_STATUSES:
        return GENERAL_STATUSES[code]
    for (first, last), judged in STATUS_RANGES.items():
        if first <= code <= last:
            return judged
    return "final", "a failure that the standard does not describe for storage"


def _unsent(item: Item, verdict: Verdict, sentence: str) -> StoreStatus:
    return StoreStatus(
        item.path, item.sop_instance_uid, item.sop_class_uid, None, verdict, sentence
    )


def _lost(destination: Destination, item: Item) -> RetriableError:
    return RetriableError(
        f"{destination} ended the association, or did not answer within "
        f"{destination.timeouts.dimse:g} s, while {item.sop_instance_uid} was sent"
    )
