"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is no assertion: beside other tests it takes what they leave it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with the real data, or skip: tests must also run on a bare clone."""
    named = os.environ.get("UNIBIOMED_SHARED")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    data = root / "data"
    if not data.is_dir():
        pytest.skip(f"needs the shared real data, looked for in {data} (set UNIBIOMED_SHARED)")
    return data
