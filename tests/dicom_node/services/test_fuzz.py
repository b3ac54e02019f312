"""The fuzzer of `benchmarks`, on as many inputs as each test run can bear."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest

from benchmarks import fuzz


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each refused input is worth a line in a log, and pydicom warns of odd values."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def test_hostile_messages_get_an_answer_each() -> None:
    answers = fuzz.run(5000, seed=20261127)
    assert answers["taken"] + answers["answered with A-ABORT"] == 5000
    assert min(answers["data set read"], answers["data set refused"]) > 100


def test_an_input_that_breaks_something_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault made for this test")

    monkeypatch.setattr(fuzz, "read_header", broken)
    with pytest.raises(RuntimeError, match=r"input \d of seed 1.*a fault made"):
        fuzz.run(10, seed=1)
