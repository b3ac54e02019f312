"""What one worker process holds: the node, and in the gpu worker the engine's thread."""

from __future__ import annotations

import logging
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import Final

from workflows.answering import Answering
from workflows.configuration import Configuration, load_configuration
from workflows.counting import Counting
from workflows.engine_thread import EngineThread
from workflows.home import Home
from workflows.loading import load_engine
from workflows.node import Node, open_node
from workflows.pixel_room import PixelRoom
from workflows.reloading import Reloading

HOME_VARIABLE: Final = "UNIBIOMED_HOME"
STUCK_EXIT_CODE: Final = 70
"""EX_SOFTWARE: the supervisor starts the worker anew."""

_LOG = logging.getLogger(__name__)


class HomeNotSetError(RuntimeError):
    """The environment does not say which node this process belongs to."""


class WorkerProcess:
    """Made with the application, filled on first use: after the fork of a pool process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._nodes: dict[int, Node] = {}
        self._reloading: Reloading | None = None
        self._counting: Counting | None = None

    @property
    def home(self) -> Home:
        """The node's folder.

        Raises
        ------
        HomeNotSetError
            Without UNIBIOMED_HOME.
        """
        folder = os.environ.get(HOME_VARIABLE)
        if not folder:
            raise HomeNotSetError(
                f"set {HOME_VARIABLE} to the node's folder, as `unibiomed-node up` does"
            )
        return Home(Path(folder))

    @cached_property
    def configuration(self) -> Configuration:
        """Settings and rules as they were when the process started."""
        return load_configuration(self.home)

    @property
    def node(self) -> Node:
        """The node, opened once in each process; its configuration is read again when asked."""
        with self._guard:
            pid = os.getpid()
            if pid not in self._nodes:
                self._reloading = Reloading(self.home)
                self._nodes = {pid: open_node(self.home)}
                self._counting = Counting(self._nodes[pid].database)
            elif self._reloading is not None and self._reloading.is_asked():
                before = self._nodes[pid]
                self._nodes[pid] = self._reloading.read(before.with_configuration) or before
            return self._nodes[pid]

    def write_counts(self) -> None:
        """Write down what this process counted since the last time."""
        if self._counting is not None:
            self._counting.write()

    @cached_property
    def engine(self) -> EngineThread:
        """The thread that owns the model; not yet started."""
        settings = self.configuration.settings
        room = PixelRoom(settings.model.prepared_memory)
        return EngineThread(lambda: load_engine(settings), room)

    @cached_property
    def answering(self) -> Answering:
        """The thread that answers people's questions; not yet started."""
        return Answering(self.node, self.engine, self.leave)

    def leave(self) -> None:
        """End the process at once: a thread in it hangs and cannot be stopped otherwise."""
        _LOG.critical("the worker ends itself; its supervisor starts it anew")
        logging.shutdown()
        os._exit(STUCK_EXIT_CODE)
