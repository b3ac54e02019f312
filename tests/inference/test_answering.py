"""Every task through the engine, on the shipped model and on tiny ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.card import CardTarget, SpokenTask, write_card
from inference.engine import Engine
from inference.errors import FinalInferenceError, NotCoveredError
from inference.findings import Finding, Presence
from inference.location import parts
from inference.regions import Region
from inference.segmenting import Segmenter, Steps
from inference.series import Series
from inference.tasks import QUESTION_TASKS, REGION_TASKS, Sort, Task, TaskKind
from learning.metrics import dice
from learning.phantom import Phantom, generate_phantom
from tests.inference.test_decoding import Scripted
from tests.inference.tiny_model import save_tiny, tiny_card

AXES = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
"""Axial slices as they usually lie: frames to the head, rows to the back, columns to the left."""


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return generate_phantom(7, (10, 256, 256), (12.0, 1.4, 1.4), inserts=1)


def ask(engine: Engine, phantom: Phantom, *tasks: Task, **changes: Any) -> tuple[Finding, ...]:
    arguments = {"spacing": phantom.spacing, "axes": AXES, **changes}
    return engine.answer(
        phantom.volume, modality="CT", kind="volume", tasks=tasks, **arguments
    ).findings


def question(words: str, *, grounded: bool = True) -> Task:
    kind = TaskKind.GROUNDED_QUESTION if grounded else TaskKind.QUESTION
    return Task(kind, question=words)


def test_recognition_asks_everything_on_the_card(nano: Engine, phantom: Phantom) -> None:
    found = ask(nano, phantom, Task(TaskKind.RECOGNITION))
    listed = [target.name for target in nano.card.targets if target.modality == "CT"]
    assert [one.target for one in found] == listed
    seen = {one.target: one for one in found}
    assert seen["phantom insert"].presence is Presence.PRESENT
    assert {one.task for one in found} == {"recognition"}


def test_disease_recognition_asks_the_lesions(nano: Engine, phantom: Phantom) -> None:
    found = ask(nano, phantom, Task(TaskKind.DISEASE_RECOGNITION))
    assert [one.target for one in found] == ["soft-tissue sarcoma"]
    with pytest.raises(NotCoveredError, match="lists no abnormality in fundus images"):
        nano.answer(
            phantom.volume[:1],
            modality="fundus",
            kind="images",
            tasks=[Task(TaskKind.DISEASE_RECOGNITION)],
        )


def test_a_report_says_what_where_how_large_and_how_sure(nano: Engine, phantom: Phantom) -> None:
    report = ask(nano, phantom, Task(TaskKind.GROUNDED_REPORT))
    one = {finding.target: finding for finding in report}["phantom insert"]
    assert one.mask is not None
    assert dice(one.mask, phantom.labels > 0) > 0.85
    assert one.text.startswith("Phantom insert seen in this CT series, in the ")
    for part in (" of the imaged field; ", "volume ", " cm3", " mm", "probability 0."):
        assert part in one.text
    assert one.phrase in one.text


def test_a_box_around_an_insert_is_named(nano: Engine, phantom: Phantom) -> None:
    frame = int(np.argmax((phantom.labels > 0).sum(axis=(1, 2))))
    around = Region.of_mask(phantom.labels[frame] > 0, frame)
    box = Region(around.box, frame)
    for region in (around, box):
        (one,) = ask(nano, phantom, Task(TaskKind.REGION_CLASSIFICATION, region=region))
        assert one.target == "phantom insert"
        assert one.key_frame == frame
        assert one.mask is not None
        assert not np.delete(one.mask, frame, axis=0).any()
    (one,) = ask(nano, phantom, Task(TaskKind.REGION_REPORT, region=box))
    assert "fills" in one.text
    assert "In the region: mean value" in one.text
    assert "HU" in one.text


def test_what_several_tasks_ask_about_is_looked_for_once(
    nano: Engine, phantom: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: list[tuple[str, ...]] = []
    segment = Segmenter.segment

    def counted(self: Segmenter, series: Series, targets: Sequence[CardTarget]) -> Steps:
        looked_for.append(tuple(target.name for target in targets))
        return (yield from segment(self, series, targets))

    monkeypatch.setattr(Segmenter, "segment", counted)
    listed = tuple(target.name for target in nano.card.targets if target.modality == "CT")
    box = Region.of_box(100, 100, 160, 160, frame=5)
    tasks = (
        Task.segment("phantom insert"),
        Task(TaskKind.GROUNDED_REPORT),
        question("Is there a soft-tissue sarcoma?"),
        question("How large is the phantom insert?", grounded=False),
        Task(TaskKind.REGION_CLASSIFICATION, region=box),
    )
    together = ask(nano, phantom, *tasks)
    # A report needs the rest of the card; a region its frame as an image of its own.
    assert looked_for == [listed[-1:], listed[:-1], listed]
    alone = [one for task in tasks for one in ask(nano, phantom, task)]
    for one, other in zip(together, alone, strict=True):
        assert (one.target, one.presence, one.task) == (other.target, other.presence, other.task)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)
        assert (one.mask is None) == (other.mask is None)
        if one.mask is not None and other.mask is not None:
            assert dice(one.mask, other.mask) > 0.99


def test_an_empty_corner_shows_nothing_and_gets_no_mask(nano: Engine, phantom: Phantom) -> None:
    (one,) = ask(
        nano,
        phantom,
        Task(TaskKind.REGION_CLASSIFICATION, region=Region.of_box(0, 0, 20, 20, frame=5)),
    )
    assert one.presence is Presence.ABSENT
    assert one.mask is None
    assert "none of what the model card lists" in one.text


def test_a_region_outside_is_refused_in_words(nano: Engine, phantom: Phantom) -> None:
    for region, message in (
        (Region.of_box(0, 0, 500, 20), "the images have 256 rows"),
        (Region.of_box(0, 0, 5, 20, frame=99), "frame 99, the last one is 9"),
    ):
        with pytest.raises(FinalInferenceError, match=message):
            ask(nano, phantom, Task(TaskKind.REGION_CLASSIFICATION, region=region))


def test_closed_questions_are_answered_from_masks(nano: Engine, phantom: Phantom) -> None:
    (yes,) = ask(nano, phantom, question("Is there a phantom insert?"))
    assert yes.text.startswith("Yes: phantom insert seen in this CT series (probability 0.")
    assert yes.mask is not None
    (plain,) = ask(nano, phantom, question("Is there a phantom insert?", grounded=False))
    assert plain.mask is None
    assert plain.presence is Presence.PRESENT
    (size,) = ask(nano, phantom, question("How large is the phantom insert?"))
    assert " cm3" in size.text
    (count,) = ask(nano, phantom, question("How many phantom inserts can be seen?"))
    assert yes.mask is not None
    assert f"{parts(yes.mask, whole=True)} separate part" in count.text
    (kind,) = ask(nano, phantom, question("Which modality is this?"))
    assert kind.text == "This is a CT series."
    assert kind.mask is None


def test_the_side_is_the_patients_where_the_axes_are_known(nano: Engine, phantom: Phantom) -> None:
    # The insert lies in the middle of the phantom, and on the low columns of this part of it.
    part = phantom.volume[:, :, 90:]
    task = question("On which side is the phantom insert?")
    for axes, words in (
        (AXES, "the patient's right side"),
        (AXES * np.array([-1.0, 1, 1]), "the patient's left side"),
        (None, "the side is unknown"),
    ):
        (one,) = nano.answer(
            part,
            modality="CT",
            kind="volume",
            tasks=[task],
            spacing=phantom.spacing,
            axes=axes,
        ).findings
        assert words in one.text


@pytest.mark.parametrize(
    "words",
    [
        "Is there a liver?",
        "Where is the left kidney?",
        "Will it rain tomorrow?",
        "Which medication should be given?",
        "What is wrong with the spleen?",
    ],
)
def test_questions_off_the_card_are_not_covered(nano: Engine, phantom: Phantom, words: str) -> None:
    with pytest.raises(NotCoveredError, match=r"not covered.*phantom insert.*it can be asked"):
        ask(nano, phantom, question(words))


def test_a_phrase_off_the_card_never_gives_a_mask(nano: Engine) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1, 64, 64), dtype=np.uint8)
    for task in (Task.segment("liver"), Task(TaskKind.RECOGNITION, ("liver",))):
        with pytest.raises(NotCoveredError, match="does not list liver in ultrasound"):
            nano.answer(picture, modality="ultrasound", kind="images", tasks=[task])


@given(words=st.text(max_size=60))
def test_any_question_is_answered_or_refused_in_words(tiny_engine: Engine, words: str) -> None:
    images = np.random.default_rng(3).normal(100, 30, (1, 16, 16)).astype(np.float32)
    try:
        task = Task(TaskKind.QUESTION, question=words)
    except ValueError:
        return
    try:
        found = tiny_engine.answer(images, modality="MRI", kind="images", tasks=[task]).findings
    except NotCoveredError:
        return
    assert all(one.mask is None for one in found)


def spoken_engine(folder: Path, text: str, volume_slices: int = 0) -> Engine:
    """Return a tiny engine whose card lists every task as spoken, and which says ``text``."""
    save_tiny(folder)
    card = tiny_card()
    spoken = tuple(
        SpokenTask(kind=kind, metric="accuracy", value=1, baseline=0, items=1, groups=1)
        for kind in TaskKind
        if kind not in (TaskKind.SEGMENTATION, TaskKind.RECOGNITION)
    )
    prompts = card.prompts.model_copy(update={"volume_slices": volume_slices})
    write_card(card.model_copy(update={"spoken": spoken, "prompts": prompts}), folder)
    engine = Engine.load(folder, threads=1)
    engine._checkpoint.model.mllm.lm_head = Scripted(text)
    return engine


def any_task(kind: TaskKind) -> Task:
    return Task(
        kind,
        region=Region.of_box(2, 2, 12, 12, frame=1) if kind in REGION_TASKS else None,
        question="What can be seen?" if kind in QUESTION_TASKS else "",
    )


SPOKEN = [k for k in TaskKind if k not in (TaskKind.SEGMENTATION, TaskKind.RECOGNITION)]


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_spoken_answer_keeps_its_words_and_its_mask(tmp_path: Path, kind: TaskKind) -> None:
    engine = spoken_engine(tmp_path, "It is [SEG]. hippocampus in mri.<|end|>")
    images = np.random.default_rng(3).normal(100, 30, (5, 20, 30)).astype(np.float32)
    (one,) = engine.answer(images, modality="MRI", kind="volume", tasks=[any_task(kind)]).findings
    assert one.text == "hippocampus in mri"
    assert one.target == "hippocampus"
    assert one.task == kind.value
    if kind is TaskKind.QUESTION:
        assert one.mask is None
    elif one.mask is not None:
        assert one.mask.shape == (5, 20, 30)
        if kind in REGION_TASKS:
            assert one.key_frame == 1


def test_spoken_words_off_the_card_get_no_mask(tmp_path: Path) -> None:
    engine = spoken_engine(tmp_path, "<p> a liver tumor </p> [SEG]<|end|>")
    images = np.random.default_rng(3).normal(100, 30, (1, 20, 30)).astype(np.float32)
    task = any_task(TaskKind.GROUNDED_REPORT)
    (one,) = engine.answer(images, modality="MRI", kind="images", tasks=[task]).findings
    assert one.mask is None
    assert one.text == "a liver tumor"
    assert one.presence is Presence.UNCERTAIN


def test_a_volume_can_be_asked_as_a_whole(tmp_path: Path) -> None:
    images = np.random.default_rng(3).normal(100, 30, (9, 20, 30)).astype(np.float32)
    engine = spoken_engine(tmp_path, "", volume_slices=3)
    found = engine.segment(images, modality="MRI", kind="volume", targets=["hippocampus"]).findings
    assert found[0].target == "hippocampus"
    alone = spoken_engine(tmp_path, "")
    other = alone.segment(images, modality="MRI", kind="volume", targets=["hippocampus"]).findings
    assert other[0].confidence != found[0].confidence


def test_a_named_region_needs_the_mask_of_its_name(tmp_path: Path) -> None:
    """The tiny model's masks are noise: what they do not reach is not named, whatever was said."""
    engine = spoken_engine(tmp_path, "")
    images = np.random.default_rng(3).normal(100, 30, (5, 20, 30)).astype(np.float32)
    for box in ((2, 2, 12, 12), (0, 0, 20, 30)):
        engine._checkpoint.model.mllm.lm_head = Scripted("hippocampus in MRI<|end|>")
        task = Task(TaskKind.REGION_CLASSIFICATION, region=Region.of_box(*box, frame=1))
        (one,) = engine.answer(images, modality="MRI", kind="volume", tasks=[task]).findings
        assert "What is the <region> in the picture?" in one.prompt
        if one.mask is None:
            assert one.presence is Presence.ABSENT
            assert "shows none of what the model card lists" in one.text
        else:
            assert "named by the language model" in one.text
            assert one.mask[1, box[0] : box[2], box[1] : box[3]].any()


def test_one_sort_of_question_may_be_answered_in_own_words(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    own = SpokenTask(
        kind=TaskKind.QUESTION, sort=Sort.ORGAN, metric="accuracy", value=1, baseline=0,
        items=1, groups=1,
    )  # fmt: skip
    write_card(tiny_card().model_copy(update={"spoken": (own,)}), tmp_path)
    engine = Engine.load(tmp_path, threads=1)
    engine._checkpoint.model.mllm.lm_head = Scripted("The brain.<|end|>")
    images = np.random.default_rng(3).normal(100, 30, (1, 20, 30)).astype(np.float32)

    def answered(words: str) -> str:
        task = Task(TaskKind.QUESTION, question=words)
        return engine.answer(images, modality="MRI", kind="images", tasks=[task]).findings[0].text

    assert answered("Which organ is shown?") == "The brain."
    assert answered("Is there a hippocampus?") != "The brain."
    with pytest.raises(ValueError, match="is no question"):
        SpokenTask(**{**own.model_dump(), "kind": TaskKind.REGION_REPORT})
