"""node.yaml: the default file, and a line and a mend for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from workflows.configuration import check_configuration
from workflows.home import Home, default_node_text
from workflows.settings import NodeSettings, load, settings_of
from workflows.yaml_positions import ConfigurationError, parse_marked


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        settings_of(parse_marked(text, "node.yaml"))
    return [str(problem) for problem in caught.value.problems]


def test_the_default_file_says_what_the_defaults_are() -> None:
    assert settings_of(parse_marked(default_node_text(), "node.yaml")) == NodeSettings()


def test_an_empty_file_means_the_defaults() -> None:
    assert settings_of(parse_marked("", "node.yaml")) == NodeSettings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node:\n  prot: 104\n", ["node.yaml:2: error: node.prot", "'port'"]),
        ("node:\n  port: eleven\n", ["node.yaml:2:", "node.port", "'eleven'", "whole number"]),
        ("node:\n  port: true\n", ["node.yaml:2:", "node.port"]),
        ("node:\n  port: 70000\n", ["node.yaml:2:", "65535"]),
        ("node:\n  ae_title: THIS_TITLE_IS_TOO_LONG\n", ["node.yaml:2:", "16 characters", "22"]),
        ("node: {ae_title: 'A\\B'}\n", ["node.yaml:1:", "without a backslash"]),
        ("node: {ae_title: ' AE'}\n", ["spaces around", "'AE'"]),
        ("node: {ae_title: ''}\n", ["cannot be empty"]),
        ("storage:\n  reserve: lots\n", ["node.yaml:2:", "5 GiB"]),
        ("completion: 5\n", ["node.yaml:1:", "settings of its own", "indented"]),
        ("colour: red\n", ["node.yaml:1: error: colour", "peers"]),
        ("node:\n  port: 1\n  port: 2\n", ["node.yaml:3:", "written twice", "line 2"]),
        ("node:\n\tport: 1\n", ["node.yaml:2:", "spaces, never tabs"]),
        ("node: [1, 2\n", ["node.yaml:", "indentation"]),
        ("peers: &p [*p]\n", ["refers to itself", "write values out"]),
        ("a\x00b", ["node.yaml:1:", "control character"]),
        ("retention: {results_days: 3}\n", ["node.yaml:1:", "results would go before"]),
        ("tls: {port: 2762}\n", ["tls.port", "set tls.certificate"]),
        ("tls: {plain: false}\n", ["listen nowhere"]),
        ("peers:\n- {name: a, ae_title: A, requires_tls: true}\n", ["no port for TLS"]),
        ("dicomweb:\n  users:\n  - {name: a}\n", ["node.yaml:3:", "from a stranger"]),
        (
            "destinations:\n- {name: a, url: 'http://x/y', token: t, user: u, password: p}\n",
            ["node.yaml:2:", "more than one kind of credentials"],
        ),
        (
            "destinations:\n- &d {name: a, url: 'http://x/y'}\n- {name: b, url: 'http://x/y/'}\n",
            ["node.yaml:3:", "the same server"],
        ),
        ("broker: {url: amqp://x}\n", ["begin it with redis://"]),
        ("database: {url: 'postgresql://${NOT_SET_ANYWHERE}@x/y'}\n", ["NOT_SET_ANYWHERE"]),
        ("results: {uid_root: '2.25'}\n", ["everybody's UUIDs", "an arc of your own"]),
        ("peers:\n- {name: a}\n", ["node.yaml:2:", "peers[0].ae_title", "missing"]),
        (
            "peers:\n- {name: a, ae_title: A}\n- {name: a, ae_title: B}\n",
            ["node.yaml:3:", "peers[1].name", "already used by peers[0]"],
        ),
        (
            "peers:\n- {name: a, ae_title: A}\n- {name: b, ae_title: A}\n",
            ["node.yaml:3:", "already peers[0]"],
        ),
        ("peers:\n- {name: a, ae_title: A, host: 10.1.2.3/16}\n", ["node.yaml:2:", "10.1.0.0/16"]),
        (
            "destinations:\n- {name: a, ae_title: A, host: localhost, port: 11112}\n",
            ["node.yaml:2:", "this node's own listener", "node.port"],
        ),
        (
            "destinations:\n- &d {name: a, ae_title: A, host: h, port: 1}\n"
            "- {name: b, ae_title: A, host: h, port: 1}\n",
            ["node.yaml:3:", "everything twice"],
        ),
    ],
)
def test_a_mistake_is_named_with_line_and_mend(text: str, said: list[str]) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert all(part in found[0] for part in [*said, "Mend: "]), found[0]


def test_all_mistakes_are_named_at_once_in_the_order_of_lines() -> None:
    found = problems("node:\n  port: x\n  colour: red\nworkers:\n  io: 0\n")
    assert [line.split(":")[1] for line in found] == ["2", "3", "5"]


def test_secrets_come_from_the_environment_and_do_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "s3cret")
    url = "postgresql://node:${DATABASE_PASSWORD}@db/node"
    settings = settings_of(parse_marked(f"database: {{url: '{url}'}}", "node.yaml"))
    assert settings.database.url == "postgresql://node:s3cret@db/node"
    (found,) = problems("database: {url: 'mysql://node:s3cret@db/node'}")
    assert "s3cret" not in found


def test_sizes_have_units() -> None:
    text = "storage: {reserve: 1.5 GiB}"
    assert settings_of(parse_marked(text, "x")).storage.reserve == 3 * 2**29


def test_a_rule_may_only_name_destinations_that_exist(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.node_yaml.write_text(
        "peers: [{name: a, ae_title: A}]\n"
        "destinations:\n"
        "- {name: pacs, ae_title: P, host: h, port: 1}\n"
        "- {name: archive, ae_title: Q, host: h, port: 1}\n"
    )
    home.rules_yaml.write_text("rules:\n- name: one\n  destinations: [pacs, archiv]\n")
    (error,) = check_configuration(home)
    assert (error.file, error.line) == (str(home.rules_yaml), 3)
    assert "pacs, archive" in error.mend
    home.rules_yaml.write_text("rules:\n- name: one\n  destinations: [pacs]\n")
    (warning,) = check_configuration(home)
    assert (warning.severity, warning.line) == ("warning", 4)
    assert "no rule sends anything to 'archive'" in warning.text


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    found = [str(problem) for problem in check_configuration(home)]
    assert len(found) == 2 and all("cannot be read" in line for line in found)
    home.node_yaml.write_bytes(b"node:\n  name: \xff\n")
    assert f"{home.node_yaml}:2: " in str(check_configuration(home)[0])


def test_every_certificate_that_is_named_is_listed_by_its_path_in_the_home(tmp_path: Path) -> None:
    entry = {"certificate": "tls/one.pem"}
    web = {"name": "cloud", "url": "https://archive.example.org/dicom-web", **entry}
    user = {"name": "viewer", "allow": ["query"], **entry}
    mail = {"host": "mail.example.org", "sender": "a@example.org", "to": ["b@example.org"], **entry}
    given = {
        "tls": {"port": 0, "certificate": "tls/node.pem", "key": "tls/node.key", "mutual": False},
        "dashboard": {"certificate": "web.pem", "key": "/etc/web.key"},
        "dicomweb": {"tls": True, "users": [user]},
        "notices": [{"name": "night shift", "about": ["failed"], "mail": mail}],
        "audit": [{"name": "collector", "host": "audit.example.org", **entry}],
        "peers": [{"name": "CT 1", "ae_title": "CT1", **entry}],
        "destinations": [web],
        "worklists": [{**web, "name": "manager"}],
    }
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(given))
    settings = load(tmp_path / "node.yaml")
    one = str(tmp_path / "tls" / "one.pem")
    assert settings.certificates() == [
        ("this node, DICOM", str(tmp_path / "tls" / "node.pem")),
        ("this node, dashboard", str(tmp_path / "web.pem")),
        *((name, one) for name in ("CT 1", "viewer", "cloud", "manager", "collector")),
        ("mail server of night shift", one),
    ]
    assert settings.dashboard.key == "/etc/web.key"
