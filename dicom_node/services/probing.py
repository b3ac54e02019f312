"""Ask a peer what it takes, without sending anything.

An application entity answers for each SOP class and transfer syntax (PS3.8 section 7.1); a DICOMweb
server tells only which services it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.uid import UID
from pynetdicom import build_context

from dicom_node.errors import FinalError, RetriableError
from dicom_node.services.association import Destination
from dicom_node.services.dialling import dial
from dicom_node.services.dicomweb_client import WebArchive
from dicom_node.services.web_connection import WebDestination

_OPEN: Final = (
    "Which SOP classes and transfer syntaxes it stores cannot be known before an object is sent: "
    "DICOMweb has no question for it. It is taken to take all; what it refuses, the job says."
)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What was accepted.

    Attributes
    ----------
    accepted
        SOP Class UID -> the transfer syntaxes that were accepted for it; ``None`` where the
        protocol does not tell.
    sentence
        Why there is no answer; empty where there is one.
    told
        What else the answer says, and what it leaves open.
    """

    accepted: Mapping[str, frozenset[str]] | None
    sentence: str = ""
    told: tuple[str, ...] = ()


def probe(
    destination: Destination,
    sop_classes: Sequence[str],
    transfer_syntaxes: Sequence[str],
    calling_ae_title: str,
) -> ProbeResult:
    """Offer every SOP class in every transfer syntax, each in a context of its own.

    An acceptor chooses one syntax for each context (PS3.8 section 9.3.3.2), so that only contexts
    with one syntax tell of each whether it is taken. At most 128 contexts fit into an association.
    """
    contexts = [
        build_context(UID(sop_class), [UID(syntax)])
        for sop_class in sop_classes
        for syntax in transfer_syntaxes
    ]
    if len(contexts) > 128:
        raise ValueError(f"{len(contexts)} contexts do not fit into one association")
    accepted: dict[str, set[str]] = {sop_class: set() for sop_class in sop_classes}
    try:
        with dial(destination, contexts, calling_ae_title=calling_ae_title) as association:
            for context in association.accepted_contexts:
                if context.abstract_syntax is not None:
                    accepted[str(context.abstract_syntax)].update(
                        str(syntax) for syntax in context.transfer_syntax
                    )
    except (RetriableError, FinalError) as error:
        return ProbeResult(None, error.sentence)
    return ProbeResult({key: frozenset(value) for key, value in accepted.items()})


def probe_web(destination: WebDestination) -> ProbeResult:
    """Ask a DICOMweb server for its services: a search, and which methods it allows (OPTIONS).

    The capabilities document of PS3.18 section 8.9 is served by hardly any server, and names
    resources, not SOP classes.
    """
    try:
        with WebArchive(destination) as archive:
            archive.search("/studies", {"limit": "1"})
            methods = archive.allowed_methods("/studies")
    except (RetriableError, FinalError) as error:
        return ProbeResult(None, error.sentence)
    if methods is None:
        stores = "It does not say whether it stores (STOW-RS): OPTIONS on /studies is not answered."
    elif "POST" in methods:
        stores = "It stores (STOW-RS): OPTIONS on /studies allows POST."
    else:
        allowed = ", ".join(sorted(methods)) or "nothing"
        stores = (
            f"It does not seem to store (STOW-RS): OPTIONS on /studies allows {allowed}. Check the "
            "url, and the rights of these credentials there."
        )
    return ProbeResult(None, told=("It answers searches (QIDO-RS).", stores, _OPEN))
