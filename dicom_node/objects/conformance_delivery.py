"""Rules on the way of an object: sent, kept as it was, found again (IHE AIR 14, 41 to 43).

They speak only where something is known of it (`Delivery`): after the job, in a test against a
real archive, or for ``unibiomed-node lint --returned``.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.objects.conformance_rules import (
    ALL_KINDS,
    Delivery,
    Need,
    Problem,
    Rule,
    Subject,
    kind_of,
    text_of,
)

STORED = frozenset({0x0000, 0x0001, 0x0107, 0x0116})
LISTED_KEYWORDS = ("SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription")


def returned_unchanged(subject: Subject) -> Iterator[str]:
    """Compare the object with what the archive gives back."""
    returned = (subject.delivery.returned or {}).get(subject.uid)
    if returned is None:
        yield "the archive does not give the object back"
        return
    for element in subject.dataset:
        if element.tag not in returned:
            yield f"{element.keyword or element.tag} did not come back"
        elif not _equal(element.value, returned[element.tag].value):
            yield f"{element.keyword or element.tag} came back changed"
    for element in returned:
        if element.tag not in subject.dataset:
            yield f"{element.keyword or element.tag} was added"


def _equal(first: object, second: object) -> bool:
    if isinstance(first, bytes) and isinstance(second, bytes):
        return first.rstrip(b"\0") == second.rstrip(b"\0")
    return bool(first == second) or str(first or "") == str(second or "")


def stored_and_proven(subject: Subject) -> Iterator[str]:
    """Hold that the object was taken, and that its receiver proved to have it."""
    status = (subject.delivery.statuses or {}).get(subject.uid)
    if status is None:
        yield "the object was not sent"
    elif status not in STORED and not 0xB000 <= status <= 0xBFFF:
        yield f"C-STORE was answered {status:04X}"
    elif not subject.delivery.proofs.get(subject.uid):
        yield "the object was sent, but nothing proves that it was kept"


def found_by_query(subject: Subject) -> Iterator[str]:
    """Hold that a query finds the object by what people look for."""
    answers = (subject.delivery.listed or {}).get(subject.uid, ())
    if not answers or not all(len(answer) for answer in answers):
        yield "a query does not find the object"
    for answer in answers:
        for keyword in LISTED_KEYWORDS:
            if len(answer) and _said(answer, keyword) != _said(subject.dataset, keyword):
                yield f"the query answers another {keyword}"


def _said(dataset: Dataset, keyword: str) -> str:
    return text_of(dataset, keyword).strip()


def committed(subject: Subject) -> Iterator[str]:
    """Hold that storage commitment was asked for the object, answered, and granted."""
    answers = [
        answer[subject.uid]
        for answer in (subject.delivery.commitments or {}).values()
        if subject.uid in answer
    ]
    if not answers:
        yield "no storage commitment was asked for the object"
    if None in answers:
        yield "a storage commitment transaction has no answer yet"
    if False in answers:
        yield "the archive does not commit to keep the object"


def broken_on_the_way(dataset: Dataset, delivery: Delivery) -> list[Problem]:
    """Hold a result to the rules of this file alone.

    Parameters
    ----------
    dataset
        The object, or what of its header these rules look at: SOP Class and Instance UID, Series
        Instance UID, Modality, Series Description.
    delivery
        How it fared.
    """
    kind = kind_of(dataset)
    if kind is None:
        return []
    subject = Subject(dataset, kind, (dataset,), {}, delivery=delivery)
    return [
        Problem(rule.id, rule.severity, text, subject.uid)
        for rule in RULES
        if rule.check is not None and rule.needs is not None and subject.has(rule.needs)
        for text in rule.check(subject)
    ]


RULES: tuple[Rule, ...] = (
    Rule(
        "AIR-14",
        "The archive gives the object back as it was sent.",
        "PS3.4 B.4.1, level 2 storage",
        ALL_KINDS,
        returned_unchanged,
        needs=Need.RETURNED,
    ),
    Rule(
        "AIR-41",
        "Each object was taken with success or a warning, and proved to be there.",
        "IHE RAD-18, RAD-43, RAD-10; PS3.4 B.2.3",
        ALL_KINDS,
        stored_and_proven,
        needs=Need.STATUSES,
    ),
    Rule(
        "AIR-42",
        "A query by modality and description finds the object.",
        "IHE RAD-14, RAD-129",
        ALL_KINDS,
        found_by_query,
        needs=Need.LISTED,
    ),
    Rule(
        "AIR-43",
        "Storage commitment was answered for the object, and granted.",
        "IHE RAD-10; PS3.4 J.3",
        ALL_KINDS,
        committed,
        needs=Need.COMMITMENTS,
    ),
)
