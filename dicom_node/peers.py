"""The table of peers: which application entities may call, from where, and what they may do.

Deny by default: an AE title that is not listed is refused, with a sentence that says how to list
it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from dicom_node.counters import ASSOCIATIONS_REFUSED, MALFORMED_PDUS, AssociationCause

Service = Literal["echo", "store", "query", "retrieve", "commit", "notify"]
ALL_SERVICES: Final[frozenset[Service]] = frozenset(
    {"echo", "store", "query", "retrieve", "commit", "notify"}
)
ANY_AE_TITLE: Final = "*"

# PS3.8 Table 9-21: result, source and reason of an A-ASSOCIATE-RJ.
REJECTED_PERMANENT: Final = 1
REJECTED_TRANSIENT: Final = 2
SOURCE_USER: Final = 1
SOURCE_PRESENTATION: Final = 3
CALLING_NOT_RECOGNIZED: Final = 3
CALLED_NOT_RECOGNIZED: Final = 7
LOCAL_LIMIT_EXCEEDED: Final = 2
# Of a connection that never came to a request: nothing of PS3.8, for the node's own count.
SOURCE_TRANSPORT: Final = 0
TLS_FAILED: Final = 0
MALFORMED: Final = 1

_CAUSES: Final[dict[tuple[int, int], AssociationCause]] = {
    (SOURCE_USER, CALLED_NOT_RECOGNIZED): "called_ae_title",
    (SOURCE_PRESENTATION, LOCAL_LIMIT_EXCEEDED): "too_many_associations",
}


@dataclass(frozen=True, slots=True)
class Channel:
    """How a caller is connected.

    Attributes
    ----------
    is_tls : bool
        Whether by TLS.
    certificate : str
        SHA-256 of the certificate that it showed, hexadecimal; empty when it showed none.
    """

    is_tls: bool = False
    certificate: str = ""


PLAIN: Final = Channel()


@dataclass(frozen=True, slots=True)
class Peer:
    """One application entity that the node knows.

    Attributes
    ----------
    name : str
        What people call it.
    ae_title : str
        Its AE title, case-sensitive, without the padding spaces; ``*`` stands for any (test
        set-ups).
    host : str or None
        IP address, network (``10.1.0.0/16``) or host name it calls from; None: anywhere.
    port : int or None
        Where it listens, for calls to it.
    allow : frozenset of Service
        What it may ask of the node: C-ECHO, C-STORE, C-FIND, C-MOVE and C-GET, storage commitment,
        or to take note of procedure steps and available instances.
    quiet_seconds : float or None
        How long its studies must be quiet to count as complete; None: the node's setting.
    release_completes : bool
        Whether it sends a study on one association, so that the release hints at completion.
    max_associations : int or None
        How many it may have open at a time; None: as many as the node takes.
    requires_tls : bool
        Whether it is refused without TLS.
    certificates : frozenset of str
        SHA-256 of the certificates it may show, hexadecimal; empty: any that the node believes.
    """

    name: str
    ae_title: str
    host: str | None = None
    port: int | None = None
    allow: frozenset[Service] = ALL_SERVICES
    quiet_seconds: float | None = None
    release_completes: bool = True
    max_associations: int | None = None
    requires_tls: bool = False
    certificates: frozenset[str] = frozenset()

    def may_call_from(self, address: str) -> bool:
        """Whether a connection from the IP address ``address`` may be this peer."""
        return self.host is None or _address_matches(self.host, address)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An association that was refused, and why.

    Attributes
    ----------
    result, source, reason : int
        Of the A-ASSOCIATE-RJ (PS3.8 Table 9-21).
    sentence : str
        Why, and what an administrator does to allow it.
    cause : str or None
        Where one reason of PS3.8 stands for several.
    """

    calling_ae_title: str
    called_ae_title: str
    host: str
    result: int
    source: int
    reason: int
    sentence: str
    cause: AssociationCause | None = None

    def count(self) -> None:
        """Count it, as an association that was refused or a connection that sent no PDUs."""
        cause = self.cause or _CAUSES.get((self.source, self.reason))
        if cause is not None:
            ASSOCIATIONS_REFUSED.labels(cause).inc()
        elif (self.source, self.reason) == (SOURCE_TRANSPORT, MALFORMED):
            MALFORMED_PDUS.inc()


class Peers:
    """The table. Immutable: to change it, hand the services a new one.

    Parameters
    ----------
    entries : iterable of Peer
        Several entries may share an AE title when their hosts differ.
    called : iterable of str
        AE titles that the node answers to besides its own: callers choose by them what is done.
    """

    def __init__(self, entries: Iterable[Peer] = (), *, called: Iterable[str] = ()) -> None:
        self.entries = tuple(entries)
        self.called = frozenset(called)

    def find(self, calling: str, host: str) -> Peer | None:
        """Return the entry for a caller: one of its own AE title before ``*``."""
        for title in (calling, ANY_AE_TITLE):
            for peer in self.entries:
                if peer.ae_title == title and peer.may_call_from(host):
                    return peer
        return None

    def refusal(
        self, calling: str, called: str, host: str, channel: Channel = PLAIN
    ) -> Refusal | None:
        """Return why the node does not talk to this caller, or None if it does.

        Parameters
        ----------
        calling, called : str
            AE titles of the A-ASSOCIATE-RQ, without padding. Hostile text.
        host : str
            The caller's IP address.
        channel : Channel
            How it is connected.
        """
        peer = self.find(calling, host)
        found = self._unlisted(calling, host) if peer is None else _insecure(peer, host, channel)
        if found is None:
            return None
        cause, sentence = found
        return Refusal(
            printable_ae_title(calling),
            printable_ae_title(called),
            host,
            REJECTED_PERMANENT,
            SOURCE_USER,
            CALLING_NOT_RECOGNIZED,
            sentence,
            cause,
        )

    def _unlisted(self, calling: str, host: str) -> tuple[AssociationCause, str]:
        shown = printable_ae_title(calling)
        if any(peer.ae_title == calling for peer in self.entries):
            return (
                "address_not_allowed",
                f"AE title {shown} is listed, but not for {host}. If the call is legitimate, set "
                f"the host of that peer in node.yaml to {host}, or to the network it calls from.",
            )
        return (
            "unknown_ae_title",
            f"AE title {shown} at {host} is not listed. "
            "To allow it, add to peers in node.yaml: "
            f'{{name: "{shown}", ae_title: "{shown}", host: "{host}"}}',
        )


def _insecure(peer: Peer, host: str, channel: Channel) -> tuple[AssociationCause, str] | None:
    """Say what a listed peer's connection lacks, if anything."""
    if (peer.requires_tls or peer.certificates) and not channel.is_tls:
        return (
            "tls_required",
            f"{peer.name} ({peer.ae_title} at {host}) may call with TLS only, and called without. "
            "Let it call the port under tls.port in node.yaml.",
        )
    if peer.certificates and channel.certificate not in peer.certificates:
        showed = f"the one with SHA-256 {channel.certificate}" if channel.certificate else "none"
        return (
            "certificate_not_pinned",
            f"{peer.name} ({peer.ae_title} at {host}) must show its pinned certificate, and showed "
            f"{showed}. If its certificate was renewed, replace the file under certificate of that "
            "peer in node.yaml.",
        )
    return None


def printable_ae_title(title: str) -> str:
    """Return an AE title as it may stand in a log line: 16 printable characters, no quotes."""
    return "".join(c if " " <= c <= "~" and c not in "\"\\'" else "?" for c in title[:16])


def _address_matches(allowed: str, address: str) -> bool:
    try:
        caller = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(caller, "ipv4_mapped", None)
    caller = mapped or caller
    try:
        return caller in ipaddress.ip_network(allowed, strict=False)
    except ValueError:
        return str(caller) in _addresses_of(allowed)


def _addresses_of(host: str) -> frozenset[str]:
    """Ask the resolver at each call: a peer's address may change while the node runs."""
    try:
        return frozenset(str(entry[4][0]) for entry in socket.getaddrinfo(host, None))
    except OSError:
        return frozenset()
