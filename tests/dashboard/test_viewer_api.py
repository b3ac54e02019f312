"""A job with real objects, seen through the application: values, masks, verdicts, questions."""

from __future__ import annotations

import csv
import json
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import yaml
from starlette.testclient import TestClient

from dashboard.app import create_app
from dashboard.masks import runs_of
from dashboard.training_data import Export, _archive
from db.accounts import add_user
from db.audit import audit_page
from db.jobs import JobState, job_as_json
from db.models_access import Role
from db.reviews import agreement
from db.withdrawals import record_withdrawal
from dicom_node.objects.report_tree import report_tree
from tests.dashboard.conftest import PASSWORD, csrf_of
from tests.dashboard.test_masks import unpacked
from tests.factories import write_ct_series
from tests.workflows.whole_node import Clock, ThresholdEngine, ct_volume, make_node, take_in
from workflows.answering import answer_next
from workflows.consider import consider_study
from workflows.engine_thread import EngineThread
from workflows.node import Node
from workflows.stages import encode_job, interpret_job
from workflows.training_export import export_reviews

DESTINATION = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 11113}


@dataclass
class Seen:
    """A node with one job at rest in delivering, and an operator's browser."""

    node: Node
    client: TestClient
    job_id: int
    paths: list[Path]
    csrf: str
    engine: EngineThread

    def post(self, address: str, content: Any = None) -> Any:
        headers = {"X-CSRF-Token": self.csrf}
        return self.client.post(address, json=content, headers=headers)

    @property
    def report(self) -> dict[str, Any]:
        with self.node.database.reading() as session:
            report = job_as_json(session, self.job_id)
        assert report is not None
        return report

    def segmentation(self) -> Path:
        return self.node.archive.absolute(self.report["results"][0]["file"])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("seen")
    clock = Clock()
    node = make_node(folder / "home", clock, destinations=[DESTINATION])
    paths = write_ct_series(folder / "ct", ct_volume())
    take_in(node, paths)
    clock.forward(21)
    model = ThresholdEngine(node.model.digest)
    engine = EngineThread(lambda: model)
    engine.start()
    (queued,) = consider_study(node, 1)
    (encoding,) = interpret_job(node, queued.argument, engine)
    encode_job(node, encoding.argument)
    with node.database.session() as session:
        add_user(session, "olga", Role.OPERATOR, node.now(), password=PASSWORD)
    with TestClient(create_app(node), follow_redirects=False) as client:
        client.post("/login", data={"name": "olga", "password": PASSWORD})
        yield Seen(node, client, queued.argument, paths, csrf_of(client), engine)
    engine.stop()
    node.database.dispose()


def test_the_scene_tells_frames_findings_and_measurements(seen: Seen) -> None:
    scene = seen.client.get(f"/api/jobs/{seen.job_id}/scene").json()
    assert (scene["frames"], scene["modality"], scene["volume"]) == (8, "CT", True)
    liver, absent = scene["findings"]
    assert liver["segment_number"] == 1 and liver["key_frame"] == scene["start"]
    assert any("volume" in words for words in liver["measured"])
    assert len(liver["axes"]) == 2
    assert absent["segment_number"] is None and absent["measured"] == []


def test_frames_are_the_files_values_and_are_sent_once(seen: Seen) -> None:
    order = {str(pydicom.dcmread(path).InstanceNumber): path for path in seen.paths}
    for index in range(8):
        address = f"/api/jobs/{seen.job_id}/frames/{index}"
        answer = seen.client.get(address)
        described = json.loads(answer.headers["X-Frame"])
        values = np.frombuffer(answer.content, described["type"])
        image = pydicom.dcmread(order[str(index + 1)])
        hounsfield = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        assert np.array_equal(values.reshape(32, 32), hounsfield)
        assert answer.headers["Cache-Control"] == "private, no-cache"
        again = seen.client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert seen.client.get(f"/api/jobs/{seen.job_id}/frames/8").status_code == 404


def test_masks_equal_those_that_highdicom_reads(seen: Seen) -> None:
    answer = seen.client.get(f"/api/jobs/{seen.job_id}/masks")
    described, found = unpacked(zlib.compress(answer.content))
    assert [one["label"] for one in described["segments"]] == ["liver"]
    read = highdicom.seg.segread(seen.segmentation())
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in seen.paths]
    expected = read.get_pixels_by_source_instance(
        uids, assert_missing_frames_are_empty=True, segment_numbers=[1]
    )[..., 0]
    for index in range(8):
        mask = found.get((1, index), np.zeros((32, 32), np.bool_))
        assert np.array_equal(mask, expected[index] > 0)


def test_results_are_files_and_trees(seen: Seen) -> None:
    for line in seen.report["results"]:
        base = f"/api/jobs/{seen.job_id}/results/{line['position']}"
        file = seen.client.get(f"{base}/file")
        path = seen.node.archive.absolute(line["file"])
        assert file.content == path.read_bytes()
        assert file.headers["Content-Type"] == "application/dicom"
        tree = seen.client.get(f"{base}/tree")
        if line["kind"] == "segmentation":
            assert tree.status_code == 404
        else:
            assert tree.json() == report_tree(path)
            assert tree.json()["children"]
    assert seen.client.get(f"/api/jobs/{seen.job_id}/results/77/file").status_code == 404


def test_the_report_comes_as_pdf_with_its_sentences_and_a_picture(
    seen: Seen,
) -> None:
    answer = seen.client.get(f"/api/jobs/{seen.job_id}/report.pdf")
    assert answer.headers["Content-Type"] == "application/pdf"
    assert f"job-{seen.job_id}-report.pdf" in answer.headers["Content-Disposition"]
    words = subprocess.run(["/usr/bin/pdftotext", "-", "-"], input=answer.content,
                           capture_output=True, check=True).stdout.decode()  # fmt: skip
    for finding in seen.report["findings"]:
        assert finding["text"].rstrip(".") in " ".join(words.split())
    assert "/Subtype /Image" in answer.content.decode("latin-1")
    assert seen.client.get("/api/jobs/77/report.pdf").status_code == 404


def test_pictures_are_small_and_have_the_colour_of_the_mask(seen: Seen) -> None:
    answer = seen.client.get(f"/api/jobs/{seen.job_id}/picture.png?side=96")
    assert answer.headers["Content-Type"] == "image/png"
    assert len(answer.content) < 20_000
    assert seen.client.get(f"/api/jobs/{seen.job_id}/picture.png?side=9999").status_code == 422
    assert seen.client.get("/api/series/1/picture.png").status_code == 200


def test_a_verdict_is_kept_with_name_and_time_and_the_last_one_counts(seen: Seen) -> None:
    address = f"/api/jobs/{seen.job_id}/findings/0/review"
    assert seen.post(address, {"verdict": "rejected", "remark": "a vessel"}).status_code == 200
    said = seen.post(address, {"verdict": "accepted"}).json()
    assert (said["account"], said["verdict"]) == ("olga", "accepted")
    scene = seen.client.get(f"/api/jobs/{seen.job_id}/scene").json()
    assert scene["findings"][0]["review"] == said
    with seen.node.database.reading() as session:
        assert [(one.target, one.accepted, one.rejected) for one in agreement(session)] == [
            ("liver", 1, 0)
        ]
    assert seen.post(f"/api/jobs/{seen.job_id}/findings/9/review", {"verdict": "accepted"}
                     ).status_code == 404  # fmt: skip


def test_an_edit_is_measured_against_the_model(seen: Seen) -> None:
    read = highdicom.seg.segread(seen.segmentation())
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in seen.paths]
    masks = read.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)[..., 0]
    empty = runs_of(np.zeros((32, 32), np.bool_)).tolist()
    address = f"/api/jobs/{seen.job_id}/findings/0/review"
    said = seen.post(address, {"verdict": "edited", "edits": {"4": empty}}).json()
    rest = int(masks.sum() - masks[4].sum())
    assert said["dice"] == pytest.approx(2 * rest / (rest + int(masks.sum())))
    assert said["edited_frames"] == [4]
    document = zlib.compress(seen.client.get(f"/api/jobs/{seen.job_id}/masks").content)
    assert (1, 4) in unpacked(document)[1]
    edits = unpacked(document, "edits")[1]
    assert edits.keys() == {(1, 4)} and not edits[1, 4].any()
    for wrong in ({"verdict": "edited"}, {"verdict": "accepted", "edits": {"4": empty}}):
        assert seen.post(address, wrong).status_code == 422
    for unfit in ({"99": empty}, {"4": [5]}):
        assert seen.post(address, {"verdict": "edited", "edits": unfit}).status_code == 409
    no_mask = f"/api/jobs/{seen.job_id}/findings/1/review"
    assert seen.post(no_mask, {"verdict": "edited", "edits": {"4": empty}}).status_code == 409


def test_verdicts_become_training_data_that_learning_reads(seen: Seen, tmp_path: Path) -> None:
    from learning.datasets import read_nifti

    address = f"/api/jobs/{seen.job_id}/findings"
    everywhere = runs_of(np.ones((32, 32), np.bool_)).tolist()
    seen.post(f"{address}/0/review", {"verdict": "edited", "edits": {"0": everywhere}})
    seen.post(f"{address}/1/review", {"verdict": "rejected"})
    told = export_reviews(seen.node, tmp_path)
    assert dict(told.written) == {"reviews_ct_liver": 1}
    assert list(told.left_out.values()) == [1]
    folder = tmp_path / "reviews_ct_liver"
    (line,) = csv.DictReader((folder / "labels.csv").read_text().splitlines())
    assert line["targets_present"] == "1=liver" and "P" not in line["group"]
    expected = ct_volume() > 100
    expected[0] = True
    assert np.array_equal(read_nifti(folder / line["mask"]) > 0, expected)
    assert np.array_equal(read_nifti(folder / line["image"]), ct_volume())

    seen.post(f"{address}/0/review", {"verdict": "rejected"})
    export_reviews(seen.node, tmp_path)
    assert not read_nifti(folder / line["mask"]).any()
    sources = yaml.safe_load((tmp_path / "sources.yaml").read_text())["sources"]
    assert sources == [
        {"folder": "reviews_ct_liver", "modality": "CT", "targets": {"liver, CT": [1]}}
    ]


def test_training_data_comes_by_the_page_as_the_command_writes_it(
    seen: Seen, tmp_path: Path
) -> None:
    told = export_reviews(seen.node, tmp_path / "command")
    with seen.node.database.session() as session:
        add_user(session, "ada", Role.ADMIN, seen.node.now(), password=PASSWORD)
    assert seen.client.get("/api/training-data.zip").status_code == 403
    # Not entered: the application runs already, for the other client.
    admin = TestClient(seen.client.app, follow_redirects=False)
    admin.post("/login", data={"name": "ada", "password": PASSWORD})
    assert "/api/training-data.zip" in admin.get("/agreement").text
    before = admin.get("/api/training-data").json()
    assert before["findings"] == 2 and before["export"] is None
    assert {one["target"]: one["rejected"] for one in before["targets"]}["liver"] == 1

    answer = admin.get("/api/training-data.zip")
    assert answer.headers["content-disposition"].startswith('attachment; filename="training-data-')
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "page")
        names = archive.namelist()
    command, page = tmp_path / "command", tmp_path / "page"
    written = sorted(str(one.relative_to(command)) for one in command.rglob("*") if one.is_file())
    assert sorted(names) == written
    for name in written:
        assert (page / name).read_bytes() == (command / name).read_bytes(), name
    export = admin.get("/api/training-data").json()["export"]
    assert export["whole"] and export["done"] == 2 and export["bytes"] == len(answer.content)
    assert export["written"] == dict(told.written)
    assert list(export["left_out"].values()) == [1]
    assert not list(seen.node.home.work.glob("training-*"))
    with seen.node.database.reading() as session:
        kept = {one.action: one for one in audit_page(session, limit=20).records}
    assert kept["reviews.export"].account == "ada"
    assert kept["reviews.export_end"].details["bytes"] == len(answer.content)


def test_an_export_that_is_broken_off_leaves_nothing_and_says_so(seen: Seen) -> None:
    exports = seen.client.app.state.exports  # type: ignore[attr-defined]
    endings: list[bool] = []
    export = Export("ada", seen.node.now(), 2)
    assert exports.begin(export) and not exports.begin(Export("eve", seen.node.now(), 2))
    pieces = _archive(seen.node, export, lambda: endings.append(export.whole))
    next(pieces)
    assert list(seen.node.home.work.glob("training-*"))
    pieces.close()  # as when the browser goes away
    assert endings == [False]
    assert not list(seen.node.home.work.glob("training-*"))
    export.ended_at = seen.node.now()


def test_a_question_is_answered_and_sent_as_a_job(seen: Seen) -> None:
    base = "/api/series/1/parts/0/questions"
    asked = seen.post(base, {"kind": "segmentation", "targets": ["aorta", "liver"]})
    assert asked.status_code == 201
    number = asked.json()["id"]
    assert asked.json()["state"] == "queued"
    assert seen.post(f"/api/questions/{number}/send").status_code == 409

    assert answer_next(seen.node, seen.engine)
    told = seen.client.get(f"/api/questions/{number}").json()
    assert told["state"] == "answered", told["error"]
    assert [one["target"] for one in told["findings"]] == ["aorta", "liver"]
    masks = seen.client.get(told["scene"]["masks_url"])
    import zlib

    _, found = unpacked(zlib.compress(masks.content))
    assert np.array_equal(np.stack([found[1, k] for k in sorted(k for _, k in found)]).any(0),
                          (ct_volume() > 100).any(0))  # fmt: skip
    before = states_of(seen.node)
    sent = seen.post(f"/api/questions/{number}/send").json()
    assert seen.post(f"/api/questions/{number}/send").json()["job_id"] == sent["job_id"]
    assert states_of(seen.node) == {**before, sent["job_id"]: JobState.ENCODING}
    (delivering,) = encode_job(seen.node, sent["job_id"])
    assert delivering.state is JobState.DELIVERING
    with seen.node.database.reading() as session:
        report = job_as_json(session, sent["job_id"])
    assert report is not None
    assert report["destinations"] == ["pacs"] and len(report["results"]) == 3
    assert seen.client.get(base).json()["questions"][0]["job_id"] == sent["job_id"]


def states_of(node: Node) -> dict[int, JobState]:
    from tests.workflows.whole_node import states

    return states(node)


def test_what_the_card_does_not_list_is_said_plainly(seen: Seen) -> None:
    base = "/api/series/1/parts/0/questions"
    number = seen.post(base, {"kind": "segmentation", "targets": ["unicorn"]}).json()["id"]
    # The test's own model answers anything: the card decides in the real engine, so ask that rule.
    refused = seen.post(base, {"kind": "segmentation", "targets": ["<img>"]})
    assert refused.status_code == 400 and "plain words" in refused.json()["detail"]
    assert seen.post(base, {"kind": "poem"}).status_code == 400
    assert seen.post(f"/api/questions/{number}/cancel").json()["state"] == "cancelled"
    assert not answer_next(seen.node, seen.engine)


def test_every_look_is_in_the_audit_trail(seen: Seen) -> None:
    seen.client.get(f"/jobs/{seen.job_id}")
    seen.client.get("/studies/1")
    seen.client.get("/series/1")
    with seen.node.database.reading() as session:
        actions = {(one.action, one.target) for one in audit_page(session, limit=500).records}
    job = f"job {seen.job_id}"
    assert ("images.view", job) in actions and ("finding.review", job) in actions
    assert ("study.view", "study 1") in actions and ("images.view", "series 1") in actions


@pytest.mark.parametrize("page", ["/jobs/1", "/studies", "/studies/1", "/series/1", "/agreement"])
def test_pages_open(seen: Seen, page: str) -> None:
    assert seen.client.get(page).status_code == 200


def test_what_is_gone_is_said(seen: Seen) -> None:
    for address in ("/api/jobs/999/scene", "/api/series/999/parts/0/scene", "/api/questions/999",
                    "/series/999", "/jobs/999/ask"):  # fmt: skip
        assert seen.client.get(address).status_code == 404


def test_what_was_withdrawn_is_neither_shown_nor_handed_out(seen: Seen) -> None:
    lines = seen.report["results"]
    with seen.node.database.session() as session:
        record_withdrawal(
            session, seen.job_id, [one["sop_instance_uid"] for one in lines],
            reason="quality", words="on the <wrong> side", account="olga", now=seen.node.now(),
        )  # fmt: skip
    for line in lines:
        base = f"/api/jobs/{seen.job_id}/results/{line['position']}"
        for address in (f"{base}/file", f"{base}/tree"):
            answer = seen.client.get(address)
            assert answer.status_code == 410 and "withdrawn" in answer.text
    assert seen.client.get(f"/api/jobs/{seen.job_id}/scene").json()["masks_url"] is None
    page = seen.client.get(f"/jobs/{seen.job_id}").text
    assert "results of this job were withdrawn" in page
    assert "on the &lt;wrong&gt; side" in page
    assert "/results/0/file" not in page and "report.pdf" not in page
    assert seen.client.get(f"/api/jobs/{seen.job_id}/report.pdf").status_code == 410
