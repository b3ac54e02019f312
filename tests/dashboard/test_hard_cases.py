"""What is large, what has no results, and what was deleted meanwhile, through pages and viewer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from dashboard.app import create_app
from db.accounts import add_user
from db.models_access import Role
from inference import card as cards
from inference.findings import Finding, Interpretation, Presence
from inference.tasks import Task
from tests.dashboard.conftest import PASSWORD
from tests.dashboard.test_masks import unpacked
from tests.factories import write_enhanced
from tests.workflows.whole_node import Clock, ThresholdEngine, make_node, take_in, write_card
from workflows.consider import consider_study
from workflows.engine_thread import EngineThread, Steps
from workflows.node import Node
from workflows.stages import encode_job, interpret_job

FRAMES, SEGMENTS = 2000, 60


class ManyFindings(ThresholdEngine):
    """Finds each target on three frames of its own."""

    def answer_steps(
        self, images: NDArray[Any], *, modality: str, tasks: Sequence[Task], **_others: object
    ) -> Steps:
        yield 1.0
        findings = []
        for number, target in enumerate(tasks[0].targets):
            mask = np.zeros(images.shape, np.bool_)
            mask[30 * number : 30 * number + 3, 2:9, 3:11] = True
            findings.append(
                Finding(target, f"{target} is seen.", target, "Please.", Presence.PRESENT, 0.9,
                        mask, 30 * number + 1, 0.9)
            )  # fmt: skip
        return Interpretation(tuple(findings), "many", "1", self.digest, "none", len(images))


def card_of_many(folder: Path) -> None:
    """Write a card that lists sixty targets of CT."""
    card = cards.read_card(write_card(folder))
    one = card.targets[1]
    targets = tuple(one.model_copy(update={"name": f"target {n + 1}"}) for n in range(SEGMENTS))
    cards.write_card(card.model_copy(update={"targets": targets}), folder)


def reader(node: Node) -> TestClient:
    with node.database.session() as session:
        add_user(session, "olga", Role.OPERATOR, node.now(), password=PASSWORD)
    client = TestClient(create_app(node), follow_redirects=False)
    client.post("/login", data={"name": "olga", "password": PASSWORD})
    return client


@pytest.mark.timeout(400)
def test_a_job_of_two_thousand_frames_and_sixty_segments_is_shown_and_then_purged(
    tmp_path: Path,
) -> None:
    clock = Clock()
    node = make_node(tmp_path / "home", clock)
    card_of_many(tmp_path / "home" / "model")
    volume = np.indices((FRAMES, 16, 16)).sum(axis=0).astype(np.int16)
    take_in(node, [write_enhanced(tmp_path / "ct.dcm", volume, kind="CT")])
    with reader(node) as client:
        job_id = 1
        assert client.get(f"/jobs/{job_id}").status_code == 200  # without images and results yet
        assert client.get(f"/api/jobs/{job_id}/scene").json()["frames"] == 0
        assert client.get(f"/api/jobs/{job_id}/report.pdf").status_code == 404
        assert client.get(f"/api/jobs/{job_id}/picture.png").status_code == 404

        clock.forward(21)
        engine = EngineThread(lambda: ManyFindings(node.model.digest))
        engine.start()
        (queued,) = consider_study(node, 1)
        (encoding,) = interpret_job(node, queued.argument, engine)
        engine.stop()
        encode_job(node, encoding.argument)

        scene = client.get(f"/api/jobs/{job_id}/scene").json()
        assert scene["frames"] == FRAMES and len(scene["findings"]) == SEGMENTS
        packed = client.get(f"/api/jobs/{job_id}/masks").content
        described, found = unpacked(zlib.compress(packed))
        assert len(described["segments"]) == SEGMENTS and len(found) == 3 * SEGMENTS
        assert client.get(f"/api/jobs/{job_id}/frames/{FRAMES - 1}").status_code == 200
        page = client.get(f"/jobs/{job_id}").text
        assert "target 60 is seen." in page
        assert client.get(f"/api/jobs/{job_id}/report.pdf").content.startswith(b"%PDF")

        for path in (node.archive.root / "studies").rglob("*.dcm"):
            path.unlink()
        purged = client.get(f"/jobs/{job_id}")
        assert purged.status_code == 200 and "target 60 is seen." in purged.text
    with TestClient(create_app(node), follow_redirects=False) as client:  # nothing kept in memory
        client.post("/login", data={"name": "olga", "password": PASSWORD})
        assert client.get(f"/jobs/{job_id}").status_code == 200
        for address in ("scene", "frames/0", "picture.png"):
            gone = client.get(f"/api/jobs/{job_id}/{address}")
            assert gone.status_code == 404 and "send the study again" in gone.json()["detail"]
        assert client.get(f"/api/jobs/{job_id}/results/0/file").status_code == 200
    node.database.dispose()
