"""rules.yaml and the plan that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from dicom_node.objects.series import Source, read_sources
from tests.factories import StudyIdentity, write_ct_series, write_image, write_localizer
from workflows.home import default_rules_text
from workflows.rules import Plan, Rules, StudyFacts, plan, rules_of
from workflows.settings import NodeSettings
from workflows.yaml_positions import ConfigurationError, parse_marked


@dataclass(frozen=True)
class Target:
    name: str
    category: str = "anatomy"


class Card:
    """Knows liver and spleen in CT, nothing else; the spleen only in the abdomen."""

    def targets_for(self, dicom_modality: str, body_part: str = "") -> tuple[Target, ...]:
        if dicom_modality != "CT":
            return ()
        targets = (Target("liver"), Target("spleen"))
        return {"CHEST": targets[:1], "FOOT": ()}.get(body_part, targets)


def rules(text: str) -> Rules:
    return rules_of(parse_marked(text, "rules.yaml"), NodeSettings())


def a_source(folder: Path, count: int = 4, **attributes: Any) -> Source:
    volume = np.zeros((count, 8, 8), np.int16)
    (source,) = read_sources(write_ct_series(folder, volume, attributes=attributes))[0]
    return source


def made(text: str, source: Source, **facts: Any) -> Plan:
    study = StudyFacts(source.study_instance_uid, **facts)
    return plan(study, [source], [], rules(text), Card(), destinations=("pacs", "archive"))


def test_the_default_rule_takes_all_that_the_card_lists(tmp_path: Path) -> None:
    assert rules(default_rules_text()) == Rules()
    result = made(default_rules_text(), a_source(tmp_path))
    (pair,) = result.pairs
    assert pair.targets == ("liver", "spleen")
    assert pair.destinations == ("pacs", "archive")
    assert pair.priority == 6
    assert result.sentence == ""


def test_disease_recognition_asks_for_lesions_alone(tmp_path: Path) -> None:
    source = a_source(tmp_path)
    result = made("rules: [{name: a, task: disease_recognition}]", source)
    assert "the model knows no disease in images of modality CT" in result.sentence
    report = made("rules: [{name: a, task: grounded_report}]", source)
    assert report.pairs[0].rule.task == "grounded_report"
    assert report.pairs[0].targets == ("liver", "spleen")


def test_the_body_part_narrows_all_but_not_a_list(tmp_path: Path) -> None:
    chest = a_source(tmp_path, BodyPartExamined="CHEST")
    assert made("rules: [{name: a}]", chest).pairs[0].targets == ("liver",)
    foot = a_source(tmp_path / "foot", BodyPartExamined="FOOT")
    assert "knows no target in CT images of FOOT" in made("rules: [{name: a}]", foot).sentence
    listed = made("rules: [{name: a, targets: [Spleen]}]", chest)
    assert listed.pairs[0].targets == ("spleen",)


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("Modality: CT", True),
        ("Modality: ct", True),
        ("Modality: MR", False),
        ("Modality: [MR, CT]", True),
        ("StudyDescription: '*thorax*'", True),
        ("StudyDescription: 'thorax'", False),
        ("StudyDescription: '?1 Thorax [low dose]'", True),
        ("ImageType: ORIGINAL", True),
        ("ImageType: DERIVED", False),
        ("SliceThickness: 2", True),
        ("SliceThickness: '2.00'", True),
        ("SliceThickness: {at_least: 1, at_most: 3}", True),
        ("SliceThickness: {at_most: 1.5}", False),
        ("KVP: {at_least: 100}", True),
        ("BodyPartExamined: {none_of: [FOOT, HAND]}", True),
        ("BodyPartExamined: {none_of: ['AB*']}", False),
        ("ProtocolName: {present: false}", True),
        ("ProtocolName: {present: true}", False),
        ("ProtocolName: '*'", False),
        ("ProtocolName: {none_of: [x]}", True),
        ("StationName: {at_least: 1}", False),
    ],
)
def test_conditions(tmp_path: Path, condition: str, fits: bool) -> None:
    source = a_source(tmp_path, StudyDescription="CT1 Thorax [low dose]".replace("CT1", "A1"))
    result = made(f"rules:\n- name: a\n  when:\n    {condition}\n", source)
    assert bool(result.pairs) is fits, result.reasons
    if not fits:
        assert condition.split(":")[0] in result.reasons[0].text


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("minimum_instances: 5", "has 4 images, asked for are at least 5"),
        ("series: {modality: [MR, PT]}", "modality is CT, asked for is MR or PT"),
        ("series: {description: 'T1*'}", "Series Description is Venous, asked for is T1*"),
        ("series: {not_description: ['*ven*']}", "Venous, which the rule leaves out"),
        ("targets: [heart]", "the model knows none of heart in images of modality CT"),
    ],
)
def test_each_selection_says_why_not(tmp_path: Path, rule: str, reason: str) -> None:
    source = a_source(tmp_path, SeriesDescription="Venous")
    result = made(f"rules:\n- name: mine\n  {rule}\n", source)
    assert result.pairs == ()
    assert reason in result.sentence
    assert "series 1 'Venous' (rule 'mine')" in result.sentence


def test_derived_images_are_taken_and_projections_are_not(tmp_path: Path) -> None:
    derived = a_source(tmp_path / "a", ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    assert made("rules: [{name: a}]", derived).pairs
    projection = a_source(tmp_path / "b", ImageType=["DERIVED", "SECONDARY", "MIP"])
    assert "not an original image" in made("rules: [{name: a}]", projection).sentence
    assert made("rules: [{name: a, series: {original_only: false}}]", projection).pairs


def test_localizers_are_left_out(tmp_path: Path) -> None:
    sources, set_aside = read_sources([write_localizer(tmp_path)])
    assert "localizer" in plan(StudyFacts("1"), sources, set_aside, Rules(), Card()).sentence


def test_own_results_never_trigger(tmp_path: Path) -> None:
    source = a_source(tmp_path / "a")
    own = made("rules: [{name: a}]", source, own_series={source.series_instance_uid})
    assert "its own results" in own.sentence
    ours = a_source(tmp_path / "b", Manufacturer="Us", ManufacturerModelName="Node")
    assert made("rules: [{name: a}]", ours, own_equipment=("Us", "Other")).pairs
    assert not made("rules: [{name: a}]", ours, own_equipment=("Us", "Node")).pairs


def test_what_others_made_of_own_results_does_not_trigger_either(tmp_path: Path) -> None:
    item = Dataset()
    item.DeviceUID = "2.25.77"
    source = a_source(tmp_path, ContributingEquipmentSequence=[item])
    assert made("rules: [{name: all}]", source).pairs
    own = made("rules: [{name: all}]", source, own_devices={"2.25.77"})
    assert "written by this node" in own.sentence


def test_what_has_a_uid_of_this_node_does_not_trigger(tmp_path: Path) -> None:
    source = a_source(tmp_path)
    arc = source.series_instance_uid.rpartition(".")[0] + "."
    assert made("rules: [{name: all}]", source, own_root="1.2.276.0.99.7.").pairs
    assert "written by this node" in made("rules: [{name: all}]", source, own_root=arc).sentence


def test_each_rule_makes_its_own_pair(tmp_path: Path) -> None:
    text = """
    rules:
    - {name: quick, priority: stat, targets: liver, destinations: archive}
    - {name: never, when: {Modality: MR}}
    - {name: rest, priority: urgent}
    """
    settings = NodeSettings.model_validate(
        {"destinations": [{"name": "archive", "ae_title": "A", "host": "h", "port": 1}]}
    )
    source = a_source(tmp_path)
    result = plan(
        StudyFacts("1"), [source], [], rules_of(parse_marked(text, "x"), settings), Card()
    )
    assert [(pair.rule.name, pair.priority) for pair in result.pairs] == [("quick", 0), ("rest", 3)]
    assert result.pairs[0].destinations == ("archive",)
    assert [reason.rule for reason in result.reasons] == ["never"]


def test_the_called_ae_title_chooses_the_rule(tmp_path: Path) -> None:
    text = """
rules:
- {name: lung, called: LUNG}
- {name: both, called: [LUNG, LIVER]}
- {name: always}
"""
    source = a_source(tmp_path)
    assert rules(text).called_ae_titles == {"LUNG", "LIVER"}
    chosen = made(text, source, called_ae_titles={"LIVER"})
    assert [pair.rule.name for pair in chosen.pairs] == ["both", "always"]
    assert "was sent to LIVER, asked for is LUNG" in str(chosen.reasons[0])
    assert [pair.rule.name for pair in made(text, source).pairs] == ["always"]


def test_what_was_set_aside_is_said(tmp_path: Path) -> None:
    study = StudyIdentity()
    path = write_image(tmp_path / "x.dcm", np.zeros((8, 8), np.uint8), kind="CR", study=study)
    ds = pydicom.dcmread(path)
    del ds.PixelData
    ds.save_as(path)
    sources, set_aside = read_sources([path])
    result = plan(StudyFacts("1"), sources, set_aside, Rules(), Card())
    assert "no Pixel Data" in result.sentence and "1 image" in result.sentence


def test_an_empty_study_has_a_sentence() -> None:
    assert "no images" in plan(StudyFacts("1"), [], [], Rules(), Card()).sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules:\n- {name: a}\n- {name: A}\n", ["rules.yaml:3:", "already used by rules[0]"]),
        ("rules:\n- name: a\n  when: {Modalty: CT}\n", ["rules.yaml:3:", "not the keyword"]),
        ("rules:\n- name: a\n  when: {modality: CT}\n", ["rules.yaml:3:", "write 'Modality'"]),
        ("rules:\n- name: a\n  when: {KVP: {above: 3}}\n", ["rules.yaml:3:", "at_least"]),
        ("rules:\n- name: a\n  when: {KVP: {at_least: 3, at_most: 1}}\n", ["rules.yaml:3:"]),
        ("rules:\n- name: a\n  when: {KVP: yes}\n", ["rules.yaml:3:", "YES and NO need quotes"]),
        ("rules:\n- name: a\n  priority: high\n", ["rules.yaml:3:", "'stat'"]),
        ("rules:\n- name: a\n  targts: all\n", ["rules.yaml:3:", "'targets'"]),
        ("rules:\n- name: a\n  series: {modalty: CT}\n", ["rules.yaml:3:", "'modality'"]),
        ("rules:\n- name: a\n  targets: []\n", ["rules.yaml:3:"]),
        ("rules:\n- name: a\n  destinations: pacs\n", ["rules.yaml:3:", "no destination 'pacs'"]),
        ("rule:\n- name: a\n", ["rules.yaml:1:", "'rules'"]),
        ("rules:\n- name: a\n  targets: [x]\n  critical: [X, y]\n", ["rules.yaml:4:", "'y'"]),
    ],
)
def test_mistakes_in_rules_have_line_and_mend(text: str, said: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rules(text)
    (found,) = [str(problem) for problem in caught.value.problems]
    assert all(part in found for part in said), found
