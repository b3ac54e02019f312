"""Orthanc as the tests start and end it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo_pacs import OrthancPacs, find_orthanc


class Orthanc(OrthancPacs):
    """Skips where it is not installed, and ends at once.

    Its orderly end takes two and a half seconds of waiting, of which a test that is over has
    nothing.
    """

    def __init__(self, folder: Path, options: dict[str, object] | None = None) -> None:
        program = find_orthanc()
        if program is None:
            pytest.skip("needs Orthanc (see tests/outside_peers.sh)")
        super().__init__(folder, program, options)

    def stop(self) -> int:
        """Kill it."""
        self.kill()
        return 0
