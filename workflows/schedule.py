"""The application that sends the periodic messages: ``celery -A workflows.schedule:app beat``.

Beat runs no task, so it need not import what the tasks do: that halves its memory.
"""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

from workflows import queue
from workflows.configuration import load_configuration
from workflows.home import Home

app = Celery("unibiomed")
# Read when first needed: importing this file asks nothing of the environment.
app.add_defaults(
    lambda: queue.options(load_configuration(Home(Path(os.environ["UNIBIOMED_HOME"]))))
)
