"""A Structured Report as a tree of plain values, for pages and programs (PS3.3 C.17.3).

Nothing is interpreted: every content item appears with its relationship, its concept name and its
value, in the order of the object, whatever template it follows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydicom import Dataset, dcmread
from pydicom.uid import UID

from dicom_node.errors import FinalError, RetriableError
from dicom_node.objects.headers import PARSE_ERRORS

__all__ = ["UnreadableReportError", "report_tree"]

_DEEPEST: Final = 60
_MOST_ITEMS: Final = 20_000


class UnreadableReportError(FinalError):
    """The object cannot be read as a Structured Report; the sentence says why."""


def report_tree(report: Path | Dataset) -> dict[str, Any]:
    """Return the content tree of a Structured Report.

    Parameters
    ----------
    report
        The object or its file.

    Returns
    -------
    dict
        ``name`` (code meaning), ``code`` (value and scheme), ``type`` (value type),
        ``relationship``, ``value`` (text), ``references`` (of images: class, sop_instance_uid,
        frames, segments) and ``children``, ready for `json.dumps`.

    Raises
    ------
    UnreadableReportError
        It is no Structured Report, damaged, or nested without end.
    RetriableError
        The operating system could not read the file.
    """
    try:
        dataset = dcmread(report) if isinstance(report, Path) else report
        if "ValueType" not in dataset:
            raise UnreadableReportError("this object has no Value Type (0040,A040): it is no SR")
        return _item(dataset, 0, [0])
    except OSError as error:
        raise RetriableError(f"{report} could not be read: {error}") from error
    except PARSE_ERRORS as error:
        raise UnreadableReportError(f"the report is damaged: {error}") from error


def _item(item: Dataset, depth: int, count: list[int]) -> dict[str, Any]:
    count[0] += 1
    if depth > _DEEPEST or count[0] > _MOST_ITEMS:
        raise UnreadableReportError("the report is nested too deep or has too many items")
    concepts = item.get("ConceptNameCodeSequence") or []
    kind = str(item.get("ValueType", ""))
    return {
        "relationship": str(item.get("RelationshipType", "")),
        "type": kind,
        "name": str(concepts[0].get("CodeMeaning", "")) if concepts else "",
        "code": _code(concepts[0]) if concepts else "",
        "value": _value(item, kind),
        "references": [_reference(one) for one in item.get("ReferencedSOPSequence") or []],
        "children": [_item(child, depth + 1, count) for child in item.get("ContentSequence") or []],
    }


def _code(concept: Dataset) -> str:
    value = concept.get("CodeValue") or concept.get("LongCodeValue") or concept.get("URNCodeValue")
    return f"{value or ''} {concept.get('CodingSchemeDesignator', '')}".strip()


def _value(item: Dataset, kind: str) -> str:
    if kind == "CODE":
        concept = (item.get("ConceptCodeSequence") or [Dataset()])[0]
        return f"{concept.get('CodeMeaning', '')} ({_code(concept)})"
    if kind == "NUM":
        return _number(item)
    if kind in ("SCOORD", "SCOORD3D"):
        return _coordinates(item)
    keywords = {
        "TEXT": "TextValue",
        "UIDREF": "UID",
        "PNAME": "PersonName",
        "DATE": "Date",
        "TIME": "Time",
        "DATETIME": "DateTime",
    }
    if kind in keywords:
        return str(item.get(keywords[kind], ""))
    return ""


def _number(item: Dataset) -> str:
    measured = item.get("MeasuredValueSequence") or []
    if not measured:
        qualifier = item.get("NumericValueQualifierCodeSequence") or [Dataset()]
        return str(qualifier[0].get("CodeMeaning", "no value"))
    unit = (measured[0].get("MeasurementUnitsCodeSequence") or [Dataset()])[0]
    name = str(unit.get("CodeValue", ""))
    return f"{measured[0].get('NumericValue', '')} {'' if name == '1' else name}".strip()


def _coordinates(item: Dataset) -> str:
    data = item.get("GraphicData")
    numbers = [float(value) for value in data] if data is not None else []
    shown = ", ".join(f"{value:g}" for value in numbers[:12])
    more = f", … ({len(numbers)} numbers)" if len(numbers) > 12 else ""
    return f"{item.get('GraphicType', '')}: {shown}{more}"


def _reference(reference: Dataset) -> dict[str, Any]:
    uid = UID(str(reference.get("ReferencedSOPClassUID", "")))
    return {
        "class": uid.name,
        "sop_instance_uid": str(reference.get("ReferencedSOPInstanceUID", "")),
        "frames": _numbers(reference, "ReferencedFrameNumber"),
        "segments": _numbers(reference, "ReferencedSegmentNumber"),
    }


def _numbers(reference: Dataset, keyword: str) -> list[int]:
    value = reference.get(keyword)
    if value in (None, ""):
        return []
    return [int(value)] if isinstance(value, int) else [int(one) for one in value]
