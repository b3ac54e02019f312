"""Rules for reports as documents (IHE AIR checks 25 to 28 and 35 to 39), and what readers need."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.objects.conformance_rules import (
    DOCUMENTS,
    KEY_OBJECTS,
    MEASUREMENT_REPORTS,
    MEASUREMENT_TEMPLATE,
    MEASUREMENT_TITLES,
    REPORT_CLASSES,
    REPORTS,
    TEXT_REPORTS,
    Kind,
    Need,
    Rule,
    Subject,
    content_items,
    evidence_of,
    first_code,
    first_scheme,
    kind_of,
    named,
    references,
    text_of,
)
from dicom_node.objects.references import is_multi_frame

COMPREHENSIVE_3D, ENHANCED = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.22"
# The codes of what the trees are made of (PS3.16).
OBSERVER_TYPE, DEVICE, PROCEDURE_REPORTED, LANGUAGE = "121005", "121007", "121058", "121049"
DEVICE_UID, ALGORITHM_NAME = "121012", "111001"
FINDING, FINDINGS, IMPRESSIONS, IMAGE_LIBRARY = "121071", "59776-5", "19005-8", "111028"
MODALITY_DESCRIPTOR, STUDY_DATE, FRAME_OF_REFERENCE = "121139", "111060", "112227"
# CID 7010 and 7011: key images, and the four reasons to reject (IHE IOCM).
SELECTION_TITLES = frozenset({"113000", "113013", "113001", "113037", "113038", "113039"})


def right_form(subject: Subject) -> Iterator[str]:
    """Hold that measurements are TID 1500 in Comprehensive 3D SR."""
    dataset = subject.dataset
    # Our own goes out in Enhanced SR where an archive takes nothing else; `report.class` warns.
    allowed = {COMPREHENSIVE_3D, ENHANCED} if subject.ours else {COMPREHENSIVE_3D}
    if dataset.SOPClassUID not in allowed:
        yield f"the SOP class is {dataset.SOPClassUID}, not Comprehensive 3D SR"
    yield from _template(dataset, MEASUREMENT_TEMPLATE)
    if first_code(dataset, "ConceptNameCodeSequence") not in MEASUREMENT_TITLES:
        yield "the title is not in CID 7021"


def usual_class(subject: Subject) -> Iterator[str]:
    """Warn of the class that was chosen for an archive that takes no other."""
    if subject.dataset.SOPClassUID == ENHANCED:
        yield "measurements in Enhanced SR: IHE AIR asks for Comprehensive 3D SR"


def readable_form(subject: Subject) -> Iterator[str]:
    """Hold that the text report is TID 2000 in Enhanced SR."""
    if subject.dataset.SOPClassUID != ENHANCED:
        yield f"the SOP class is {subject.dataset.SOPClassUID}, not Enhanced SR"
    yield from _template(subject.dataset, "2000")


def _template(dataset: Dataset, template: str) -> Iterator[str]:
    items = dataset.get("ContentTemplateSequence") or []
    if not items or items[0].get("TemplateIdentifier") != template:
        yield f"the root does not say that it follows template {template}"


def device_observes(subject: Subject) -> Iterator[str]:
    """Hold that language and observer are stated, and the observer is a device."""
    dataset = subject.dataset
    if not named(dataset, LANGUAGE):
        yield "the language is missing"
    observers = [first_code(item, "ConceptCodeSequence") for item in named(dataset, OBSERVER_TYPE)]
    verified = dataset.get("VerificationFlag") == "VERIFIED"
    if DEVICE not in observers:
        yield "no device is named as observer"
    elif observers != [DEVICE] and not verified:
        yield "a person is named as observer, but nobody has verified the document"
    if DEVICE in observers and not named(dataset, DEVICE_UID):
        yield "the observing device has no UID"


def names_the_procedure(subject: Subject) -> Iterator[str]:
    """Hold that Procedure Reported is the imaging procedure, not the algorithm."""
    items = named(subject.dataset, PROCEDURE_REPORTED)
    if not items:
        yield "Procedure reported is missing"
    names = {
        text_of(item, "TextValue").casefold()
        for item in content_items(subject.dataset)
        if first_code(item, "ConceptNameCodeSequence") == ALGORITHM_NAME
    }
    for item in items:
        codes = item.get("ConceptCodeSequence") or []
        meaning = text_of(codes[0], "CodeMeaning").casefold() if codes else ""
        if first_scheme(item, "ConceptCodeSequence") == "99IHE" or meaning in names:
            yield "Procedure reported names the algorithm, not the imaging procedure"


def has_library(subject: Subject) -> Iterator[str]:
    """Hold that the analysed images are listed with modality, date and frame of reference."""
    libraries = named(subject.dataset, IMAGE_LIBRARY)
    images = [item for one in libraries for item in content_items(one)]
    if not any(item.get("ValueType") == "IMAGE" for item in images):
        yield "the Image Library is missing or lists no image"
        return
    said = {first_code(item, "ConceptNameCodeSequence") for item in images}
    wanted = {MODALITY_DESCRIPTOR: "the modality"}
    # Old archives write 1997.04.24, which a DATE item cannot hold.
    date = "" if subject.source is None else text_of(subject.source, "StudyDate")
    if re.fullmatch(r"\d{8}", date):
        wanted[STUDY_DATE] = "the study date"
    if any(text_of(seg, "FrameOfReferenceUID") for seg in subject.segmentations.values()):
        wanted[FRAME_OF_REFERENCE] = "the frame of reference"
    for code, words in wanted.items():
        if code not in said:
            yield f"the Image Library does not give {words}"


def evidence_is_tree(subject: Subject) -> Iterator[str]:
    """Compare what the tree refers to with what is listed as evidence."""
    used = {str(item.ReferencedSOPInstanceUID) for _, item in references(subject.dataset)}
    evidence = evidence_of(subject.dataset)
    if used - evidence:
        yield f"{len(used - evidence)} referenced objects are not listed as evidence"
    if evidence - used:
        yield f"{len(evidence - used)} objects of the evidence are not in the tree"


def honest_flags(subject: Subject) -> Iterator[str]:
    """Hold that an unseen document says so, and the procedure sequences are there."""
    dataset = subject.dataset
    if dataset.get("CompletionFlag") not in ("COMPLETE", "PARTIAL"):
        yield "CompletionFlag is neither COMPLETE nor PARTIAL"
    if dataset.get("VerificationFlag") == "UNVERIFIED":
        if "VerifyingObserverSequence" in dataset:
            yield "a verifying observer is named in an unverified document"
        if dataset.get("PreliminaryFlag") != "PRELIMINARY":
            yield "PreliminaryFlag is not PRELIMINARY, and nobody has verified the document"
    elif subject.ours or not dataset.get("VerifyingObserverSequence"):
        yield "VerificationFlag is not UNVERIFIED, and no person has verified the document"
    for keyword in ("ReferencedPerformedProcedureStepSequence", "PerformedProcedureCodeSequence"):
        if keyword not in dataset:
            yield f"{keyword} is absent; it must be there, if only empty"


def names_predecessors(subject: Subject) -> Iterator[str]:
    """Hold that a corrected report names the one that it replaces."""
    named_uids = set()
    for study in subject.dataset.get("PredecessorDocumentsSequence") or []:
        if not text_of(study, "StudyInstanceUID"):
            yield "a predecessor has no study"
        for series in study.get("ReferencedSeriesSequence") or []:
            for item in series.get("ReferencedSOPSequence") or []:
                named_uids.add(text_of(item, "ReferencedSOPInstanceUID"))
                if item.get("ReferencedSOPClassUID") not in REPORT_CLASSES:
                    yield "a predecessor is not a report"
    if "PredecessorDocumentsSequence" in subject.dataset and not named_uids:
        yield "Predecessor Documents Sequence names no document"
    if subject.uid in named_uids:
        yield "the report is its own predecessor"
    if subject.predecessors - named_uids:
        yield "the report that this one replaces is not among its predecessors"


def resolved_references(subject: Subject) -> Iterator[str]:
    """Hold that everything the tree points at is a source or goes out before it."""
    known = {uid: str(source.SOPClassUID) for uid, source in subject.sources.items()}
    known |= {str(one.SOPInstanceUID): str(one.SOPClassUID) for one in subject.objects}
    for _, reference in references(subject.dataset):
        uid = str(reference.ReferencedSOPInstanceUID)
        sop_class = str(reference.ReferencedSOPClassUID)
        if uid not in known:
            yield "the tree refers to an object that is neither a source nor sent with it"
        elif known[uid] != sop_class:
            yield f"the tree gives {sop_class} as the class of an object of {known[uid]}"


def one_entry_point(subject: Subject) -> Iterator[str]:
    """Hold that one measurement report speaks for a result, and selections have a known title."""
    if subject.kind is Kind.KEY_OBJECTS:
        if first_code(subject.dataset, "ConceptNameCodeSequence") not in SELECTION_TITLES:
            yield "the title is none for key images (113000, 113013) and none for rejection"
        return
    for other in subject.objects:
        if other is subject.dataset or kind_of(other) is not Kind.MEASUREMENT_REPORT:
            continue
        shared = evidence_of(other) & evidence_of(subject.dataset) & set(subject.segmentations)
        if shared:
            yield "two measurement reports speak of one segmentation: which is the result?"


def existing_frames(subject: Subject) -> Iterator[str]:
    """Hold that multi-frame sources, and only those, are referred to by frame."""
    for item, reference in references(subject.dataset):
        source = subject.sources.get(str(reference.ReferencedSOPInstanceUID))
        if source is None:
            continue
        number = reference.get("ReferencedFrameNumber")
        frames = int(source.get("NumberOfFrames") or 1)
        if number is not None and not is_multi_frame(source):
            yield "a frame number is given for a single-frame image"
        elif number is not None and int(number) > frames:
            yield f"frame {number} is referred to, the image has {frames}"
        elif number is None and frames > 1 and item.get("RelationshipType") == "SELECTED FROM":
            yield "coordinates on a multi-frame image do not say on which frame"


def filled_sequences(subject: Subject) -> Iterator[str]:
    """Look for empty content sequences."""
    for item in content_items(subject.dataset):
        if "ContentSequence" in item and not item.ContentSequence:
            yield "an item has an empty Content Sequence (type 1C)"


def grounded_in_words(subject: Subject) -> Iterator[str]:
    """Hold that each sentence with references names segment and image in words too."""
    for section in named(subject.dataset, FINDINGS):
        for item in named(section, FINDING):
            numbers = [
                int(reference.ReferencedSegmentNumber)
                for child in item.get("ContentSequence") or []
                for reference in child.get("ReferencedSOPSequence") or []
                if reference.get("ReferencedSegmentNumber") is not None
            ]
            words = re.findall(r"\[F\d+: segment (\d+), image \d+\]", str(item.TextValue))
            if [str(number) for number in numbers] != words:
                yield "a sentence does not name the segment and image that it is inferred from"


def names_its_origin(subject: Subject) -> Iterator[str]:
    """Hold that the impression says that it was generated."""
    texts = [
        str(item.get("TextValue", ""))
        for section in named(subject.dataset, IMPRESSIONS)
        for item in section.get("ContentSequence") or []
    ]
    if not any("AI-generated" in text for text in texts):
        yield "the impression does not say that it is AI-generated"


RULES: tuple[Rule, ...] = (
    Rule(
        "AIR-25",
        "Measurements are TID 1500 in Comprehensive 3D SR.",
        "IHE AIR 1.1; PS3.16 TID 1500, CID 7021",
        MEASUREMENT_REPORTS,
        right_form,
    ),
    Rule(
        "AIR-26",
        "The language and a device as the observer are stated, no person who took no part.",
        "PS3.16 TID 1204, TID 1001, TID 1004",
        REPORTS,
        device_observes,
    ),
    Rule(
        "AIR-27",
        "Procedure reported is the imaging procedure, not the algorithm.",
        "IHE AIR 1.1; PS3.16 CID 100",
        REPORTS,
        names_the_procedure,
    ),
    Rule(
        "AIR-28",
        "The Image Library lists the analysed images, with modality, date, frame of reference.",
        "PS3.16 TID 1600, TID 1602",
        MEASUREMENT_REPORTS,
        has_library,
    ),
    Rule(
        "AIR-35",
        "The evidence is what the tree refers to, no more and no less.",
        "PS3.3 C.17.2.3",
        DOCUMENTS,
        evidence_is_tree,
        foreign="warning",
        foreign_kinds=DOCUMENTS,
    ),
    Rule(
        "AIR-36",
        "Flags say that no person has seen it; the procedure sequences are there.",
        "PS3.3 C.17.2",
        REPORTS,
        honest_flags,
    ),
    Rule(
        "AIR-37",
        "A corrected report names the one that it replaces.",
        "PS3.3 C.17.2; IHE AIR",
        REPORTS,
        names_predecessors,
    ),
    Rule(
        "AIR-38",
        "What the tree refers to is a source, or is sent with it.",
        "IHE AIR; PS3.3 C.17.2.3",
        DOCUMENTS,
        resolved_references,
        foreign="warning",
        needs=Need.SOURCES,
        foreign_kinds=DOCUMENTS,
    ),
    Rule(
        "AIR-39",
        "One measurement report is the entry to a result; selections have a known title.",
        "IHE AIR; PS3.16 CID 7010, CID 7011",
        MEASUREMENT_REPORTS | KEY_OBJECTS,
        one_entry_point,
    ),
    Rule(
        "report.class",
        "Measurements go out in Comprehensive 3D SR where the destinations take it.",
        "IHE AIR 1.1",
        MEASUREMENT_REPORTS,
        usual_class,
        "warning",
        foreign=None,
    ),
    Rule(
        "report.form",
        "The text report is TID 2000 in Enhanced SR.",
        "PS3.16 TID 2000",
        TEXT_REPORTS,
        readable_form,
        foreign=None,
    ),
    Rule(
        "report.frames",
        "Frame numbers stand where the source is multi-frame, and only there.",
        "PS3.3 table 10-3; OHIF jumps to the frame",
        DOCUMENTS,
        existing_frames,
        foreign_kinds=DOCUMENTS,
    ),
    Rule(
        "report.content",
        "No empty Content Sequence.",
        "PS3.3 C.17.3: type 1C",
        DOCUMENTS,
        filled_sequences,
        foreign_kinds=DOCUMENTS,
    ),
    Rule(
        "viewer.grounding",
        "A sentence names in words the segment and image that it is inferred from.",
        "OHIF hides the references",
        TEXT_REPORTS,
        grounded_in_words,
        foreign=None,
    ),
    Rule(
        "report.origin",
        "The impression says that it is AI-generated.",
        "readers must see it where they read",
        TEXT_REPORTS,
        names_its_origin,
        foreign=None,
    ),
)
