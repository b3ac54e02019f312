"""Ask a peer what it takes: one association that offers, and sends nothing (PS3.8 section 7.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom import build_context

from dicom_node.errors import FinalError, RetriableError
from dicom_node.services.association import Destination
from dicom_node.services.dialling import dial


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What was accepted.

    Attributes
    ----------
    accepted
        SOP Class UID -> the transfer syntaxes that were accepted for it.
    sentence
        Why there is no answer; empty where there is one.
    """

    accepted: Mapping[str, frozenset[str]]
    sentence: str = ""


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
        return ProbeResult({}, error.sentence)
    return ProbeResult({key: frozenset(value) for key, value in accepted.items()})
