"""What every association needs: settings, deadlines, contexts (PS3.7 D.3, PS3.8 7.1)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AllStoragePresentationContexts, _config, build_context
from pynetdicom.presentation import PresentationContext

from dicom_node.peers import Service
from dicom_node.services.tls import Tls

# pynetdicom would log queries and answers, and so patients, at level info.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.LOG_HANDLER_LEVEL = "none"
# Files are sent as the bytes that they are; pynetdicom would decode and encode them anew.
_config.STORE_SEND_CHUNKED_DATASET = True
# A message that it cannot decode is told of by who aborts the association for it, in one line.
logging.getLogger("pynetdicom.dimse").setLevel(logging.CRITICAL)

VERIFICATION: Final = "1.2.840.10008.1.1"
STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
# Patient Root first (PS3.4 C.6.1.3, C.6.2.3).
FIND_CLASSES: Final = ("1.2.840.10008.5.1.4.1.2.1.1", STUDY_ROOT_FIND)
MOVE_CLASSES: Final = ("1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.2.2")
GET_CLASSES: Final = ("1.2.840.10008.5.1.4.1.2.1.3", "1.2.840.10008.5.1.4.1.2.2.3")
PATIENT_ROOT_CLASSES: Final = frozenset({FIND_CLASSES[0], MOVE_CLASSES[0], GET_CLASSES[0]})

COMMITMENT: Final = "1.2.840.10008.1.20.1"
PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
AVAILABILITY: Final = "1.2.840.10008.5.1.4.33"

SERVICES: Final[dict[str, Service]] = {
    VERIFICATION: "echo",
    **dict.fromkeys(FIND_CLASSES, "query"),
    **dict.fromkeys((*MOVE_CLASSES, *GET_CLASSES), "retrieve"),
    COMMITMENT: "commit",
    **dict.fromkeys((PROCEDURE_STEP, AVAILABILITY), "notify"),
}
"""What a SOP class other than a storage class is for, as peers are allowed it."""

# PS3.8 9.3.2.2: presentation context IDs are the odd numbers of one byte.
MAX_PROPOSED_CONTEXTS: Final = 128

UNCOMPRESSED: Final = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))

TRANSFER_SYNTAXES: Final[tuple[str, ...]] = (
    *UNCOMPRESSED,
    str(DeflatedExplicitVRLittleEndian),
    str(ExplicitVRBigEndian),
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline, 8 bit
    "1.2.840.10008.1.2.4.51",  # JPEG Extended, 12 bit
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless, process 14
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, process 14, selection value 1
    # The retired JPEG processes (PS3.5 of 1998): archives still hold them.
    *(f"1.2.840.10008.1.2.4.{process}" for process in (52, 53, 54, 55, 56, *range(58, 67))),
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2 Lossless
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 Part 2
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
    "1.2.840.10008.1.2.4.100",  # MPEG2 Main Profile / Main Level
    "1.2.840.10008.1.2.4.100.1",
    "1.2.840.10008.1.2.4.101",  # MPEG2 Main Profile / High Level
    "1.2.840.10008.1.2.4.101.1",
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC/H.264 High Profile / Level 4.1
    "1.2.840.10008.1.2.4.102.1",
    "1.2.840.10008.1.2.4.103",  # the same, BD-compatible
    "1.2.840.10008.1.2.4.103.1",
    "1.2.840.10008.1.2.4.104",  # Level 4.2, 2D video
    "1.2.840.10008.1.2.4.104.1",
    "1.2.840.10008.1.2.4.105",  # Level 4.2, 3D video
    "1.2.840.10008.1.2.4.105.1",
    "1.2.840.10008.1.2.4.106",  # Stereo High Profile
    "1.2.840.10008.1.2.4.106.1",
    "1.2.840.10008.1.2.4.107",  # HEVC/H.265 Main Profile / Level 5.1
    "1.2.840.10008.1.2.4.108",  # HEVC/H.265 Main 10 Profile / Level 5.1
)

# Every storage class of the standard that pynetdicom lists, so that an object which the node has
# no use for is still kept rather than its association spoiled; and those that are younger than its
# list, or retired but met in archives.
STORAGE_CLASSES: Final[tuple[str, ...]] = tuple(
    dict.fromkeys(
        (
            *(str(context.abstract_syntax) for context in AllStoragePresentationContexts),
            "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
            "1.2.840.10008.5.1.4.1.1.66.8",  # Height Map Segmentation
            "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image (retired)
            "1.2.840.10008.5.1.4.1.1.3",  # Ultrasound Multi-frame Image (retired)
            "1.2.840.10008.5.1.4.1.1.5",  # Nuclear Medicine Image (retired)
            "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-Plane Image (retired)
            "1.2.840.10008.5.1.4.1.1.77.1",  # VL Image (trial, retired)
            "1.2.840.10008.5.1.4.1.1.77.2",  # VL Multi-frame Image (trial, retired)
        )
    )
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of an association that the node opens, in seconds.

    Attributes
    ----------
    connection : float
        Until the TCP connection stands.
    acse : float
        For the answer to an association or release request.
    dimse : float
        For the answer to one message, its transmission included.
    network : float
        For any single read or write of the socket.
    """

    connection: float = 10.0
    acse: float = 30.0
    dimse: float = 120.0
    network: float = 60.0


@dataclass(frozen=True, slots=True)
class Destination:
    """An application entity that the node sends to, asks, or tests.

    Attributes
    ----------
    seg_encoding : {"auto", "binary", "labelmap", "fractional"}
        How segmentations are encoded for it.
    garbles_unaligned : bool
        Its viewers garble BINARY segmentations whose frames do not end on a byte (OHIF 3.13).
    tls : Tls or None
        How to call it by TLS; None: without.
    """

    name: str
    ae_title: str
    host: str
    port: int
    seg_encoding: Literal["auto", "binary", "labelmap", "fractional"] = "auto"
    timeouts: Timeouts = field(default_factory=Timeouts)
    garbles_unaligned: bool = False
    tls: Tls | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port})"


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """How the node listens.

    Attributes
    ----------
    port : int or None
        For associations without TLS; 0 lets the system choose (tests), None: it takes none.
    tls_port : int or None
        For associations with TLS, in the same way.
    check_called_ae_title : bool
        Refuse callers that name the node otherwise than ``ae_title`` or the table of peers.
    max_associations : int
        More are refused for the moment (local limit exceeded).
    max_pdu : int
        Bytes of a P-DATA-TF PDU that the node is ready to receive.
    acse_timeout : float
        Seconds from the connection to its association request (the ARTIM timer of PS3.8 9.1.5).
    network_timeout : float
        Seconds that a peer may be silent in the middle of a message, or not take an answer.
    idle_timeout : float
        Seconds that an association may stay open with nothing going on.
    extra_storage_classes : tuple of str
        SOP Class UIDs to take besides the standard's: private or very new ones.
    """

    ae_title: str = "UNIBIOMED"
    host: str = "0.0.0.0"  # noqa: S104  a listener is there to be reached
    port: int | None = 11112
    tls_port: int | None = None
    check_called_ae_title: bool = True
    max_associations: int = 20
    max_pdu: int = 131072
    acse_timeout: float = 30.0
    network_timeout: float = 60.0
    idle_timeout: float = 300.0
    extra_storage_classes: tuple[str, ...] = ()


def service_of(class_uid: str) -> Service:
    """Return what a SOP class is for."""
    return SERVICES.get(class_uid, "store")


def listener_contexts(settings: ListenerSettings) -> list[PresentationContext]:
    """Return what the listener itself takes, one context per SOP class.

    The 128 contexts that PS3.8 9.3.2.2 leaves room for are those of a request; an acceptor may
    know more.
    """
    contexts = [build_context(VERIFICATION, list(UNCOMPRESSED))]
    for uid in dict.fromkeys((*STORAGE_CLASSES, *settings.extra_storage_classes)):
        contexts.append(build_context(uid, list(TRANSFER_SYNTAXES)))
    return contexts


def in_callers_order(
    supported: dict[str, PresentationContext],
    proposed: list[PresentationContext],
    *,
    reversed_roles: Collection[str] = (),
    held_syntaxes: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[PresentationContext]:
    """Return the supported contexts that a caller asks for, syntaxes in the caller's order.

    In pynetdicom the acceptor's order decides (the choice is the acceptor's, PS3.7 D.3.3.1). A
    sender lists first what it holds, so this keeps it from decompressing or recoding.

    Of the classes in ``reversed_roles`` the caller is the SCP: it gets instances by C-GET (PS3.4
    C.5.3), or brings reports of commitment. There the node is the sender, and a context has one
    syntax for all that it sends: the one in which all instances of the class are held, where that
    is one alone and the caller takes it; else an uncompressed one, as any can be sent in that.
    """
    wanted: dict[str, list[str]] = {}
    for context in proposed:
        order = wanted.setdefault(str(context.abstract_syntax), [])
        order.extend(str(uid) for uid in context.transfer_syntax if str(uid) not in order)
    chosen = []
    for class_uid, order in wanted.items():
        known = supported.get(class_uid)
        if known is not None:
            takes = {str(uid) for uid in known.transfer_syntax}
            syntaxes = [uid for uid in order if uid in takes]
            if class_uid in reversed_roles:
                held = held_syntaxes.get(class_uid, ())
                [only] = held if len(held) == 1 else [""]
                syntaxes.sort(key=lambda uid: (uid != only, uid not in UNCOMPRESSED))
            context = build_context(class_uid, syntaxes or sorted(takes))
            if class_uid in reversed_roles:
                context.scu_role = context.scp_role = True
            chosen.append(context)
    return chosen
