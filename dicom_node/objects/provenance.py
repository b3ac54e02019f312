"""Who made a result and of what: the one place for identity in every object.

IHE AI Results asks that the node (the device that packs the result, General Equipment) and the
algorithm (Contributing Equipment, device observer, algorithm identification) are told apart and
that the algorithm's values are equal wherever they appear. So all of them come from
`NodeIdentity` and `AlgorithmIdentity`, and `complete_header` writes the modules that SEG and SR
share.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Self

from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import CodedConcept
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from dicom_node.objects.identifiers import ObjectIdentifiers, ResultIdentifiers, uid_from_uuid
from inference.findings import Interpretation

SHORT_STRING = 16
LONG_STRING = 64

NODE_MANUFACTURER = "UniBiomed Node"
UNVERIFIED = "AI-generated, not verified by a person."
RESEARCH_USE = f"Research use only. {UNVERIFIED}"
RESEARCH_MARKER = "(AI, research)"
CLEARED_MARKER = "(AI)"

# Fixed, so that hanging protocols can match them.
SERIES_NUMBERS: Mapping[str, int] = MappingProxyType(
    {
        "segmentation": 9001,
        "measurement_report": 9002,
        "key_objects": 9003,
        "grounded_report": 9004,
        "secondary_capture": 9005,
        "report_document": 9006,
        "structure_set": 9007,
        "rejection_note": 9008,
    }
)
# What the series is, in Series Description.
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "segmentation": "segmentation",
        "measurement_report": "measurements",
        "key_objects": "key images",
        "grounded_report": "report",
        "secondary_capture": "contours",
        "report_document": "report as PDF",
        "structure_set": "structure set",
        "rejection_note": "rejection",
    }
)

ARTIFICIAL_INTELLIGENCE = CodedConcept(
    value="123110", scheme_designator="DCM", meaning="Artificial Intelligence"
)

# What identifies patient and study. Archives match on exact values, so these are copied as they
# are, never repaired (PS3.3 C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2, C.7.2.3).
COPIED_KEYWORDS = (
    "TimezoneOffsetFromUTC",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "QualityControlSubject",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)

# Type 2 attributes of the patient and study modules: empty where the source lacks them.
REQUIRED_KEYWORDS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The node that packs the results: what General Equipment says (PS3.3 C.7.5.1).

    Attributes
    ----------
    software_version
        Version of the node's software.
    serial_number
        Something that tells this installation from others; type 1 in a SEG.
    station_name, institution_name
        The site's own names; empty ones are left out.
    model_manufacturer
        Who made the model; named as the algorithm's manufacturer.
    research_use
        Whether every object carries the research marker.
    """

    software_version: str
    serial_number: str
    manufacturer: str = NODE_MANUFACTURER
    model_name: str = "UniBiomed Node"
    station_name: str = ""
    institution_name: str = ""
    model_manufacturer: str = "UniBiomed"
    research_use: bool = True


@dataclass(frozen=True, slots=True)
class AlgorithmIdentity:
    """The model that found the findings, equal wherever an object names it.

    Attributes
    ----------
    manufacturer, name, version
        At most 64 characters each, as the attributes allow.
    digest
        SHA-256 of the weights, hexadecimal.
    """

    manufacturer: str
    name: str
    version: str
    digest: str

    @classmethod
    def of(cls, interpretation: Interpretation, node: NodeIdentity) -> Self:
        """Return the identity of the model that gave an interpretation."""
        return cls(
            manufacturer=single_line(node.model_manufacturer, LONG_STRING),
            name=single_line(interpretation.model_name, LONG_STRING),
            version=single_line(interpretation.model_version, LONG_STRING),
            digest=interpretation.model_digest,
        )

    @property
    def device_uid(self) -> str:
        """The algorithm's Device UID: another one for any other weights."""
        return device_uid_of(self.digest)

    @property
    def parameters(self) -> str:
        """What was run, for Algorithm Parameters."""
        return f"{_DIGEST_WORDS}{self.digest}"

    def identification(self, parameters: Sequence[str]) -> AlgorithmIdentificationSequence:
        """Return the Algorithm Identification macro (PS3.3 10.16)."""
        return AlgorithmIdentificationSequence(
            name=self.name,
            version=self.version,
            family=ARTIFICIAL_INTELLIGENCE,
            source=self.manufacturer,
            parameters={"parameters": "; ".join(parameters)} if parameters else None,
        )


_DIGEST_WORDS = "weights sha256 "


def device_uid_of(digest: str) -> str:
    """Return the Device UID that stands for weights with this SHA-256."""
    return uid_from_uuid(uuid.uuid5(uuid.NAMESPACE_OID, f"weights/{digest}"))


def weights_digest(parameters: str) -> str | None:
    """Return the digest that algorithm parameters give, or ``None`` where they give none."""
    match = re.search(rf"{_DIGEST_WORDS}([0-9a-f]{{64}})", parameters)
    return match[1] if match else None


def marker(node: NodeIdentity) -> str:
    """Return the sentence that every object carries: what it is for, and where it comes from."""
    return RESEARCH_USE if node.research_use else UNVERIFIED


def single_line(text: str, limit: int) -> str:
    """Return `text` as the string value representations take it.

    Control characters become spaces, the backslash (which would part the value in two) a slash, and
    what is longer than `limit` characters ends in three dots. An ellipsis would be one character,
    but receivers that count bytes, as dciodvfy does, would find two too many.
    """
    cleaned = re.sub(r"\s+", " ", re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)).strip()
    cleaned = cleaned.replace("\\", "/")
    if len(cleaned) <= limit:
        return cleaned
    return cleaned[: limit - 3].rstrip() + "..."


def complete_header(
    dataset: Dataset,
    source: Dataset,
    *,
    kind: str,
    pair: ObjectIdentifiers,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
    algorithm: AlgorithmIdentity,
) -> None:
    """Write the modules that all result objects share, over what highdicom put there.

    Patient and study come from `source` as they are; a missing type 2 attribute is written empty.
    The text is in UTF-8, so any name and any sentence can be written (PS3.3 C.12.1.1.2).

    Parameters
    ----------
    dataset
        The object to complete, changed in place.
    source
        Header of one source image; not changed.
    kind
        One of the keys of `SERIES_NUMBERS`.
    """
    dataset.SpecificCharacterSet = "ISO_IR 192"
    _copy_patient_and_study(dataset, source)
    _write_series(dataset, source, kind, pair, node, algorithm)
    _write_times(dataset, source, identifiers.created)
    _write_equipment(dataset, node)
    dataset.ContributingEquipmentSequence = DicomSequence(
        [_contribution(algorithm, local_time(identifiers.created, source), marker(node))]
    )
    if "ContentDescription" in dataset:
        dataset.ContentDescription = single_line(marker(node), LONG_STRING)


def copied(element: DataElement) -> DataElement:
    """Return a deep copy of an element, decoded so that it can be written in another charset.

    Values that break their representation are copied as they are: archives match on them.
    """
    if element.VR == "SQ":
        items = [_copied_item(item) for item in element.value]
        return DataElement(element.tag, "SQ", DicomSequence(items))
    value = element.value
    if element.VR == "PN":
        value = [str(name) for name in value] if element.VM > 1 else str(value or "")
    elif element.VM > 1:
        value = list(value)
    return DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def _copied_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for element in item:
        if not element.tag.is_private:
            copy.add(copied(element))
    return copy


def local_time(created: datetime, source: Dataset) -> datetime:
    """Return `created` in the zone that the source states, so that times in a study compare.

    Without a Timezone Offset From UTC in the source the time stays as it is, the site's local time.
    """
    text = str(source.get("TimezoneOffsetFromUTC") or "")
    match = re.fullmatch(r"([+-])(\d\d)(\d\d)", text.strip())
    if match is None or created.tzinfo is None:
        return created
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return created.astimezone(timezone(-offset if match[1] == "-" else offset))


def _copy_patient_and_study(dataset: Dataset, source: Dataset) -> None:
    for keyword in COPIED_KEYWORDS:
        tag = tag_for_keyword(keyword)
        assert tag is not None  # noqa: S101 - the keywords above are the standard's
        if tag in dataset:
            del dataset[tag]
        if tag in source:
            dataset.add(copied(source[tag]))
    for keyword in REQUIRED_KEYWORDS:
        if keyword not in dataset:
            setattr(dataset, keyword, "")


def _write_series(
    dataset: Dataset,
    source: Dataset,
    kind: str,
    pair: ObjectIdentifiers,
    node: NodeIdentity,
    algorithm: AlgorithmIdentity,
) -> None:
    dataset.SeriesInstanceUID = pair.series_uid
    dataset.SOPInstanceUID = pair.instance_uid
    dataset.SeriesNumber = SERIES_NUMBERS[kind]
    dataset.InstanceNumber = 1
    suffix = f" {_WORDS[kind]} {RESEARCH_MARKER if node.research_use else CLEARED_MARKER}"
    name = single_line(f"{algorithm.name} {algorithm.version}", LONG_STRING - len(suffix))
    dataset.SeriesDescription = name + suffix
    if kind in ("segmentation", "secondary_capture"):
        for keyword in ("BodyPartExamined", "Laterality"):
            if source.get(keyword):
                dataset.add(copied(source[keyword]))


def _write_times(dataset: Dataset, source: Dataset, created: datetime) -> None:
    local = local_time(created, source)
    date, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S.%f")
    for part in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{part}Date", date)
        setattr(dataset, f"{part}Time", time)


def _write_equipment(dataset: Dataset, node: NodeIdentity) -> None:
    dataset.Manufacturer = single_line(node.manufacturer, LONG_STRING)
    dataset.ManufacturerModelName = single_line(node.model_name, LONG_STRING)
    dataset.DeviceSerialNumber = single_line(node.serial_number, LONG_STRING)
    dataset.SoftwareVersions = single_line(node.software_version, LONG_STRING)
    for keyword, value, limit in (
        ("StationName", node.station_name, SHORT_STRING),
        ("InstitutionName", node.institution_name, LONG_STRING),
    ):
        if value:
            setattr(dataset, keyword, single_line(value, limit))


def _contribution(algorithm: AlgorithmIdentity, when: datetime, words: str) -> Dataset:
    """Return the algorithm's item of Contributing Equipment (PS3.3 C.12.1, IHE AIR 6.5.3.1)."""
    item = Dataset()
    item.Manufacturer = algorithm.manufacturer
    item.ManufacturerModelName = algorithm.name
    item.SoftwareVersions = algorithm.version
    item.DeviceUID = algorithm.device_uid
    item.ContributionDateTime = when.strftime("%Y%m%d%H%M%S.%f")
    item.ContributionDescription = words
    item.PurposeOfReferenceCodeSequence = DicomSequence(
        [CodedConcept(value="109102", scheme_designator="DCM", meaning="Processing Equipment")]
    )
    return item
