"""What systemd is told, and that its unit file says what the node needs."""

from __future__ import annotations

import configparser
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from deploy.systemd import notify

UNIT = Path(__file__).parents[2] / "deploy" / "unibiomed-node.service"


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_in_one_datagram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"@{tmp_path}/notify" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1) if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1", "STATUS=Ready:\nMAINPID=1 is no line of its own")
        said = listening.recv(4096).decode().split("\n")
    assert said == ["READY=1", "STATUS=Ready: MAINPID=1 is no line of its own"]


def test_without_systemd_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify("READY=1")


def test_the_unit_is_one_that_systemd_understands() -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("needs systemd-analyze")
    checked = subprocess.run(
        (verify, "verify", "--man=no", str(UNIT)), capture_output=True, text=True, timeout=60
    )
    said = [line for line in checked.stderr.splitlines() if UNIT.name in line]
    # The program is not installed where tests run.
    assert [line for line in said if not re.search(r"is not executable", line)] == []


def test_the_unit_waits_for_what_the_node_may_take_long_for() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert service["Type"] == "notify"
    # A migration of a large database must not be killed, nor a mistake in node.yaml tried for ever.
    assert service["TimeoutStartSec"] == "infinity"
    assert service["RestartPreventExitStatus"] == "2"
    # The node ends its own processes; systemd ends what is left.
    assert service["KillMode"] == "mixed"
    assert float(service["TimeoutStopSec"]) > 60
