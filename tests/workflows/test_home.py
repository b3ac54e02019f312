"""The folder of a node."""

from __future__ import annotations

from pathlib import Path

from workflows.configuration import check_configuration, load_configuration
from workflows.home import Home


def test_the_first_start_writes_commented_files(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.write_defaults() == [home.node_yaml, home.rules_yaml]
    home.node_yaml.write_text("node: {port: 104}")
    assert home.write_defaults() == []
    configuration = load_configuration(home)
    assert configuration.settings.node.port == 104
    assert configuration.database_url == f"sqlite:///{tmp_path}/database.sqlite"
    warnings = check_configuration(home)
    assert [problem.severity for problem in warnings] == ["warning", "warning"]


def test_a_deep_home_keeps_its_socket_short(tmp_path: Path) -> None:
    assert Home(Path("/srv/node")).redis_socket == Path("/srv/node/run/redis.sock")
    deep = Home(tmp_path / ("x" * 100))
    assert len(str(deep.redis_socket)) <= 100
    assert deep.redis_socket != Home(tmp_path / ("y" * 100)).redis_socket
