"""Checkpoints that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.engine import SHIPPED, Engine
from tests.inference.tiny_model import save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint folder with tiny random weights; tests must not change it."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_engine(tiny_folder: Path) -> Engine:
    """Return an engine on the tiny checkpoint."""
    return Engine.load(tiny_folder, threads=1)


@pytest.fixture(scope="session")
def nano() -> Engine:
    """Return an engine on the shipped checkpoint."""
    return Engine.load(SHIPPED, threads=1)
