"""DICOM series with the masks that readers drew on them, as cases to evaluate or train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.sending import SendError, files_under
from dicom_node.objects.annotations import masks_of, read_annotations
from dicom_node.objects.pixels import read_pixels
from dicom_node.objects.series import Source, read_sources
from inference.card import ModelCard
from inference.series import Series, View
from learning.adaptation_recipe import TrainingSet
from learning.cases import Case, DataError
from learning.examples import Example, of_cases


def dicom_cases(folder: Path, card: ModelCard, names: Mapping[str, str]) -> Iterator[Case]:
    """Read every series under a folder that has a SEG or RTSTRUCT.

    Parameters
    ----------
    card
        Whose modalities the cases are in.
    names
        Label of a segment or ROI to the target of the card that it is; a label that is a target's
        name, but for capitals, needs no entry.

    Raises
    ------
    DataError
        When there are no files, or no series with a mask that has a name.
    """
    try:
        paths = files_under(folder)
    except SendError as error:
        raise DataError(str(error)) from error
    annotations = read_annotations(paths)
    sources, _ = read_sources(paths)
    seen: set[str] = set()
    count = 0
    for source in sources:
        modality = card.modality_for(source.modality)
        if modality is None:
            continue
        truths: dict[str, np.ndarray] = {}
        for annotation in annotations:
            for label, mask in masks_of(annotation, source).items():
                seen.add(label)
                target = names.get(label) or _same_name(label, modality.name, card)
                if target is not None:
                    truths[target] = truths[target] | mask if target in truths else mask
        if truths:
            count += 1
            yield _case(source, modality.name, truths)
    if count == 0:
        labels = ", ".join(sorted(seen)) or "none"
        raise DataError(
            f"no series under {folder} has a mask of a target of the card (labels found: "
            f"{labels}); --name 'label=target' says which label is which target"
        )


def open_dicom(card: ModelCard) -> Callable[[TrainingSet, Path], Iterator[Example]]:
    """Return what reads DICOM sets of a fine-tuning recipe, in the intensity of a card.

    The recipe's names may be targets that the card does not list yet: they are to be learned.
    """

    def pictures(case: Case) -> NDArray[np.uint8]:
        modality = card.modality(case.modality)
        if modality is None:
            raise DataError(f"the card of the base has no modality {case.modality}")
        series = Series(case.images, modality, case.kind, case.spacing)
        return View.of(series, series.policy()).pictures(slice(None))

    def read(entry: TrainingSet, path: Path) -> Iterator[Example]:
        return of_cases(dicom_cases(path, card, entry.names), pictures)

    return read


def _same_name(label: str, modality: str, card: ModelCard) -> str | None:
    plain = label.casefold().replace("_", " ").strip()
    return next(
        (
            target.name
            for target in card.targets
            if target.modality == modality and target.name.casefold() == plain
        ),
        None,
    )


def _case(source: Source, modality: str, truths: dict[str, np.ndarray]) -> Case:
    geometry = source.geometry
    spacing = None
    if geometry is not None and geometry.slice_spacing > 0:
        spacing = (geometry.slice_spacing, *geometry.spacing)
    patient = str(source.headers[0].get("PatientID", "")) or source.study_instance_uid
    return Case(
        name=source.series_instance_uid,
        images=read_pixels(source).values,
        modality=modality,
        kind="volume" if source.kind == "volume" else "images",
        truths=truths,
        source=source.modality,
        group=patient,
        spacing=spacing,
    )
