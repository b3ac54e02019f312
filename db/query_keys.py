"""Which attributes the catalog can be asked for, at which level, and where they lie.

Keywords are those of DICOM. At SERIES and IMAGE level there are two kinds of things to ask for:
sources, which were received, and results, which the node made. Results keep their attributes as
one JSON object; their patient and study are those of their source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import SQLColumnExpression, func

from db.conditions import Kind, padded_time
from db.models import Instance, ResultRecord, Series, Study

Level = Literal["patient", "study", "series", "instance"]
LEVELS: Final[tuple[Level, ...]] = ("patient", "study", "series", "instance")

STUDY_DATE_AND_TIME: Final = "StudyDate+StudyTime"
"""Not a keyword: date and time of the study as one moment, ``YYYYMMDDHHMMSS.FFFFFF``."""


@dataclass(frozen=True, slots=True)
class QueryKey:
    """An attribute that can be asked for.

    Attributes
    ----------
    level
        Where it belongs.
    kind
        How it is compared; see `db.conditions`.
    source, result
        Its text among sources and among results.
    compared
        What is compared instead of the text, where that differs (folded names).
    """

    level: Level
    kind: Kind
    source: SQLColumnExpression[Any]
    result: SQLColumnExpression[Any]
    compared: SQLColumnExpression[Any] | None = None


def _in_result(keyword: str) -> SQLColumnExpression[Any]:
    return func.coalesce(ResultRecord.attributes[keyword].as_string(), "")


def _in_series(keyword: str) -> SQLColumnExpression[Any]:
    return func.coalesce(Series.attributes[keyword].as_string(), "")


def _of_study(
    column: Any, kind: Kind = "text", level: Level = "study", compared: Any = None
) -> QueryKey:
    return QueryKey(level, kind, column, column, compared)


def _of_series(keyword: str, column: Any = None, kind: Kind = "text") -> QueryKey:
    source = _in_series(keyword) if column is None else column
    return QueryKey("series", kind, source, _in_result(keyword))


def _of_instance(keyword: str, column: Any, kind: Kind = "text") -> QueryKey:
    return QueryKey("instance", kind, column, _in_result(keyword))


KEYS: Final[Mapping[str, QueryKey]] = {
    "PatientID": _of_study(Study.patient_id, level="patient"),
    "PatientName": _of_study(Study.patient_name, "name", "patient", Study.patient_name_key),
    "PatientBirthDate": _of_study(Study.patient_birth_date, level="patient"),
    "PatientSex": _of_study(Study.patient_sex, level="patient"),
    "StudyInstanceUID": _of_study(Study.study_instance_uid),
    "AccessionNumber": _of_study(Study.accession_number),
    "StudyDate": _of_study(Study.study_date),
    "StudyTime": _of_study(Study.study_time, "time"),
    STUDY_DATE_AND_TIME: _of_study(Study.study_date + padded_time(Study.study_time)),
    "StudyID": _of_study(Study.study_id),
    "StudyDescription": _of_study(Study.study_description),
    "ReferringPhysicianName": _of_study(
        Study.referring_physician_name, "name", compared=Study.referring_physician_key
    ),
    "SeriesInstanceUID": QueryKey(
        "series", "text", Series.series_instance_uid, ResultRecord.series_instance_uid
    ),
    "Modality": _of_series("Modality", Series.modality),
    "SeriesNumber": _of_series("SeriesNumber", Series.series_number),
    "SeriesDescription": _of_series("SeriesDescription", Series.series_description),
    "BodyPartExamined": _of_series("BodyPartExamined", Series.body_part_examined),
    "SeriesDate": _of_series("SeriesDate"),
    "SeriesTime": _of_series("SeriesTime", kind="time"),
    "Manufacturer": _of_series("Manufacturer"),
    "ManufacturerModelName": _of_series("ManufacturerModelName"),
    "InstitutionName": _of_series("InstitutionName"),
    "StationName": _of_series("StationName"),
    "ProtocolName": _of_series("ProtocolName"),
    "Laterality": _of_series("Laterality"),
    "SOPInstanceUID": QueryKey(
        "instance", "text", Instance.sop_instance_uid, ResultRecord.sop_instance_uid
    ),
    "SOPClassUID": QueryKey("instance", "text", Instance.sop_class_uid, ResultRecord.sop_class_uid),
    "InstanceNumber": _of_instance("InstanceNumber", Instance.instance_number),
    "NumberOfFrames": _of_instance("NumberOfFrames", Instance.number_of_frames),
    "Rows": _of_instance("Rows", Instance.rows),
    "Columns": _of_instance("Columns", Instance.columns),
    "ImageType": _of_instance("ImageType", Instance.image_type, "values"),
}

MODALITIES_IN_STUDY: Final = "ModalitiesInStudy"
SOP_CLASSES_IN_STUDY: Final = "SOPClassesInStudy"
COUNTS: Final[Mapping[str, Level]] = {
    "NumberOfPatientRelatedStudies": "patient",
    "NumberOfPatientRelatedSeries": "patient",
    "NumberOfPatientRelatedInstances": "patient",
    "NumberOfStudyRelatedSeries": "study",
    "NumberOfStudyRelatedInstances": "study",
    "NumberOfSeriesRelatedInstances": "series",
}
MATCHED: Final[frozenset[str]] = frozenset({*KEYS, MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY})
"""Keywords that conditions can be set on."""


def level_of(keyword: str) -> Level | None:
    """Give the level at which an attribute belongs; None for one that the catalog lacks."""
    if keyword in KEYS:
        return KEYS[keyword].level
    if keyword in (MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY):
        return "study"
    return COUNTS.get(keyword)
