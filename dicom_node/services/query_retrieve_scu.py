"""Query/Retrieve SCU: prove by C-FIND that a PACS has what it was sent (PS3.4 C.4.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association

from dicom_node.errors import FinalError, NothingTakenError, RetriableError
from dicom_node.services.association import STUDY_ROOT_FIND, UNCOMPRESSED, Destination
from dicom_node.services.dialling import dial

_PENDING: Final = frozenset({0xFF00, 0xFF01})
# A list of UIDs may be as long as a PDU, but some archives take no more than some of them.
_UIDS_PER_QUERY: Final = 50

SERIES_KEYWORDS: Final = ("Modality", "SeriesDescription")
"""What people look for a series by, and an answer has to hold (IHE RAD-14)."""


def confirm(
    destination: Destination,
    calling_ae_title: str,
    study_instance_uid: str,
    sop_instance_uids_by_series: Mapping[str, Collection[str]],
) -> set[str]:
    """Return those of the instances that the PACS says it has.

    One C-FIND at IMAGE level in Study Root per series and 50 instances, with a list of UIDs as
    matching key (PS3.4 C.2.2.2.2). What is not among the answers is asked for again by listing
    the whole series: some archives ignore lists of UIDs, or take only the first.

    Parameters
    ----------
    destination : Destination
        The PACS.
    calling_ae_title : str
        Ours.
    study_instance_uid : str
        The study that all belong to.
    sop_instance_uids_by_series : mapping of str to collection of str
        Series Instance UID to the SOP Instance UIDs in question.

    Raises
    ------
    RetriableError
        No association now, it was lost, or the PACS cannot answer now.
    FinalError
        The PACS does not let us query, or does not do Study Root queries.
    """
    proven: set[str] = set()
    context = build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))
    try:
        with dial(destination, [context], calling_ae_title=calling_ae_title) as association:
            for series_uid, instances in sop_instance_uids_by_series.items():
                wanted = sorted(set(instances))
                found: set[str] = set()
                for start in range(0, len(wanted), _UIDS_PER_QUERY):
                    some = wanted[start : start + _UIDS_PER_QUERY]
                    found |= _ask(association, destination, study_instance_uid, series_uid, some)
                if not found.issuperset(wanted):
                    found |= _ask(association, destination, study_instance_uid, series_uid, [])
                proven.update(found.intersection(wanted))
    except NothingTakenError as error:
        raise FinalError(
            f"{destination} does not take Study Root C-FIND, so storage cannot be proven there"
        ) from error
    return proven


def series_at(
    destination: Destination,
    calling_ae_title: str,
    study_instance_uid: str,
    series_instance_uids: Collection[str],
) -> dict[str, dict[str, str]]:
    """Return what a PACS answers for series by what people look for: modality and description.

    One C-FIND at SERIES level in Study Root for each (PS3.4 C.6.2.1): the attributes of a series
    are not answered at IMAGE level.

    Returns
    -------
    dict
        Series Instance UID -> Modality and Series Description; series that it does not find are
        left out.

    Raises
    ------
    RetriableError, FinalError
        As `confirm`.
    """
    context = build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))
    found: dict[str, dict[str, str]] = {}
    with dial(destination, [context], calling_ae_title=calling_ae_title) as association:
        for series in series_instance_uids:
            identifier = Dataset()
            identifier.QueryRetrieveLevel = "SERIES"
            identifier.StudyInstanceUID = study_instance_uid
            identifier.SeriesInstanceUID = series
            for keyword in SERIES_KEYWORDS:
                setattr(identifier, keyword, "")
            for match in find(association, destination, identifier):
                if str(match.get("SeriesInstanceUID", "")) == series:
                    found[series] = {one: str(match.get(one, "")) for one in SERIES_KEYWORDS}
    return found


def instances_at(
    destination: Destination,
    calling_ae_title: str,
    study_instance_uid: str,
    *,
    but_series: Collection[str] = (),
) -> set[str]:
    """Return the SOP Instance UIDs that a PACS has of a study.

    Asked series by series, at SERIES and IMAGE level: many archives do no relational queries
    (PS3.4 C.4.1.2.1).

    Parameters
    ----------
    destination : Destination
        The PACS.
    calling_ae_title : str
        Ours.
    study_instance_uid : str
        The study.
    but_series : collection of str
        Series Instance UIDs that are not counted: of our own results.

    Raises
    ------
    RetriableError, FinalError
        As `confirm`.
    """
    context = build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))
    found: set[str] = set()
    with dial(destination, [context], calling_ae_title=calling_ae_title) as association:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "SERIES"
        identifier.StudyInstanceUID = study_instance_uid
        identifier.SeriesInstanceUID = ""
        for match in find(association, destination, identifier):
            series = str(match.get("SeriesInstanceUID", ""))
            if series and series not in but_series and _belongs(match, study_instance_uid, series):
                found |= _ask(association, destination, study_instance_uid, series, [])
    return found


def find(association: Association, destination: Destination, identifier: Dataset) -> list[Dataset]:
    """Return all matches of a Study Root query on an open association.

    Raises
    ------
    RetriableError, FinalError
        It was not answered, or refused: that must not pass for "the PACS does not have it".
    """
    if not association.is_established:
        raise RetriableError(f"{destination} ended the association while it was queried")
    matches = []
    for status, match in association.send_c_find(identifier, STUDY_ROOT_FIND):
        code = status.get("Status")
        if code is None:
            raise RetriableError(
                f"{destination} ended the association, or did not answer a C-FIND within "
                f"{destination.timeouts.dimse:g} s"
            )
        if code in _PENDING:
            if match is not None:
                matches.append(match)
        elif code != 0:
            sentence = f"{destination} answered a C-FIND with {code:04X}"
            comment = str(status.get("ErrorComment", ""))[:64]
            sentence += f", comment {comment!r}" if comment else ""
            if code in (0x0122, 0x0124, 0xA900):
                raise FinalError(sentence)
            raise RetriableError(sentence)
    return matches


def _ask(
    association: Association,
    destination: Destination,
    study: str,
    series: str,
    instances: list[str],
) -> set[str]:
    """Return the SOP Instance UIDs of one IMAGE level query; no instances: the whole series."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = study
    identifier.SeriesInstanceUID = series
    identifier.SOPInstanceUID = instances or ""
    # A match in another study or series proves nothing: the object is not where it belongs.
    return {
        str(match.get("SOPInstanceUID", ""))
        for match in find(association, destination, identifier)
        if _belongs(match, study, series)
    }


def _belongs(match: Dataset, study: str, series: str) -> bool:
    """Whether a match names our study and series, or (allowed for some archives) nothing at all."""
    return (
        str(match.get("StudyInstanceUID", "") or study) == study
        and str(match.get("SeriesInstanceUID", "") or series) == series
    )
