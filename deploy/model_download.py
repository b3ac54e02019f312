"""Fetch a published checkpoint from the Hugging Face hub: weights and tokenizer, never code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of its client
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo

from inference.card import CARD_FILE, write_card
from inference.published_card import default_card
from inference.weight_files import INDEX_FILE, file_digest, weights_digest

RECORD_FILE = "download.json"
"""What was fetched from where; a later download takes the same commit unless told otherwise."""

EXACT_NAMES = frozenset(
    {
        "config.json",
        INDEX_FILE,
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "special_tokens_map.json",
    }
)
_DEADLINE_SECONDS = 30.0


class DownloadError(Exception):
    """A checkpoint that could not be fetched; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class DownloadRecord:
    """Where the files of a folder came from.

    Attributes
    ----------
    repository
        E.g. ``Luffy503/UniBiomed``.
    revision
        The commit, in full.
    digest
        Of the weights; see `inference.weight_files.weights_digest`.
    files
        SHA-256 of each file, by its name.
    """

    repository: str
    revision: str
    digest: str
    files: dict[str, str]


def wanted_files(names: Iterable[str]) -> list[str]:
    """Choose what a checkpoint needs: safetensors, their index, config and tokenizer files.

    Files in sub-folders, Python files, pickles and everything else stay where they are.
    """
    return sorted(
        name
        for name in names
        if "/" not in name and (name in EXACT_NAMES or name.endswith(".safetensors"))
    )


def read_record(folder: Path) -> DownloadRecord | None:
    """Read what a folder was fetched from; ``None`` where nothing is recorded.

    Raises
    ------
    DownloadError
        When the record is damaged.
    """
    path = folder / RECORD_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return DownloadRecord(
            repository=str(data["repository"]),
            revision=str(data["revision"]),
            digest=str(data["digest"]),
            files={str(name): str(digest) for name, digest in data["files"].items()},
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{path} is damaged ({error!r}); delete it and download again"
        ) from error


def write_record(record: DownloadRecord, folder: Path) -> None:
    """Write `RECORD_FILE`."""
    text = json.dumps(asdict(record), indent=2) + "\n"
    (folder / RECORD_FILE).write_text(text, encoding="utf-8")


def pinned_revision(folder: Path, repository: str, asked: str | None) -> str:
    """Decide which revision to take.

    Parameters
    ----------
    asked
        A commit, tag or branch; ``None`` takes the commit that the folder already holds, and
        ``main`` for a new folder.

    Raises
    ------
    DownloadError
        When the folder holds another repository's files.
    """
    record = read_record(folder)
    if record is not None and record.repository != repository:
        raise DownloadError(
            f"{folder} holds {record.repository}; name another folder for {repository}"
        )
    return asked or (record.revision if record is not None else "main")


def changed_files(folder: Path) -> list[str]:
    """Name the files that are missing or differ from what was downloaded."""
    record = read_record(folder)
    if record is None:
        return []
    return sorted(
        name
        for name, digest in record.files.items()
        if not (folder / name).is_file() or file_digest(folder / name) != digest
    )


def pull(
    repository: str, folder: Path, revision: str | None, say: Callable[[str], None]
) -> DownloadRecord:
    """Fetch a checkpoint; a download that broke off goes on where it stopped.

    The revision is resolved to a commit first, and every file is taken from that commit. Where
    the hub states a file's SHA-256, it is compared. A folder without a card gets one that lists
    no target.

    Raises
    ------
    DownloadError
        When the hub cannot be reached, knows no such repository or revision, asks for terms to be
        accepted, holds no safetensors, or sent other bytes than it promised.
    """
    chosen = pinned_revision(folder, repository, revision)
    try:
        info = HfApi().model_info(
            repository, revision=chosen, files_metadata=True, timeout=_DEADLINE_SECONDS
        )
        names = wanted_files(item.rfilename for item in info.siblings or ())
        if info.sha is None or not any(name.endswith(".safetensors") for name in names):
            raise DownloadError(f"{repository} at {chosen} holds no safetensors")
        say(f"{repository} at commit {info.sha}: {len(names)} files into {folder}")
        snapshot_download(
            repository, revision=info.sha, allow_patterns=names, local_dir=folder, max_workers=4
        )
    except (HTTPError, HFValidationError, OSError) as error:
        raise DownloadError(_explained(repository, chosen, error)) from error
    record = DownloadRecord(
        repository=repository,
        revision=info.sha,
        digest=weights_digest(folder),
        files={name: file_digest(folder / name) for name in names},
    )
    _compare(info, record)
    write_record(record, folder)
    if not (folder / CARD_FILE).is_file():
        write_card(default_card(info.sha[:12]), folder)
        say(f"{folder / CARD_FILE} was written; it lists no target yet: docs/models/unibiomed.md")
    return record


def _compare(info: ModelInfo, record: DownloadRecord) -> None:
    """Hold the bytes against the SHA-256 that the hub states for large files."""
    for item in info.siblings or ():
        promised = item.lfs.sha256 if item.lfs is not None else None
        found = record.files.get(item.rfilename)
        if promised is not None and found is not None and promised != found:
            raise DownloadError(
                f"{item.rfilename} has SHA-256 {found}, the hub states {promised}; "
                "delete the file and download again"
            )


def _explained(repository: str, revision: str, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"{repository} asks for its terms to be accepted: do so on its page, then set HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no revision {revision}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{repository} is not on the hub, or not public: set HF_TOKEN for a private one"
    if isinstance(error, HfHubHTTPError | HFValidationError):
        return f"{repository} could not be fetched: {error}"
    return (
        f"{repository} could not be fetched: {error or type(error).__name__}. Run the command "
        "again to go on; set HF_ENDPOINT for a mirror, or copy the folder by hand"
    )
