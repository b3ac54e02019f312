"""What a start looks at first: whose folder, which broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.before_start import StartError, look_at_the_broker, own_folder
from workflows.configuration import Configuration
from workflows.home import Home
from workflows.rules import Rules
from workflows.settings import NodeSettings


def with_broker(folder: Path, url: str | None) -> Configuration:
    settings = NodeSettings.model_validate({"broker": {"url": url}})
    return Configuration(Home(folder), settings, Rules.model_validate({"rules": []}))


def test_a_redis_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    said: list[str] = []
    look_at_the_broker(with_broker(tmp_path, "redis://user:secret@127.0.0.1:1/0"), said.append)
    assert "until Redis at redis://user:***@127.0.0.1:1/0 answers" in said[0]
    assert "Connection refused" in said[0] and "secret" not in said[0]
    look_at_the_broker(with_broker(tmp_path, None), said.append)
    assert len(said) == 1


def test_the_folder_of_the_socket_is_this_users_alone(tmp_path: Path) -> None:
    own_folder(tmp_path / "a")
    own_folder(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    for name in ("link", "open"):
        with pytest.raises(StartError, match="not a folder of this user alone"):
            own_folder(tmp_path / name)


def test_a_folder_that_another_user_made_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_folder(tmp_path / "a")
    monkeypatch.setattr("os.geteuid", lambda: (tmp_path / "a").stat().st_uid + 1)
    with pytest.raises(StartError, match="TMPDIR"):
        own_folder(tmp_path / "a")
