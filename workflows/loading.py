"""Loading the model: the one place outside ``inference`` that brings torch along."""

from __future__ import annotations

from workflows.engine_thread import Engine
from workflows.model_card import model_folder
from workflows.settings import NodeSettings


def load_engine(settings: NodeSettings) -> Engine:
    """Load the model that the settings name; imports torch.

    Raises
    ------
    CheckpointError, FinalInferenceError
        With a sentence that says what is wrong with the folder or the device.
    """
    from inference.engine import Engine as LoadedEngine

    return LoadedEngine.load(model_folder(settings), settings.model.device, settings.model.threads)
