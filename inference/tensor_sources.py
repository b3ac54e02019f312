"""Where a loader takes tensors from: one at a time, so that no file is in memory twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from torch import Tensor

from inference.errors import CheckpointError
from inference.weight_files import weight_files

_POINTER = b"version https://git-lfs"


class TensorSource(Protocol):
    """Named tensors that are read when they are asked for."""

    @property
    def place(self) -> str:
        """What an error message calls the source."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of all tensors, known without reading them."""

    def tensor(self, name: str) -> Tensor:
        """Read one tensor, in whatever type it is stored.

        Raises
        ------
        CheckpointError
            When it cannot be read.
        """


class SafetensorsFolder:
    """The safetensors of a folder, one file or shards.

    Raises
    ------
    CheckpointError
        When there are none, one is damaged, or two hold a tensor of the same name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        # Mapped, not read; they stay open, because opening one reads the names of all its tensors.
        self._open: dict[Path, Any] = {}
        for path in weight_files(folder):
            self._add(path)

    def _add(self, path: Path) -> None:
        try:
            with path.open("rb") as start:
                if start.read(len(_POINTER)) == _POINTER:
                    raise CheckpointError(
                        f"{path} is a Git LFS pointer, not the weights; run: git lfs pull"
                    )
            file: Any = safe_open(path, framework="pt")
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is damaged or not a safetensors file ({error}); copy it again"
            ) from error
        doubled = sorted(shapes.keys() & self._shapes.keys())
        if doubled:
            raise CheckpointError(
                f"{path} repeats {len(doubled)} tensors of {self._files[doubled[0]].name}, "
                f"e.g. {doubled[0]}; keep one set of shards in the folder"
            )
        self._shapes.update(shapes)
        self._files.update(dict.fromkeys(shapes, path))
        self._open[path] = file

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes, from the files' headers."""
        return self._shapes

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        path = self._files[name]
        try:
            tensor: Tensor = self._open[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read at {name}: {error}") from error
        return tensor
