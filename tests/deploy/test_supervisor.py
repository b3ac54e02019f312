from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.rotating_log import RotatingLog
from deploy.supervisor import Program, Supervisor

PATIENCE = 20.0


@pytest.fixture
def said() -> list[str]:
    return []


def program(folder: Path, name: str, code: str, **options: Any) -> Program:
    return Program(
        name, (sys.executable, "-c", textwrap.dedent(code)), dict(os.environ), folder, **options
    )


def test_output_lands_in_the_log_and_a_dead_program_is_restarted(
    tmp_path: Path, said: list[str]
) -> None:
    mark = tmp_path / "runs"
    code = f"""
        import sys, time
        with open({str(mark)!r}, "a") as file:
            file.write("x")
        print("hello", flush=True)
        time.sleep(0 if len(open({str(mark)!r}).read()) < 3 else 60)
        sys.exit(7)
    """
    with Supervisor(tmp_path / "log", said.append) as supervisor:
        supervisor.start(program(tmp_path, "short", code))
        assert supervisor.wait(lambda: supervisor.starts("short") == 3, PATIENCE)
        assert supervisor.wait(
            lambda: (tmp_path / "log" / "short.log").read_text().count("hello") == 3, PATIENCE
        )
        assert supervisor.last_lines("short") == ["hello"] * 3
        assert supervisor.pid("short") is not None
    assert "short ended with exit code 7; it is started again in 0.5 s (log/short.log)." in said
    assert any("in 1 s" in sentence for sentence in said), "the delay grows"
    assert supervisor.pid("short") is None


def test_a_killed_program_is_named_with_its_signal(tmp_path: Path, said: list[str]) -> None:
    with Supervisor(tmp_path, said.append) as supervisor:
        supervisor.start(program(tmp_path, "victim", "import time; time.sleep(60)"))
        pid = supervisor.pid("victim")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert supervisor.wait(lambda: supervisor.starts("victim") == 2, PATIENCE)
    assert said[0].startswith("victim was ended by SIGKILL;")


def test_a_program_that_ignores_sigterm_is_killed_at_its_deadline(
    tmp_path: Path, said: list[str]
) -> None:
    code = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
        time.sleep(60)
    """
    with Supervisor(tmp_path, said.append) as supervisor:
        supervisor.start(program(tmp_path, "deaf", code, stop_seconds=0.3))
        assert supervisor.wait(lambda: supervisor.last_lines("deaf") == ["deaf"], PATIENCE)
    assert said == ["deaf did not end within 0 s; it is killed."]


def test_a_grandchild_does_not_outlive_the_run_it_belongs_to(
    tmp_path: Path, said: list[str]
) -> None:
    code = """
        import subprocess, sys, time
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(other.pid, flush=True)
        time.sleep(60)
    """
    with Supervisor(tmp_path, said.append) as supervisor:
        supervisor.start(program(tmp_path, "family", code))
        assert supervisor.wait(lambda: bool(supervisor.last_lines("family")), PATIENCE)
        grandchild = psutil.Process(int(supervisor.last_lines("family")[0]))
        pid = supervisor.pid("family")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert supervisor.wait(lambda: supervisor.starts("family") == 2, PATIENCE)
        gone, _ = psutil.wait_procs([grandchild], timeout=PATIENCE)
        assert gone == [grandchild] or grandchild.status() == psutil.STATUS_ZOMBIE


def test_sigterm_ends_the_wait(tmp_path: Path, said: list[str]) -> None:
    with Supervisor(tmp_path, said.append) as supervisor:
        supervisor.start(program(tmp_path, "idle", "import time; time.sleep(60)"))
        os.kill(os.getpid(), signal.SIGTERM)
        assert supervisor.wait(lambda: False) is False
        assert supervisor.stop_requests == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = f"""
        import json, os, sys
        from pathlib import Path
        from deploy.supervisor import Program, Supervisor
        with Supervisor(Path({str(tmp_path)!r}), print) as supervisor:
            supervisor.start(Program("child", (sys.executable, "-c", "import time; time.sleep(60)"),
                                     dict(os.environ), Path({str(tmp_path)!r})))
            print(json.dumps(supervisor.pid("child")), flush=True)
            supervisor.wait(lambda: False)
    """
    top = subprocess.Popen(
        (sys.executable, "-c", textwrap.dedent(code)), stdout=subprocess.PIPE, text=True
    )
    assert top.stdout is not None
    child = psutil.Process(json.loads(top.stdout.readline()))
    top.kill()
    top.wait()
    top.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=PATIENCE)
    assert gone == [child] or child.status() == psutil.STATUS_ZOMBIE


def test_a_full_log_is_rotated_and_only_the_last_are_kept(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log", size=10, keep=2)
    for line in (b"1 first\n", b"2 second\n", b"3 third\n", b"4 fourth\n"):
        log.write(line)
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"4 fourth\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"3 third\n"
    assert (tmp_path / "a.log.2").read_bytes() == b"2 second\n"
    assert not (tmp_path / "a.log.3").exists()


def test_a_full_disk_and_a_closed_terminal_do_not_end_the_programs(tmp_path: Path) -> None:
    def closed_terminal(sentence: str) -> None:
        raise BrokenPipeError(sentence)

    (tmp_path / "chatty.log").symlink_to("/dev/full")
    code = "print('x' * 200_000, 'the end', flush=True)"
    with Supervisor(tmp_path, closed_terminal) as supervisor:
        supervisor.start(program(tmp_path, "chatty", code))
        assert supervisor.wait(lambda: supervisor.starts("chatty") == 2, PATIENCE)
        assert supervisor.last_lines("chatty")[-1].endswith("the end")


def test_a_program_that_cannot_be_started_again_now_is_tried_later(
    tmp_path: Path, said: list[str]
) -> None:
    tries: list[int] = []

    def no_room_for_the_second() -> None:
        tries.append(len(tries))
        if len(tries) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    one = Program("one", (sys.executable, "-c", ""), {}, tmp_path, 1.0, no_room_for_the_second)
    with Supervisor(tmp_path, said.append) as supervisor:
        supervisor.start(one)
        assert supervisor.wait(lambda: supervisor.starts("one") == 2, PATIENCE)
    assert any("one cannot be started: [Errno 28] No space left" in line for line in said)
