"""What the listener tells the node: stored instances, quarantined objects, ended associations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dicom_node.incoming import StoredFile
from dicom_node.peers import Peer
from dicom_node.services.command_set import Originator


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """An instance that lies durable in the archive and waits to be registered and acknowledged.

    Attributes
    ----------
    association : str
        Identifies the association among all of this node.
    attributes : mapping of str to str
        Keyword to text of the header, as far as present (``header.KEYWORDS``). Hostile text.
    file : StoredFile
        Where it lies. ``outcome`` "same" does not say that it was registered before: the sender
        may repeat because the registration had failed.
    """

    calling_ae_title: str
    called_ae_title: str
    peer_host: str
    association: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    attributes: Mapping[str, str]
    file: StoredFile


@dataclass(frozen=True, slots=True)
class MovedInstance:
    """An instance of which its sender says that a C-MOVE asked for it. All of it is a claim.

    Attributes
    ----------
    peer : Peer or None
        The entry of the table of peers that let the sender in.
    originator : Originator
        Who asked, as the sender says. Hostile text.
    """

    calling_ae_title: str
    peer: Peer | None
    originator: Originator
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An object that could not be filed and was put aside; its sender was told so.

    Attributes
    ----------
    path : str
        Of the file, relative to the archive's root; the ``.json`` beside it says the same as this.
    status : int
        The C-STORE status that was answered (PS3.4 Table B.2-1).
    sop_class_uid, sop_instance_uid : str
        What the sender's command set says. Hostile text.
    """

    calling_ae_title: str
    called_ae_title: str
    peer_host: str
    association: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    sha256: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class AssociationEnded:
    """An association came to its end; a hint that a study may be complete.

    Attributes
    ----------
    study_instance_uids : frozenset of str
        Studies of which it stored at least one instance, "same" ones too.
    stored, same, conflicts, quarantined, refused : int
        Objects by what became of them; ``refused`` were answered with a failure and not kept.
    ended : {"released", "aborted"}
        Aborted stands for every end without release: A-ABORT, a lost connection, a time-out, a
        stop.
    """

    association: str
    calling_ae_title: str
    called_ae_title: str
    peer_host: str
    study_instance_uids: frozenset[str]
    stored: int
    same: int
    conflicts: int
    quarantined: int
    refused: int
    ended: Literal["released", "aborted"]
    seconds: float
