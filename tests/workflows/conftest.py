from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import *  # noqa: F403
from tests.workflows.nodes import Clock
from tests.workflows.pacs import Pacs


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    pacs = Pacs()
    pacs.start()
    yield pacs
    pacs.stop()
