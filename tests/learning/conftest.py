"""Checkpoints that the tests of this folder share."""

from __future__ import annotations

import pytest

from inference.engine import SHIPPED, Engine


@pytest.fixture(scope="session")
def nano() -> Engine:
    """Return an engine on the shipped checkpoint."""
    return Engine.load(SHIPPED, threads=1)
