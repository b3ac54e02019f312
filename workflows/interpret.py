"""From a source's files to checked result objects, without queue and database.

The stages of a job as plain functions: `prepare`, `infer`, `encode`, `validate`. The tasks call
them one by one, and ``unibiomed-node interpret`` calls them in a row. Nothing here needs torch: the
model is loaded by `workflows.loading`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from pydicom import Dataset

from dicom_node.errors import FinalError
from dicom_node.objects import conformance
from dicom_node.objects import encoding as files
from dicom_node.objects.fallbacks import FORMS, Material, build_fallbacks
from dicom_node.objects.identifiers import Predecessor, ResultIdentifiers
from dicom_node.objects.measurements import Measurements, measure
from dicom_node.objects.pixels import PixelValues, read_pixels
from dicom_node.objects.provenance import NodeIdentity
from dicom_node.objects.report import (
    build_grounded_report,
    build_measurement_report,
    build_not_applicable_reports,
)
from dicom_node.objects.segmentation import build_segmentation
from dicom_node.objects.segments import segments_of
from dicom_node.objects.series import Source, read_sources
from dicom_node.objects.terminology import Codes
from inference.card import ModelCard
from inference.findings import Interpretation
from inference.tasks import Task
from workflows.destination_settings import DestinationSettings, ResultKind
from workflows.engine_thread import Engine, Question, steps_of
from workflows.errors import NotApplicableError
from workflows.forms import Accepted, report_class, segmentation_form
from workflows.model_card import KnownModel
from workflows.stored_interpretation import StoredInterpretation

NOTHING_KNOWN: Final[Accepted] = MappingProxyType({})
Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """A source with its pixels in physical units."""

    source: Source
    pixels: PixelValues


@dataclass(frozen=True, eq=False, slots=True)
class EncodedObject:
    """One result object, as data set and as the bytes of its file.

    Attributes
    ----------
    number
        From 1, where there are several of the kind.
    """

    kind: ResultKind
    dataset: Dataset
    data: bytes
    number: int | None = None

    @property
    def file_name(self) -> str:
        """Name of the file among the job's results."""
        return f"{self.kind}.dcm" if self.number is None else f"{self.kind}_{self.number:03d}.dcm"


@dataclass(frozen=True, eq=False, slots=True)
class Encoded:
    """All result objects of a job, in the order of sending, and what they state.

    Attributes
    ----------
    objects
        The segmentation first, if there is one; then the reports that refer to it; then what the
        destinations ask for besides.
    measurements
        By index of the finding.
    segment_numbers
        By index of the finding; those without a mask have none.
    encoding_note
        Why the segmentation, and a report of an unusual class, are encoded as they are.
    """

    objects: tuple[EncodedObject, ...]
    measurements: Mapping[int, Measurements]
    segment_numbers: Mapping[int, int]
    encoding_note: str


def one_source(
    paths: Sequence[Path],
    sop_instance_uids: Sequence[str],
    frame_numbers: Sequence[int] | None = None,
) -> Source:
    """Read the source of a job again from its files.

    Parameters
    ----------
    paths
        The files of the job's instances.
    sop_instance_uids
        Those of the job, in the order in which it was planned (and its masks were made).
    frame_numbers
        Frames of the job's one multi-frame instance, of which there may be several sources; the
        first of them is taken where it is not said.

    Returns
    -------
    Source
        Frames in just that order.

    Raises
    ------
    FinalError
        When the files are not what was planned any more.
    RetriableError
        When the operating system could not read them.
    """
    missing = sum(not path.exists() for path in paths)
    if missing:
        raise FinalError(
            f"{missing} of {len(paths)} files of this series are missing from the archive; "
            "send the series again, then retry the job"
        )
    sources, set_aside = read_sources(paths)
    for source in sources:
        same = source.sop_instance_uids == tuple(sop_instance_uids)
        if same and (frame_numbers is None or source.frame_numbers == tuple(frame_numbers)):
            return source
    reasons = "; ".join(dict.fromkeys(entry.reason for entry in set_aside))
    raise FinalError(
        "the files of this series do not form the stack any more that was planned"
        + (f" ({reasons})" if reasons else "")
        + "; send the study again"
    )


def bytes_of(source: Source) -> int:
    """Return how much memory the pixels of a source take once they are decoded: 32-bit values."""
    frames, rows, columns = source.shape
    return 4 * frames * rows * columns


def prepare(source: Source, scratch: Path | None = None) -> Prepared:
    """Read the pixels of a source; raises PixelError (final) or RetriableError.

    What does not fit into memory goes into a file in the folder ``scratch``.
    """
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Prepared(source, read_pixels(source, scratch))


def question_of(prepared: Prepared, tasks: Sequence[Task], card: ModelCard) -> Question:
    """Put what is asked of a source into the words of the model card.

    Raises
    ------
    NotApplicableError
        When the card does not list the modality, or wants values in a unit that these have not.
    """
    source = prepared.source
    modality = card.modality_for(source.modality)
    if modality is None:
        raise NotApplicableError(f"the model was not made for images of modality {source.modality}")
    unit = modality.intensity.unit.upper()
    for wanted, given in (("HU", "HU"), ("SUV", "SUVbw")):
        if unit.startswith(wanted) and prepared.pixels.unit != given:
            raise NotApplicableError(
                f"the model needs {modality.name} values in {wanted}, and this series does not "
                f"promise them ({prepared.pixels.description})"
            )
    return Question(
        images=prepared.pixels.values,
        modality=modality.name,
        kind="volume" if source.kind == "volume" else "images",
        tasks=tuple(tasks),
        spacing=_spacing(source),
        axes=None if source.geometry is None else source.geometry.axes,
        window=prepared.pixels.window,
    )


def _spacing(source: Source) -> tuple[float, float, float] | None:
    """Return mm between frames, rows, columns; None where one of them is not known."""
    if source.geometry is None or source.geometry.slice_spacing <= 0:
        return None
    rows, columns = source.geometry.spacing
    return source.geometry.slice_spacing, rows, columns


def infer(engine: Engine, question: Question, progress: Progress) -> Interpretation:
    """Let the model answer in this thread.

    Parameters
    ----------
    engine, question
        Who is asked, and what.
    progress
        Called with the fraction done after each small batch of slices; what it raises ends the
        work.
    """
    steps = steps_of(engine, question)
    while True:
        try:
            progress(next(steps))
        except StopIteration as finished:
            interpretation: Interpretation = finished.value
            return interpretation


def measure_findings(
    prepared: Prepared, interpretation: Interpretation, progress: Progress
) -> dict[int, Measurements]:
    """Measure every finding that has a mask; keys are indices of findings, from 0."""
    measurements: dict[int, Measurements] = {}
    segments = segments_of(interpretation)
    for done, segment in enumerate(segments):
        key_frame = segment.finding.key_frame or 0
        measurements[segment.index] = measure(
            segment.mask, prepared.source, prepared.pixels, key_frame
        )
        progress((done + 1) / len(segments))
    return measurements


def wants_probabilities(destinations: Sequence[DestinationSettings]) -> bool:
    """Whether a job's segmentation is one of probabilities: only where all destinations ask."""
    return bool(destinations) and all(one.seg_encoding == "fractional" for one in destinations)


def encode(
    prepared: Prepared,
    interpretation: Interpretation,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
    *,
    codes: Codes = Codes.ALL,
    destinations: Sequence[DestinationSettings] = (),
    also: Collection[ResultKind] = (),
    accepted: Accepted = NOTHING_KNOWN,
    progress: Progress,
) -> Encoded:
    """Measure the findings and build the objects.

    Parameters
    ----------
    prepared, interpretation
        What was looked at, and what was found.
    identifiers
        UIDs of the job: drawn once, the same ones give the same objects again.
    node
        Who writes.
    codes
        Which codes the site lets into its objects.
    destinations
        Where the objects go.
    also
        Forms that are built whatever the destinations ask for.
    accepted
        What the destinations take, as far as they were probed.
    progress
        Called with the fraction done.

    Raises
    ------
    FinalError
        When masks and source do not go together.
    """
    source = prepared.source
    measurements = measure_findings(prepared, interpretation, lambda part: progress(part / 2))
    form = segmentation_form(destinations, source, interpretation, accepted)
    report, report_note = report_class(destinations, accepted)
    segmentation = build_segmentation(
        source,
        interpretation,
        identifiers,
        node,
        encoding=form.encoding,
        compressed=form.compressed,
        codes=codes,
    )
    progress(0.7)
    arguments = (source, interpretation, measurements, segmentation, identifiers, node)
    built: list[tuple[ResultKind, Dataset | None]] = [
        ("segmentation", segmentation),
        ("measurement_report", build_measurement_report(*arguments, codes=codes, sop_class=report)),
        ("grounded_report", build_grounded_report(*arguments)),
    ]
    objects = [
        EncodedObject(kind, dataset, files.encode(dataset))
        for kind, dataset in built
        if dataset is not None
    ]
    progress(0.9)
    material = Material(
        source, prepared.pixels, interpretation, measurements, identifiers, node, codes
    )
    asked = {kind for destination in destinations for kind in destination.objects}
    objects += _fallbacks(material, {*asked, *also})
    numbers = {segment.index: segment.number for segment in segments_of(interpretation)}
    progress(1.0)
    notes = [form.why if segmentation is not None else "", report_note]
    return Encoded(tuple(objects), measurements, numbers, " ".join(filter(None, notes)))


def nothing_of(source: Source, model: KnownModel) -> Interpretation:
    """Return the interpretation of a source that the model was not asked about."""
    card = model.card
    return Interpretation((), card.name, card.version, model.digest, "", source.shape[0])


def encode_not_applicable(
    source: Source,
    stored: StoredInterpretation,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
    *,
    codes: Codes = Codes.ALL,
) -> Encoded:
    """Build the two reports that say why a source was not interpreted."""
    documents = build_not_applicable_reports(
        source,
        stored.task.targets,
        stored.not_applicable,
        stored.interpretation,
        identifiers,
        node,
        codes=codes,
    )
    kinds: tuple[ResultKind, ...] = ("measurement_report", "grounded_report")
    objects = tuple(
        EncodedObject(kind, dataset, files.encode(dataset))
        for kind, dataset in zip(kinds, documents, strict=True)
    )
    note = f"the model was not applicable, and the reports say so: {stored.not_applicable}"
    return Encoded(objects, {}, {}, note)


def _fallbacks(material: Material, asked: Collection[ResultKind]) -> Iterator[EncodedObject]:
    """Build what is asked for besides SEG and SR."""
    forms = [form for form in FORMS if form in asked]
    for form, datasets in build_fallbacks(forms, material):
        for number, dataset in enumerate(datasets, start=1):
            several = number if form == "secondary_capture" else None
            yield EncodedObject(form, dataset, files.encode(dataset), several)


def validate(
    paths: Sequence[Path],
    source: Source,
    predecessors: Iterable[Predecessor] = (),
    *,
    without_validator: Literal["hold", "send"] = "hold",
) -> list[conformance.Problem]:
    """Hold result files against the node's own rules and dciodvfy; errors forbid sending.

    A missing dciodvfy is an error as well, unless the site sends without it.
    """
    return conformance.check(
        list(paths),
        source.headers,
        missing_tools="error" if without_validator == "hold" else "warning",
        predecessors=[(one.kind, one.instance_uid) for one in predecessors],
    )
