from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.ownership import TREE_VARIABLE, AlreadyRunningError, Ownership, read_owner

KILLED_OWNER = """
import os, subprocess, sys
from pathlib import Path
from deploy.ownership import Ownership, TREE_VARIABLE
with Ownership(Path(sys.argv[1]), print) as ownership:
    environment = {**os.environ, TREE_VARIABLE: ownership.tree}
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    code += "print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_second_owner_is_refused_with_a_sentence_that_names_the_first(tmp_path: Path) -> None:
    with Ownership(tmp_path / "run", print):
        with pytest.raises(AlreadyRunningError) as refused:
            Ownership(tmp_path / "run", print).__enter__()
        owner = read_owner(tmp_path / "run")
        assert owner is not None and owner["pid"] == os.getpid()
    assert f"kill {os.getpid()}" in str(refused.value)
    assert "--home" in str(refused.value)


def test_an_orderly_end_leaves_nothing_to_clear_away(tmp_path: Path) -> None:
    with Ownership(tmp_path, print):
        pass
    assert read_owner(tmp_path) is None
    with Ownership(tmp_path, pytest.fail) as second:
        assert not second.after_a_kill


def test_what_a_killed_owner_left_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.ownership.POLITE_SECONDS", 0.5)
    killed = subprocess.run(
        (sys.executable, "-c", KILLED_OWNER, str(tmp_path)), stdout=subprocess.PIPE, text=True
    )
    left = psutil.Process(int(killed.stdout))
    assert left.environ()[TREE_VARIABLE]
    said: list[str] = []
    with Ownership(tmp_path, said.append) as ownership:
        assert ownership.after_a_kill
    gone, _ = psutil.wait_procs([left], timeout=10)
    assert gone == [left] or left.status() == psutil.STATUS_ZOMBIE
    assert said == [
        "The last node on this home was killed and left processes running (1); "
        "they are ended before this one starts."
    ]


@pytest.mark.parametrize("text", ["", "not json", "[1]"])
def test_a_lock_file_of_any_content_does_not_stop_the_node(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.lock").write_text(text)
    with Ownership(tmp_path, print) as ownership:
        assert not ownership.after_a_kill
