"""The whole process tree, without a study: start, restart of a child, refusals, stop."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml

from deploy.node_process import NodeProcess
from deploy.ownership import processes_of, read_owner

pytestmark = pytest.mark.timeout(400)
PATIENCE = 90.0


def write_settings(home: Path, port: int) -> None:
    home.mkdir(parents=True, exist_ok=True)
    settings = {
        "node": {"ae_title": "TEST", "host": "127.0.0.1", "port": port},
        "storage": {"reserve": "1 MiB"},
        "dashboard": {"port": 0},
    }
    (home / "node.yaml").write_text(yaml.safe_dump(settings))


def up(home: Path) -> subprocess.CompletedProcess[str]:
    """Run ``up`` where it should not start, and return what it said."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", "up", "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    # Deep enough that the socket's path does not fit into sun_path.
    home = tmp_path_factory.mktemp("home") / ("a-folder-with-a-long-name-" * 5)
    write_settings(home, 0)
    running = NodeProcess(home)
    running.start()
    yield running
    running.stop()


def told(node: NodeProcess, name: str) -> dict[str, object]:
    """Return what ``run/<name>.json`` says."""
    content: dict[str, object] = json.loads((node.home / "run" / f"{name}.json").read_text())
    return content


def test_ready_json_names_a_port_that_answers(node: NodeProcess) -> None:
    assert node.ready["ae_title"] == "TEST"
    assert node.ready["version"]
    with socket.create_connection(("127.0.0.1", node.ready["port"]), timeout=5):
        pass
    assert {path.name for path in (node.home / "log").glob("*.log")} == {
        "redis.log", "worker-io.log", "worker-deliver.log", "worker-gpu.log", "beat.log",
        "listener.log", "dashboard.log",
    }  # fmt: skip


def test_a_second_node_on_the_same_home_is_refused(node: NodeProcess) -> None:
    second = up(node.home)
    assert second.returncode == 1
    assert f"kill {node.pid}" in second.stderr


def test_another_home_on_the_same_port_ends_with_the_reason(
    node: NodeProcess, tmp_path: Path
) -> None:
    write_settings(tmp_path, node.ready["port"])
    other = up(tmp_path)
    assert other.returncode == 1
    assert "listener did not start" in other.stderr
    assert "node.port" in other.stderr
    assert not (tmp_path / "run" / "ready.json").exists()


def test_a_dead_listener_is_started_again_and_its_new_port_told(node: NodeProcess) -> None:
    before = told(node, "listener")
    psutil.Process(int(str(before["pid"]))).kill()
    until(lambda: told(node, "listener")["pid"] != before["pid"])
    until(lambda: told(node, "ready")["port"] == told(node, "listener")["port"])
    assert "listener was ended by SIGKILL; it is started again" in node.log.read_text()


def test_a_dashboard_that_answers_later_is_told(node: NodeProcess) -> None:
    before = told(node, "ready")["dashboard"]
    psutil.Process(int(str(told(node, "dashboard")["pid"]))).kill()
    until(lambda: told(node, "ready")["dashboard"] != before)
    port = urlsplit(str(told(node, "ready")["dashboard"])).port
    with socket.create_connection(("127.0.0.1", port or 0), timeout=5):
        pass


def test_a_hangup_reads_the_configuration_again(node: NodeProcess) -> None:
    path = node.home / "node.yaml"
    before = path.read_text()
    path.write_text(before + "nodes: {}\n")
    psutil.Process(node.pid).send_signal(signal.SIGHUP)
    until(lambda: "The configuration stays as it was" in node.log.read_text())
    path.write_text(before)
    psutil.Process(node.pid).send_signal(signal.SIGHUP)
    until(lambda: "The configuration is read again." in node.log.read_text())
    until(lambda: "read again" in (node.home / "log" / "listener.log").read_text())


def test_sigterm_ends_the_whole_tree_and_leaves_nothing(node: NodeProcess) -> None:
    owner = read_owner(node.home / "run")
    assert owner is not None
    assert processes_of(owner["tree"])
    assert node.stop() == 0
    assert processes_of(owner["tree"]) == []
    assert read_owner(node.home / "run") is None
    assert not (node.home / "run" / "ready.json").exists()
    assert not (node.home / "run" / "listener.json").exists()
    assert node.log.read_text().rstrip().endswith("Stopped.")


def test_a_mistake_in_node_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("node:\n  ae_title: UNIBIOMED\n  prot: 104\n")
    started = up(tmp_path)
    assert started.returncode == 2
    assert "node.yaml:3" in started.stderr
    assert "prot" in started.stderr
    assert (tmp_path / "rules.yaml").exists(), "a first start writes what is missing"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://node:secret@127.0.0.1:1/node", "cannot be used: connection failed"),
        ("sqlite:///{home}/broken.sqlite", "file is not a database"),
        ("sqlite:///{home}/newer.sqlite", "made by another version of this node"),
    ],
)
def test_a_database_that_cannot_be_used_ends_with_the_reason(
    tmp_path: Path, url: str, said: str
) -> None:
    (tmp_path / "broken.sqlite").write_bytes(b"no database at all" * 100)
    with sqlite3.connect(tmp_path / "newer.sqlite") as newer:
        newer.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        newer.execute("INSERT INTO alembic_version VALUES ('9999')")
    newer.close()
    write_settings(tmp_path, 0)
    settings = yaml.safe_load((tmp_path / "node.yaml").read_text())
    settings["database"] = {"url": url.format(home=tmp_path)}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    ended = up(tmp_path)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stderr
