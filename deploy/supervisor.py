"""Keeps a group of programs running: starts, restarts, logs and stops them.

One thread and one loop do everything, so that nothing here can dead-lock and a child can be
started safely at any time. The supervisor knows nothing of DICOM or queues; `deploy.embedded`
says which programs make a node.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from deploy.rotating_log import RotatingLog

__all__ = ["Program", "Supervisor", "die_with_parent"]

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
TAIL_BYTES = 4096
STEADY_SECONDS = 60.0  # a child that ran this long starts with the first delay again
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the tree.

    Attributes
    ----------
    name
        Names the log file and the program in messages.
    command
        Arguments, the executable first; never passed through a shell.
    environment
        The program's whole environment.
    folder
        Its working directory.
    stop_seconds
        Time between the polite SIGTERM and SIGKILL.
    before_start
        Called before every start, the first and each restart (clears what a ``kill -9`` left).
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    stop_seconds: float = 15.0
    before_start: Callable[[], None] | None = None


@dataclass(slots=True)
class _Child:
    """A program and what the supervisor knows of its present run."""

    program: Program
    log: RotatingLog
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float | None = None
    delay: float = FIRST_DELAY
    starts: int = 0
    last_code: int | None = None
    tail: bytes = b""  # the end of what it wrote

    @property
    def output(self) -> int:
        """File descriptor of the run's stdout and stderr."""
        if self.process is None or self.process.stdout is None:
            raise RuntimeError(f"{self.program.name} has not been started")
        return self.process.stdout.fileno()


class Supervisor:
    """Starts programs, restarts those that die, and stops all of them.

    Use as a context manager in the main thread: it takes over SIGTERM, SIGINT, SIGHUP and SIGCHLD,
    and on leaving it stops whatever still runs, last started first.

    Parameters
    ----------
    log_folder
        Where ``<name>.log`` of each program is written.
    say
        Receives one sentence about each event a person should know of.
    on_hangup
        Called after a SIGHUP, which by custom asks a program to read its settings again. Where
        SIGHUP is ignored (nohup) it stays so.
    """

    def __init__(
        self,
        log_folder: Path,
        say: Callable[[str], None],
        on_hangup: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_hangup = on_hangup
        self._hung_up = False
        self._log_folder = log_folder
        self._say = say
        self._children: dict[str, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._old_handlers: dict[int, object] = {}
        self._old_wakeup = -1
        self._stopping = False
        self.stop_requests = 0

    def __enter__(self) -> Self:
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        # Signals during select() become bytes here, so that no wake-up is lost between two turns.
        self._old_wakeup = signal.set_wakeup_fd(self._wake_write.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            self._old_handlers[number] = signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._old_handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
        for child in self._children.values():
            child.log.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._hung_up = True
        elif number != signal.SIGCHLD:
            self.stop_requests += 1

    # ------------------------------------------------------------------ starting

    def start(self, program: Program) -> None:
        """Start `program` and keep it running until it is stopped."""
        log = RotatingLog(self._log_folder / f"{program.name}.log")
        child = _Child(program, log)
        self._children[program.name] = child
        self._launch(child)

    def _launch(self, child: _Child) -> None:
        program = child.program
        if program.before_start is not None:
            program.before_start()
        parent = os.getpid()
        child.process = subprocess.Popen(
            list(program.command),
            env=dict(program.environment),
            cwd=program.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C reaches the supervisor alone, which then stops the
            # children in order.
            start_new_session=True,
            # Safe here: the supervisor has one thread.
            preexec_fn=lambda: die_with_parent(parent),
        )
        os.set_blocking(child.output, False)
        self._selector.register(child.output, selectors.EVENT_READ, child)
        child.started = time.monotonic()
        child.restart_at = None
        child.starts += 1

    def _restart(self, child: _Child) -> None:
        """Start a program again; where the system has no room for it now, later."""
        try:
            self._launch(child)
        except OSError as error:
            child.restart_at = time.monotonic() + child.delay
            self._tell(
                f"{child.program.name} cannot be started: {error}; "
                f"it is tried again in {child.delay:g} s."
            )
            child.delay = min(child.delay * 2, LONGEST_DELAY)

    def _tell(self, sentence: str) -> None:
        """Say something, if anybody can hear it: a closed terminal does not end the node."""
        with contextlib.suppress(OSError):
            self._say(sentence)

    # ------------------------------------------------------------------ the loop

    def wait(self, until: Callable[[], bool], seconds: float | None = None) -> bool:
        """Keep the programs running until `until` holds, a stop is asked for, or time is up.

        Parameters
        ----------
        until
            Asked on every turn, some ten times a second at most.
        seconds
            The deadline; None waits for ever.

        Returns
        -------
        bool
            Whether `until` held.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while self.stop_requests == 0:
            if until():
                return True
            remaining = 1.0 if end is None else end - time.monotonic()
            if remaining <= 0:
                return False
            self._turn(min(0.1 if end is not None else 1.0, remaining))
        return False

    def _turn(self, seconds: float) -> None:
        """Take in output, signals and deaths; restart what is due."""
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._drain_signals()
            else:
                self._take_output(key.data)
        if self._hung_up:
            self._hung_up = False
            self._on_hangup()
        for child in self._children.values():
            if child.process is not None and child.process.poll() is not None:
                self._bury(child)
            if child.restart_at is not None and time.monotonic() >= child.restart_at:
                self._restart(child)

    def _drain_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass

    def _take_output(self, child: _Child) -> bool:
        """Move what the child wrote to its log, if anything; a closed pipe is forgotten."""
        descriptor = child.output
        if descriptor not in self._selector.get_map():
            return False
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(descriptor)
            return False
        child.log.write(data)
        child.tail = (child.tail + data)[-TAIL_BYTES:]
        return True

    def _bury(self, child: _Child) -> None:
        """Take leave of a run that ended, and plan the next unless the tree is stopping."""
        process = child.process
        if process is None or process.stdout is None:
            raise RuntimeError(f"{child.program.name} has not been started")
        while self._take_output(child):
            pass  # until the pipe is closed, or only a grandchild still holds it open
        if child.output in self._selector.get_map():
            self._selector.unregister(child.output)
        process.stdout.close()
        child.process = None
        child.last_code = process.returncode
        # Its own children (a worker's pool) must not outlive it and work beside the next run.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if self._stopping:
            return
        if time.monotonic() - child.started >= STEADY_SECONDS:
            child.delay = FIRST_DELAY
        child.restart_at = time.monotonic() + child.delay
        self._tell(
            f"{child.program.name} {_ending(process.returncode)}; "
            f"it is started again in {child.delay:g} s (log/{child.program.name}.log)."
        )
        child.delay = min(child.delay * 2, LONGEST_DELAY)

    # ------------------------------------------------------------------ asking

    def pid(self, name: str) -> int | None:
        """Return the process id of the program's present run, or None between two runs."""
        child = self._children.get(name)
        return None if child is None or child.process is None else child.process.pid

    def starts(self, name: str) -> int:
        """Return how often the program has been started."""
        return self._children[name].starts

    def last_code(self, name: str) -> int | None:
        """Return the exit code of the program's last run that ended, None before the first end.

        Negative for the signal that ended it.
        """
        return self._children[name].last_code

    def last_lines(self, name: str) -> list[str]:
        """Return the last lines the program wrote."""
        return self._children[name].tail.decode("utf-8", "replace").splitlines()[-12:]

    # ------------------------------------------------------------------ stopping

    def stop_all(self) -> None:
        """Stop every program, last started first; each gets its time before SIGKILL.

        A second SIGTERM or SIGINT meanwhile ends the patience: what still runs is killed.
        """
        for name in reversed(list(self._children)):
            self.stop(name)

    def stop(self, *names: str) -> None:
        """Stop the named programs together and wait until they have ended.

        From here on nothing is restarted. Names that were never started are passed over.
        """
        self._stopping = True
        children = [self._children[name] for name in names if name in self._children]
        for child in children:
            child.restart_at = None
            if child.process is not None:
                child.process.terminate()
        begun = time.monotonic()
        while any(child.process is not None for child in children):
            for child in children:
                process = child.process
                late = time.monotonic() - begun > child.program.stop_seconds
                hurry = self.stop_requests > 1
                if process is not None and (late or hurry) and process.poll() is None:
                    self._tell(
                        f"{child.program.name} did not end within "
                        f"{time.monotonic() - begun:.0f} s; it is killed."
                    )
                    process.kill()
                    process.wait()
            self._turn(0.1)


def _ending(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def die_with_parent(parent: int) -> None:
    """Have the kernel stop this process when its parent dies (Linux; elsewhere do nothing).

    Runs between fork and exec.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
