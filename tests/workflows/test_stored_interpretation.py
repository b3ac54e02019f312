"""What the model found, on disk."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.findings import Finding, Interpretation, Presence
from inference.tasks import Task, TaskKind
from tests.factories import truncate
from workflows import stored_interpretation as storage
from workflows.stored_interpretation import StoredInterpretation, StoredInterpretationError


def stored(shape: tuple[int, int, int] = (3, 5, 7), seed: int = 0) -> StoredInterpretation:
    mask = np.random.default_rng(seed).random(shape) > 0.5
    mask[0, 0, 0] = True
    findings = (
        Finding("liver", "The liver “é”.", "liver", "p", Presence.PRESENT, 0.9, mask, 0, 0.8),
        Finding("spleen", "No spleen.", "spleen", "p", Presence.ABSENT, 0.1),
        Finding("aorta", "Perhaps.", "aorta", "p", Presence.UNCERTAIN, 0.5, ~mask, 0, None)
        if (~mask).any()
        else Finding("aorta", "Perhaps.", "aorta", "p", Presence.UNCERTAIN, 0.5),
    )
    found = Interpretation(findings, "m", "1", "d" * 64, "window", shape[0])
    return StoredInterpretation(found, ("1.2", "1.3"), Task.segment("liver", "spleen", "aorta"))


def test_probabilities_are_kept(tmp_path: Path) -> None:
    before = stored()
    first = before.interpretation.findings[0]
    assert first.mask is not None
    values = np.where(first.mask, 200, 17).astype(np.uint8)
    with_values = dataclasses.replace(first, probabilities=values)
    others = before.interpretation.findings[1:]
    interpretation = dataclasses.replace(before.interpretation, findings=(with_values, *others))
    storage.write(tmp_path, dataclasses.replace(before, interpretation=interpretation))
    after = storage.read(tmp_path).interpretation.findings
    assert after[0].probabilities is not None
    assert np.array_equal(after[0].probabilities, values)
    assert after[2].probabilities is None


@given(st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 100))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("job")
    before = stored(shape, seed)
    storage.write(folder, before)
    after = storage.read(folder)
    assert after == before
    pairs = zip(before.interpretation.findings, after.interpretation.findings, strict=True)
    for one, other in pairs:
        assert (one.mask is None) == (other.mask is None)
        if one.mask is not None and other.mask is not None:
            assert np.array_equal(one.mask, other.mask)


def test_only_the_same_question_is_answered_from_the_disk(tmp_path: Path) -> None:
    before = stored()
    storage.write(tmp_path, before)
    same = (before.sop_instance_uids, before.task, "d" * 64)
    assert storage.read_if_same(tmp_path, *same) is not None
    assert storage.read_if_same(tmp_path, ("1.3", "1.2"), *same[1:]) is None
    assert storage.read_if_same(tmp_path, same[0], Task.segment("liver"), same[2]) is None
    report = Task(TaskKind.GROUNDED_REPORT, before.task.targets)
    assert storage.read_if_same(tmp_path, same[0], report, same[2]) is None
    assert storage.read_if_same(tmp_path, *same[:2], "other weights") is None
    assert storage.read_if_same(tmp_path / "none", *same) is None


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_not_an_answer(tmp_path: Path, keep: float) -> None:
    path = storage.write(tmp_path, stored())
    truncate(path, keep=keep)
    with pytest.raises(StoredInterpretationError, match=r"interpretation\.npz cannot be read"):
        storage.read(tmp_path)


def test_a_later_answer_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    storage.write(tmp_path, stored(seed=1))
    storage.write(tmp_path, stored(seed=2))
    assert storage.read(tmp_path) == stored(seed=2)
    assert [path.name for path in tmp_path.iterdir()] == [storage.FILE_NAME]


def test_a_full_disk_keeps_the_earlier_answer_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write(tmp_path, stored())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write(tmp_path, stored(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == [storage.FILE_NAME]
    assert storage.read(tmp_path) == stored()
