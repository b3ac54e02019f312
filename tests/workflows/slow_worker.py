"""``celery -A tests.workflows.slow_worker:app``: the node's tasks with a model that takes its time.

Seconds per slice come from the environment variable SECONDS_PER_SLICE.
"""

from __future__ import annotations

import os

from tests.workflows.whole_node import ThresholdEngine
from workflows.engine_thread import EngineThread
from workflows.tasks import app, process

__all__ = ["app"]


def _load() -> ThresholdEngine:
    seconds = float(os.environ.get("SECONDS_PER_SLICE", "0"))
    return ThresholdEngine(process.node.model.digest, seconds)


# In the place of the cached property: the thread that would load the real model.
vars(process)["engine"] = EngineThread(_load)
