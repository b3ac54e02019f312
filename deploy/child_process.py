"""Programs beside this one, for the demo and the tests: started, awaited, stopped."""

from __future__ import annotations

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.supervisor import die_with_parent

__all__ = ["ChildProcess", "Startable"]

_LOOK_SECONDS = 0.05


class Startable(ABC):
    """Something that is started and stopped: enter it to start it, leave it to stop it."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and return when it does its work."""

    @abstractmethod
    def stop(self) -> object:
        """Stop it; harmless when it does not run."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class ChildProcess(Startable):
    """A program in a session of its own that does not outlive this process.

    Parameters
    ----------
    log
        The file that what it says is appended to.
    stop_seconds
        Between SIGTERM and SIGKILL.
    """

    def __init__(self, log: Path, stop_seconds: float) -> None:
        self.log = log
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise RuntimeError("the program has not been started")
        return self._process.pid

    def launch(
        self,
        command: Sequence[str],
        folder: Path,
        is_ready: Callable[[], bool],
        seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> bool:
        """Start it and wait until it is ready; false, and it is stopped, when that does not come.

        Parameters
        ----------
        command
            Arguments, the executable first.
        folder
            Its working directory.
        is_ready
            Asked again and again.
        seconds
            The deadline.
        environment
            Added to this process's own.
        """
        parent = os.getpid()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            if is_ready():
                return True
            time.sleep(_LOOK_SECONDS)
        self.stop()
        return False

    def stop(self) -> int:
        """Stop it as an administrator does, by SIGTERM; returns its exit code."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """End it by SIGKILL; its own children are left to the kernel."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def last_lines(self, count: int) -> str:
        """Return the end of what it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
