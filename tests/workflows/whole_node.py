"""A small node for tests of whole stages: home, database, archive, a model that thresholds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import yaml
from numpy.typing import NDArray
from sqlalchemy import select

from db.jobs import JobState
from db.models import Job
from db.session import Database
from dicom_node.archive import Archive
from inference import card as cards
from inference.findings import Finding, Interpretation, Presence
from inference.intensity import IntensityPolicy
from inference.tasks import Task
from tests.factories import ball
from workflows.configuration import load_configuration
from workflows.engine_thread import Steps
from workflows.home import Home
from workflows.node import Node, utc_now
from workflows.reconciliation import reconcile


@dataclass
class Clock:
    """The real clock, set ahead."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead

    def forward(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


def write_card(folder: Path) -> Path:
    """Write a checkpoint folder that holds a card and weights that nobody loads."""
    folder.mkdir(parents=True, exist_ok=True)
    interval = cards.Interval(low=0.8, high=0.95)
    score = cards.MeasuredScore(
        dice=0.9, dice_interval=interval, images=10, groups=5, floor=0.1, presence_auc=0.99,
        negatives=5, negatives_own=0, sensitivity=0.9, specificity=0.9, dice_shifted=0.8,
        floor_shifted=0.1,
    )  # fmt: skip
    presence = cards.PresenceCalibration(slope=1, offset=0, absent_below=0.3, present_from=0.7)
    window = IntensityPolicy(kind="window", lower=-200, upper=300, unit="HU")
    names = [("liver", "CT", ("ABDOMEN",)), ("aorta", "CT", ()), ("hippocampus", "MRI", ())]
    card = cards.ModelCard(
        name="threshold",
        version="1",
        licence="Apache-2.0",
        intended_use="tests",
        modalities=(
            cards.CardModality(name="CT", dicom=("CT",), kind="volume", intensity=window),
            cards.CardModality(name="MRI", dicom=("MR",), kind="volume", intensity=window),
        ),
        targets=tuple(
            cards.CardTarget(
                name=name, modality=modality, body_parts=parts, score=score, presence=presence
            )
            for name, modality, parts in names
        ),
    )
    cards.write_card(card, folder)
    (folder / "model.safetensors").write_bytes(b"nobody loads this")
    return folder


@dataclass
class ThresholdEngine:
    """Finds what is brighter than 100; the last target is always absent."""

    digest: str
    seconds_per_slice: float = 0.0
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def answer_steps(
        self,
        images: NDArray[Any],
        *,
        modality: str,
        kind: str,
        tasks: Sequence[Task],
        **_geometry: object,
    ) -> Steps:
        (task,) = tasks
        targets = task.targets
        self.asked.append(tuple(targets))
        for frame in range(len(images)):
            if self.seconds_per_slice:
                time.sleep(self.seconds_per_slice)
            yield (frame + 1) / len(images)
        mask = images > 100
        findings = [
            self._present(target, modality, mask) if mask.any() else self._absent(target, modality)
            for target in targets[:-1]
        ]
        findings.append(self._absent(targets[-1], modality))
        return Interpretation(tuple(findings), "threshold", "1", self.digest, "none", len(images))

    def _present(self, target: str, modality: str, mask: NDArray[np.bool_]) -> Finding:
        key_frame = int(mask.sum(axis=(1, 2)).argmax())
        text = f"{target.capitalize()} is seen in this {modality} series."
        return Finding(
            target, text, target.capitalize(), f"Please segment {target} in {modality}.",
            Presence.PRESENT, 0.95, mask, key_frame, 0.9,
        )  # fmt: skip

    def _absent(self, target: str, modality: str) -> Finding:
        return Finding(
            target, f"No {target} was found.", target, f"Please segment {target} in {modality}.",
            Presence.ABSENT, 0.05,
        )  # fmt: skip


def ct_volume() -> NDArray[np.int16]:
    """Return 8 slices with a bright ball."""
    volume = np.zeros((8, 32, 32), np.int16)
    volume[ball((8, 32, 32), centre_mm=(8, 16, 16), radius_mm=6)] = 150
    return volume


def write_home(root: Path, **sections: Any) -> Home:
    """Write a configured home; sections replace those of ``node.yaml``."""
    home = Home(root)
    home.make_folders()
    values: dict[str, Any] = {
        "storage": {"reserve": 0},
        "model": {"folder": str(write_card(root / "model"))},
        "peers": [{"name": "scanner", "ae_title": "SCANNER"}],
    }
    home.node_yaml.write_text(yaml.safe_dump(values | sections), encoding="utf-8")
    home.rules_yaml.write_text("rules:\n  - name: everything\n", encoding="utf-8")
    return home


def make_node(root: Path, clock: Clock | None = None, **sections: Any) -> Node:
    """Make a node with an empty database."""
    home = write_home(root, **sections)
    configuration = load_configuration(home)
    database = Database(configuration.database_url)
    database.upgrade()
    node = Node(configuration, database, Archive(home.archive, reserve_bytes=0))
    return node if clock is None else replace(node, now=clock)


def take_in(node: Node, paths: Sequence[Path]) -> int:
    """Put files into the archive and register them; returns the number that were new."""
    for path in paths:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        start = 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
        with node.archive.receive(
            ds.SOPClassUID, ds.SOPInstanceUID, str(ds.file_meta.TransferSyntaxUID)
        ) as incoming:
            incoming.write(path.read_bytes()[start:])
            incoming.file(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    return reconcile(node.database, node.archive, now=node.now).instances


def states(node: Node) -> dict[int, JobState]:
    """Return the state of each job."""
    with node.database.reading() as session:
        return {row.id: row.state for row in session.execute(select(Job.id, Job.state))}
