"""Which model this node runs, and what its card lists; known without loading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from inference.card import CardTarget, ModelCard, read_card
from inference.weight_files import weights_digest
from workflows.settings import NodeSettings


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A checkpoint folder that was looked at but not loaded.

    Attributes
    ----------
    folder
        The checkpoint.
    card
        What it may be asked.
    digest
        SHA-256 of its weights, hexadecimal.
    """

    folder: Path
    card: ModelCard
    digest: str

    def targets_for(self, dicom_modality: str, body_part: str = "") -> Sequence[CardTarget]:
        """Return the targets to ask in a series; see `ModelCard.targets_for`."""
        return self.card.targets_for(dicom_modality, body_part)


def model_folder(settings: NodeSettings) -> Path:
    """Return the checkpoint that the settings name, or the shipped one."""
    if settings.model.folder is not None:
        return Path(settings.model.folder).expanduser()
    return Path(str(resources.files("inference") / "weights" / "nano"))


def look_at_model(settings: NodeSettings) -> KnownModel:
    """Read the card and the digest of the model in the settings.

    Raises
    ------
    CheckpointError
        When the folder holds no usable card or no weights.
    """
    folder = model_folder(settings)
    card = read_card(folder)
    return KnownModel(folder, card, weights_digest(folder))
