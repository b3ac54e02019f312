"""What is fetched from a repository, which revision, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.model_download import (
    RECORD_FILE,
    DownloadError,
    DownloadRecord,
    changed_files,
    pinned_revision,
    read_record,
    wanted_files,
    write_record,
)
from inference.weight_files import file_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PUBLISHED = [
    ".gitattributes", "LICENSE", "README.md", "added_tokens.json", "config.json",
    "configuration_sa2va_chat.py", "flash_attention.py", "generation_config.json", "merges.txt",
    "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    "model.safetensors.index.json", "modeling_sa2va_chat.py", "pytorch_model.bin", "sam2.py",
    "special_tokens_map.json", "tokenizer_config.json", "training/model.safetensors", "vocab.json",
    "weights.pth", "tokenizer.json.py", "../model.safetensors", "optimizer.pkl",
]  # fmt: skip


def record(**changes: object) -> DownloadRecord:
    values = {"repository": "Luffy503/UniBiomed", "revision": COMMIT, "digest": "d", "files": {}}
    return DownloadRecord(**{**values, **changes})  # type: ignore[arg-type]


def test_weights_and_tokenizer_are_wanted_and_nothing_else() -> None:
    assert wanted_files(PUBLISHED) == [
        "added_tokens.json",
        "config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "vocab.json",
    ]


@given(st.lists(st.text(max_size=30)))
def test_no_name_leads_to_code_or_out_of_the_folder(names: list[str]) -> None:
    for name in wanted_files([*names, *(name + ".py" for name in names), *PUBLISHED]):
        assert name.endswith((".safetensors", ".json", "merges.txt"))
        assert "/" not in name


def test_a_new_folder_takes_main_and_an_old_one_stays_at_its_commit(tmp_path: Path) -> None:
    assert pinned_revision(tmp_path, "Luffy503/UniBiomed", None) == "main"
    write_record(record(), tmp_path)
    assert pinned_revision(tmp_path, "Luffy503/UniBiomed", None) == COMMIT
    assert pinned_revision(tmp_path, "Luffy503/UniBiomed", "v2") == "v2"


def test_a_folder_of_another_repository_is_left_alone(tmp_path: Path) -> None:
    write_record(record(), tmp_path)
    with pytest.raises(DownloadError, match="holds Luffy503/UniBiomed; name another folder"):
        pinned_revision(tmp_path, "someone/else", None)


def test_a_record_survives_being_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(record(files={"config.json": "ab"}), tmp_path)
    assert read_record(tmp_path) == record(files={"config.json": "ab"})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"repository": 1, "files": []}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(DownloadError, match=r"download\.json is damaged"):
        read_record(tmp_path)


def test_files_that_changed_since_the_download_are_named(tmp_path: Path) -> None:
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_text(name)
    files = {path.name: file_digest(path) for path in tmp_path.iterdir()}
    write_record(record(files=files), tmp_path)
    assert changed_files(tmp_path) == []
    (tmp_path / "vocab.json").write_text("other")
    (tmp_path / "merges.txt").unlink()
    assert changed_files(tmp_path) == ["merges.txt", "vocab.json"]
