"""Tables of DIMSE: classes, roles, transfer syntaxes, policies, statuses (PS3.2 N.6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pydicom.uid import UID

from deploy.statement.markdown import name_of, table
from dicom_node import peers
from dicom_node.services import (
    announcements,
    commitment,
    dialling,
    finding,
    reception,
    retrieval,
    retrieve_scu,
    storage_scu,
)
from dicom_node.services.association import (
    AVAILABILITY,
    COMMITMENT,
    FIND_CLASSES,
    GET_CLASSES,
    MOVE_CLASSES,
    PROCEDURE_STEP,
    SERVICES,
    STORAGE_CLASSES,
    STUDY_ROOT_FIND,
    TRANSFER_SYNTAXES,
    UNCOMPRESSED,
    VERIFICATION,
    ListenerSettings,
    Timeouts,
)
from dicom_node.services.tls import PROFILES

# Of the classes that are no storage, those that the node asks others for, and by which module.
_AS_USER: Final[Mapping[str, str]] = {
    VERIFICATION: "asks whether destinations and peers are there",
    STUDY_ROOT_FIND: "read-back of results, completeness of studies, priors",
    GET_CLASSES[1]: "priors; read-back of the object of `unibiomed-node peers test`",
    MOVE_CLASSES[1]: "the same, to the node itself, where C-GET is not given",
    COMMITMENT: "commitment of results",
}
_AS_PROVIDER: Final = {
    VERIFICATION,
    *FIND_CLASSES,
    *MOVE_CLASSES,
    *GET_CLASSES,
    COMMITMENT,
    PROCEDURE_STEP,
    AVAILABILITY,
}
_REASONS: Final = {
    "calling AE title not listed, or not from that address, or without the TLS that it must use": (
        peers.REJECTED_PERMANENT,
        peers.SOURCE_USER,
        peers.CALLING_NOT_RECOGNIZED,
    ),
    "called AE title is not the node's": (
        peers.REJECTED_PERMANENT,
        peers.SOURCE_USER,
        peers.CALLED_NOT_RECOGNIZED,
    ),
    "too many associations, of all or of this peer": (
        peers.REJECTED_TRANSIENT,
        peers.SOURCE_PRESENTATION,
        peers.LOCAL_LIMIT_EXCEEDED,
    ),
}
_RESULTS: Final = {1: "rejected permanent", 2: "rejected transient"}


def services_table() -> str:
    """Return the classes other than storage, and the node's roles."""
    rows = []
    for uid, service in SERVICES.items():
        user = _AS_USER.get(uid)
        provider = "yes" if uid in _AS_PROVIDER else ""
        rows.append((name_of(uid), uid, "yes" if user else "", provider, f"`{service}`"))
    return table(("SOP class", "UID", "SCU", "SCP", "right of a peer"), rows)


def uses_table() -> str:
    """Return what the node asks others for."""
    return table(("SOP class", "for"), ((name_of(uid), what) for uid, what in _AS_USER.items()))


def storage_table() -> str:
    """Return the storage classes that are taken."""
    rows = [(name_of(uid, "private or younger"), uid) for uid in STORAGE_CLASSES]
    return table(("SOP class", "UID"), sorted(rows, key=lambda row: _by_number(str(row[1]))))


def prior_classes() -> str:
    """Return the classes that priors are fetched in."""
    return ", ".join(name_of(uid).removesuffix(" Storage") for uid in retrieve_scu.PRIOR_CLASSES)


def syntaxes_table() -> str:
    """Return the transfer syntaxes, and for what each is taken."""
    rows = [
        (
            name_of(uid),
            uid,
            "yes",
            "yes" if uid in UNCOMPRESSED else "",
            "yes" if uid in retrieve_scu.PRIOR_SYNTAXES else "",
        )
        for uid in TRANSFER_SYNTAXES
    ]
    return table(("transfer syntax", "UID", "storage", "other services", "priors, as SCU"), rows)


def policy_table() -> str:
    """Return the numbers of associations that others open."""
    settings = ListenerSettings()
    rows = (
        ("maximum length of a PDU", f"{settings.max_pdu} bytes", "`listener.max_pdu`"),
        (
            "associations at a time",
            settings.max_associations,
            "`listener.max_associations`; `max_associations` of a peer",
        ),
        ("asynchronous operations", "not supported", ""),
        ("application context", "1.2.840.10008.3.1.1.1", ""),
        ("until the request", f"{settings.acse_timeout:g} s", "`listener.acse_timeout_seconds`"),
        (
            "silence in a message",
            f"{settings.network_timeout:g} s",
            "`listener.network_timeout_seconds`",
        ),
        ("idle", f"{settings.idle_timeout:g} s", "`listener.idle_timeout_seconds`"),
    )
    return table(("as acceptor", "default", "setting"), rows)


def timeouts_table() -> str:
    """Return the deadlines of associations that the node opens to peers and destinations."""
    given = Timeouts()
    rows = (
        ("connection", given.connection, "`connection_timeout_seconds`"),
        ("association and release", given.acse, "`acse_timeout_seconds`"),
        ("one message", given.dimse, "`dimse_timeout_seconds`"),
        ("one read or write", given.network, "`network_timeout_seconds`"),
    )
    shown = ((what, f"{seconds:g} s", setting) for what, seconds, setting in rows)
    return table(("as requestor", "to a peer", "setting of a destination"), shown)


def rejections_table() -> str:
    """Return why the node rejects an association (PS3.8 Table 9-21)."""
    rows = [(why, _RESULTS[result], source, reason) for why, (result, source, reason)
            in _REASONS.items()]  # fmt: skip
    return table(("because", "result", "source", "reason"), rows)


def rejected_table() -> str:
    """Return what the node makes of rejections by others."""
    rows = [
        (source, reason, what.format(calling="", called="").replace("  ", " ").replace(" ;", ";"))
        for (source, reason), what in dialling.REJECTIONS.items()
    ]
    return table(("source", "reason", "what an administrator reads"), rows)


def statuses_table(name: str) -> str:
    """Return what a service answers."""
    tables: Mapping[str, Mapping[int, str]] = {
        "store": reception.STATUSES,
        "find": finding.STATUSES,
        "retrieve": retrieval.STATUSES,
        "commit": commitment.STATUSES,
        "notify": announcements.STATUSES,
        "commitment reasons": commitment.FAILURE_REASONS,
    }
    return table(("status", "meaning"), _statuses(tables[name]))


def judged_table() -> str:
    """Return what the node makes of the statuses of its C-STORE and STOW-RS requests."""
    words = {
        "stored": "stored",
        "warning": "stored, and noted",
        "retry": "tried again",
        "final": "not tried again; another form if there is one",
    }
    rows = [
        (f"{code:04X}", words[verdict], meaning)
        for code, (verdict, meaning) in sorted(storage_scu.GENERAL_STATUSES.items())
    ]
    rows += [
        (f"{first:04X} to {last:04X}", words[verdict], meaning)
        for (first, last), (verdict, meaning) in storage_scu.STATUS_RANGES.items()
    ]
    other = storage_scu.judge_status(0xFFFF)
    rows.append(("any other", words[other[0]], other[1]))
    return table(("status", "counts as", "meaning"), rows)


def tls_table() -> str:
    """Return the TLS profiles."""
    rows = [
        (
            f"`{name}`",
            profile.standard,
            profile.minimum.name.replace("TLSv", "TLS ").replace("_", "."),
            profile.ciphers.partition(":@")[0].replace(":", ", "),
        )
        for name, profile in PROFILES.items()
    ]
    return table(("setting", "profile", "at least", "cipher suites of TLS 1.2"), rows)


def _statuses(meanings: Mapping[int, str]) -> Iterable[tuple[str, str]]:
    return ((f"{code:04X}", meaning) for code, meaning in meanings.items())


def _by_number(uid: str) -> tuple[int, ...]:
    return tuple(int(part) for part in UID(uid).split("."))
