"""The form of an object follows what the destinations take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.probes import accepted_by
from tests.dicom_node.objects.example_results import finding, interpretation, make_source
from tests.factories import write_ct_series
from tests.factories.scripted_web import says, scripted_web
from tests.workflows.nodes import destination, told
from tests.workflows.pacs import COMPREHENSIVE_3D_SR, ENHANCED_SR, SEG, Pacs
from tests.workflows.whole_node import (
    Clock,
    ThresholdEngine,
    ct_volume,
    make_node,
    take_in,
)
from workflows.consider import consider_study
from workflows.delivery import deliver_job
from workflows.destination_settings import AeDestinationSettings
from workflows.engine_thread import EngineThread
from workflows.forms import consequences, report_class, segmentation_form
from workflows.probing import probe_destination
from workflows.stages import encode_job, interpret_job

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
EXPLICIT, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"
ALL = {one: [EXPLICIT, RLE] for one in (SEG, LABEL_MAP, COMPREHENSIVE_3D_SR, ENHANCED_SR)}


def entry(name: str, **settings: object) -> AeDestinationSettings:
    return AeDestinationSettings.model_validate(
        {"name": name, "ae_title": "A", "host": "h", "port": 104, **settings}
    )


@pytest.mark.parametrize(
    ("settings", "refused", "expected", "words"),
    [
        ({}, None, "binary", "BINARY"),
        ({}, [], "binary", "BINARY"),
        ({}, [SEG], "labelmap", "takes nothing else"),
        ({}, [SEG, LABEL_MAP], "binary", "BINARY"),
        ({"seg_encoding": "labelmap"}, [], "labelmap", "as the destination asks"),
        ({"seg_encoding": "labelmap"}, [LABEL_MAP], "binary", "takes no label map"),
        ({"garbles_unaligned": True}, [LABEL_MAP], "labelmap", "takes no label map"),
    ],
)
def test_the_segmentation_takes_the_form_that_is_taken(
    settings: dict[str, object],
    refused: list[str] | None,
    expected: str,
    words: str,
    tmp_path: Path,
) -> None:
    # 33 x 37 pixels do not end on whole bytes.
    source = make_source("CT", tmp_path, shape=(2, 33, 37))
    found = interpretation([finding("liver", np.ones(source.shape, np.bool_))], 2)
    accepted = {} if refused is None else {"one": {**ALL, **{uid: [] for uid in refused}}}
    form = segmentation_form([entry("one", **settings)], source, found, accepted)
    assert form.encoding == expected and words in form.why


@pytest.mark.parametrize(
    ("syntaxes", "compressed", "words"),
    [
        (None, True, "Compressed by RLE."),
        ([EXPLICIT, RLE], True, "Compressed by RLE."),
        ([EXPLICIT], False, "Not compressed: one takes no RLE for label maps"),
        ([], True, "Compressed by RLE."),  # takes no label map: one is forced upon it, or none
    ],
)
def test_a_label_map_is_compressed_where_rle_is_taken(
    syntaxes: list[str] | None, compressed: bool, words: str, tmp_path: Path
) -> None:
    source = make_source("CT", tmp_path, shape=(2, 33, 37))
    found = interpretation([finding("liver", np.ones(source.shape, np.bool_))], 2)
    accepted = {} if syntaxes is None else {"one": {**ALL, LABEL_MAP: syntaxes}}
    there = [entry("one", seg_encoding="labelmap", garbles_unaligned=True), entry("two")]
    form = segmentation_form(there, source, found, accepted)
    assert (form.encoding, form.compressed) == ("labelmap", compressed)
    assert words in form.why
    # A BINARY object is not compressed whatever is taken.
    form = segmentation_form([entry("one")], source, found, accepted)
    assert (form.encoding, form.compressed) == ("binary", False)
    assert form.why.endswith("Not compressed.")


def test_measurements_go_out_in_enhanced_sr_only_where_nothing_else_is_taken() -> None:
    one, two = entry("one"), entry("two")
    picky = {**ALL, COMPREHENSIVE_3D_SR: []}
    assert report_class([one, two], {})[0] == COMPREHENSIVE_3D_SR
    assert report_class([one, two], {"one": ALL})[0] == COMPREHENSIVE_3D_SR
    chosen, why = report_class([one, two], {"one": ALL, "two": picky})
    assert chosen == ENHANCED_SR and "two takes no" in why
    only = {"one": {**ALL, ENHANCED_SR: []}, "two": picky}
    assert report_class([one, two], only)[0] == COMPREHENSIVE_3D_SR
    without = entry("two", objects=["segmentation"])
    assert report_class([one, without], {"two": picky})[0] == COMPREHENSIVE_3D_SR


def test_a_probe_is_kept_and_the_next_job_goes_by_it(tmp_path: Path) -> None:
    clock, pacs = Clock(), Pacs(classes=(SEG, ENHANCED_SR))
    pacs.start()
    node = make_node(tmp_path / "home", clock, destinations=[destination(pacs)])
    (asked,) = node.settings.destinations
    assert isinstance(asked, AeDestinationSettings)
    assert not probe_destination(node, asked).sentence
    with node.database.reading() as session:
        taken = accepted_by(session, ["pacs", "other"])["pacs"]
    assert taken[SEG] and taken[ENHANCED_SR] and not taken[COMPREHENSIVE_3D_SR]
    take_in(node, write_ct_series(tmp_path / "ct", ct_volume()))
    clock.forward(21)
    (queued,) = consider_study(node, 1)
    engine = EngineThread(lambda: ThresholdEngine(node.model.digest))
    engine.start()
    interpret_job(node, queued.argument, engine)
    engine.stop()
    encode_job(node, queued.argument)
    deliver_job(node, queued.argument)
    job = told(node, queued.argument)
    pacs.stop()
    assert job["state"] == "delivered" and len(pacs.received) == 3
    assert any("takes no Comprehensive 3D SR" in event["text"] for event in job["events"])
    assert any("Not compressed." in event["text"] for event in job["events"])
    assert probe_destination(node, asked).sentence  # it is away now
    with node.database.reading() as session:
        assert accepted_by(session, ["pacs"])["pacs"] == taken
    node.database.dispose()


@pytest.mark.parametrize(
    ("settings", "refused", "words"),
    [
        ({}, [], "Segmentations go out BINARY, not compressed."),
        ({}, [LABEL_MAP], "BINARY, not compressed: it takes no label map."),
        ({}, [SEG], "as LABELMAP, compressed by RLE: it takes nothing else."),
        ({}, [SEG, LABEL_MAP], "Segmentations: not taken"),
        ({"seg_encoding": "labelmap"}, [], "go out as LABELMAP, compressed by RLE."),
        ({"garbles_unaligned": True}, [], "or as LABELMAP where its viewer"),
        ({}, [COMPREHENSIVE_3D_SR], "Measurements in Enhanced SR"),
        ({}, [COMPREHENSIVE_3D_SR, ENHANCED_SR], "Measurements: not taken."),
        ({"objects": ["report_document"]}, [], "Report document: not taken (Encapsulated PDF"),
    ],
)
def test_a_probe_says_what_follows_from_it(
    settings: dict[str, object], refused: list[str], words: str
) -> None:
    said = consequences(entry("one", **settings), {**ALL, **{uid: [] for uid in refused}})
    assert any(words in one for one in said), said


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([says(200, []), says(204, Allow="GET, POST")], "It stores (STOW-RS)"),
        ([says(200, []), says(200, Allow="GET")], "does not seem to store (STOW-RS)"),
        ([says(204), says(405)], "does not say whether it stores"),
    ],
)
def test_a_web_destination_tells_its_services_and_what_stays_open_is_said(
    answers: list[Any], words: str, tmp_path: Path
) -> None:
    with scripted_web() as server:
        server.answers = answers
        node = make_node(
            tmp_path / "home", Clock(), destinations=[{"name": "web", "url": server.url}]
        )
        answer = probe_destination(node, node.settings.destinations[0])
        assert [line.split("?")[0] for line, *_ in server.seen] == [
            "GET /dicom/studies", "OPTIONS /dicom/studies"]  # fmt: skip
    assert answer.accepted is None and not answer.sentence
    assert words in answer.told[1]
    assert "cannot be known before an object is sent" in answer.told[2]
    with node.database.reading() as session:
        assert accepted_by(session, ["web"]) == {}
    assert "no answer" in probe_destination(node, node.settings.destinations[0]).sentence
    node.database.dispose()
