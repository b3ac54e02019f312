"""The stages as plain functions: what the destinations of a job decide together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploy.phantom_study import demo_phantom, write_phantom_study
from dicom_node.objects.series import read_sources
from dicom_node.objects.terminology import Codes
from inference.engine import Engine
from inference.tasks import Task, TaskKind
from tests.dicom_node.objects.example_results import IDENTIFIERS, NODE
from workflows import interpret
from workflows.destination_settings import AeDestinationSettings, DestinationSettings


def destinations(*encodings: str) -> list[DestinationSettings]:
    return [
        AeDestinationSettings.model_validate(
            {
                "name": f"d{number}",
                "ae_title": "PACS",
                "host": "127.0.0.1",
                "port": 104,
                "seg_encoding": encoding,
            }
        )
        for number, encoding in enumerate(encodings)
    ]


def test_probabilities_are_asked_for_where_all_destinations_want_them() -> None:
    assert interpret.wants_probabilities(destinations("fractional", "fractional"))
    assert not interpret.wants_probabilities(destinations("fractional", "auto"))
    assert not interpret.wants_probabilities([])


@pytest.mark.parametrize("asked", [True, False])
def test_the_models_probabilities_become_a_fractional_segmentation(
    asked: bool, tmp_path: Path
) -> None:
    files = write_phantom_study(demo_phantom(), tmp_path)[18:22]
    (source,), _ = read_sources(files)
    prepared = interpret.prepare(source)
    engine = Engine.load()
    wanted = destinations("fractional", "fractional" if asked else "binary")
    task = Task(
        TaskKind.SEGMENTATION,
        ("phantom insert",),
        probabilities=interpret.wants_probabilities(wanted),
    )
    question = interpret.question_of(prepared, [task], engine.card)
    found = interpret.infer(engine, question, lambda part: None)
    encoded = interpret.encode(
        prepared,
        found,
        IDENTIFIERS,
        NODE,
        codes=Codes.ALL,
        destinations=wanted,
        progress=lambda part: None,
    )
    segmentation = encoded.objects[0].dataset
    assert segmentation.SegmentationType == ("FRACTIONAL" if asked else "BINARY")
    if asked:
        assert found.findings[0].probabilities is not None
        assert set(np.unique(segmentation.pixel_array)) > {0, 255}
