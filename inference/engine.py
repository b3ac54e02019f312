"""The engine: a loaded model that answers what is asked of one series."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.answering import Key, answer, plan
from inference.card import ModelCard
from inference.checkpoints import Checkpoint, load_checkpoint
from inference.errors import (
    CancelledError,
    DeviceLostError,
    FinalInferenceError,
    NotCoveredError,
    RetriableInferenceError,
)
from inference.findings import Finding, Interpretation
from inference.segmenting import Segmenter
from inference.series import Kind, Series, Spacing, View, check_geometry, check_images
from inference.tasks import Task
from inference.volumes import Assembled

SHIPPED = Path(__file__).parent / "weights" / "nano"
"""The checkpoint that comes with the project."""

Progress = Callable[[int, int], None]
Cancelled = Callable[[], bool]
Steps = Generator[float, None, Interpretation]


class Engine:
    """Answers questions with one checkpoint on one device.

    Not safe for use by several threads at once: one engine, one thread.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._device = device
        self._segmenter = Segmenter(checkpoint, device)

    @classmethod
    def load(
        cls, folder: Path = SHIPPED, device: str = "cpu", threads: int | None = None
    ) -> Engine:
        """Load a checkpoint folder.

        Parameters
        ----------
        folder
            Of a checkpoint with a card.
        device
            ``cpu``, ``cuda``, or ``auto``: the first GPU where there is one.
        threads
            CPU threads of this process' torch; ``None`` leaves it as it is.

        Raises
        ------
        CheckpointError
            When the folder cannot be loaded.
        FinalInferenceError
            When the device does not exist here.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if chosen.startswith("cuda") and not torch.cuda.is_available():
            raise FinalInferenceError(
                f"device {device!r} was asked for, but torch finds no GPU here; set the device to "
                "'cpu' or 'auto', or install the CUDA build of torch"
            )
        place = torch.device(chosen)
        return cls(load_checkpoint(folder, place), place)

    def with_card(self, card: ModelCard) -> Engine:
        """Return the same model under another card, to measure what its own does not list."""
        return Engine(dataclasses.replace(self._checkpoint, card=card), self._device)

    @property
    def card(self) -> ModelCard:
        """What the model may be asked."""
        return self._checkpoint.card

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, hexadecimal."""
        return self._checkpoint.digest

    def segment(
        self,
        images: NDArray[np.generic],
        *,
        modality: str,
        kind: Kind,
        targets: Sequence[str],
        spacing: Spacing | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Interpretation:
        """Find targets in a series: `answer` with one segmentation task.

        Parameters
        ----------
        targets
            Names of the card; the findings come in this order.

        Raises
        ------
        NotCoveredError, FinalInferenceError, RetriableInferenceError, CancelledError
            As `answer`.
        """
        if not targets:
            raise FinalInferenceError("no target was asked for")
        try:
            task = Task.segment(*targets)
        except ValueError as error:
            raise NotCoveredError(str(error)) from error
        return self.answer(
            images,
            modality=modality,
            kind=kind,
            tasks=[task],
            spacing=spacing,
            progress=progress,
            cancelled=cancelled,
        )

    def answer(
        self,
        images: NDArray[np.generic],
        *,
        modality: str,
        kind: Kind,
        tasks: Sequence[Task],
        spacing: Spacing | None = None,
        axes: NDArray[np.float64] | None = None,
        window: tuple[float, float] | None = None,
        rendered: tuple[float, float] | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Interpretation:
        """Answer tasks about a series.

        Parameters
        ----------
        images
            Rescaled values (HU, SUV, MR units), ``(frames, rows, columns)``, in spatial order; or
            8-bit RGB ``(frames, rows, columns, 3)``.
        modality
            In the words of the card, e.g. ``"MRI"``.
        kind
            ``"volume"`` (slices of one body) or ``"images"`` (pictures on their own).
        tasks
            What is asked; see `inference.tasks`.
        spacing
            mm between frames, rows, columns; ``None`` where it is unknown.
        axes
            ``(3, 3)``: mm to the patient's left, back and head that a step along frames, rows and
            columns (one row each) moves; ``None`` where it is unknown, and then no side of the
            patient is named.
        window
            VOI window of the header, for modalities whose policy asks for it.
        rendered
            Values that become 0 and 255, where the images were brought to grey levels before and
            the card's policy is not to be applied again.
        progress
            Called with slices done and slices in all, after each batch.
        cancelled
            Asked before each batch; true ends the work.

        Returns
        -------
        Interpretation
            The findings of each task, in the order asked: one for each target of a segmentation,
            one or more for the others. Masks lie on the grid of ``images``, pixel for pixel.

        Raises
        ------
        NotCoveredError
            When the card does not list the modality, a target, or what a question is about.
        FinalInferenceError
            When the images, the geometry or a region cannot be what they are said to be.
        RetriableInferenceError
            When memory ran out.
        CancelledError
            When ``cancelled`` answered true.
        """
        steps = self.answer_steps(
            images,
            modality=modality,
            kind=kind,
            tasks=tasks,
            spacing=spacing,
            axes=axes,
            window=window,
            rendered=rendered,
        )
        frames = int(images.shape[0])
        while True:
            if cancelled is not None and cancelled():
                steps.close()
                raise CancelledError("stopped before the last slice")
            try:
                done = next(steps)
            except StopIteration as finished:
                interpretation: Interpretation = finished.value
                return interpretation
            if progress is not None:
                progress(round(done * frames), frames)

    def answer_steps(
        self,
        images: NDArray[np.generic],
        *,
        modality: str,
        kind: Kind,
        tasks: Sequence[Task],
        spacing: Spacing | None = None,
        axes: NDArray[np.float64] | None = None,
        window: tuple[float, float] | None = None,
        rendered: tuple[float, float] | None = None,
    ) -> Steps:
        """Answer tasks about a series, one batch of slices at a time.

        So that one thread can serve several series in turns: each ``next`` answers one batch.
        Arguments, answer and errors are those of `answer`.

        Yields
        ------
        float
            The fraction that is done, after each batch.
        """
        series = self._series(images, modality, kind, spacing, axes, window, rendered)
        if not tasks:
            raise FinalInferenceError("nothing was asked for")
        planned = [plan(task, self.card, series) for task in tasks]
        findings: list[Finding] = []
        known: dict[Key, Assembled] = {}
        try:
            for number, one in enumerate(planned):
                steps = answer(one, self._checkpoint, self._segmenter, series, known)
                while True:
                    try:
                        fraction = next(steps)
                    except StopIteration as finished:
                        findings.extend(finished.value)
                        break
                    yield (number + fraction) / len(planned)
                # Masks of large series take memory: only what is asked again is kept.
                again = {key for later in planned[number + 1 :] for key in later.keys}
                known = {key: found for key, found in known.items() if key in again}
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise RetriableInferenceError(
                f"memory ran out on {self._device} with {images.shape[0]} frames of "
                f"{images.shape[1]}x{images.shape[2]} pixels"
            ) from error
        except torch.AcceleratorError as error:
            # Illegal access, ECC, device lost: every later call of this process fails as well.
            raise DeviceLostError(
                f"the device {self._device} failed ({str(error).splitlines()[0]}); "
                "its worker starts anew"
            ) from error
        used = [series.policy(target) for one in planned for target in one.targets]
        policies = dict.fromkeys(used or [series.policy()])
        return Interpretation(
            findings=tuple(findings),
            model_name=self.card.name,
            model_version=self.card.version,
            model_digest=self.digest,
            intensity="; ".join(View.of(series, policy).describe() for policy in policies),
            frames=series.frames,
        )

    def _series(
        self,
        images: NDArray[np.generic],
        modality: str,
        kind: Kind,
        spacing: Spacing | None,
        axes: NDArray[np.float64] | None,
        window: tuple[float, float] | None,
        rendered: tuple[float, float] | None,
    ) -> Series:
        """Refuse what cannot be answered, in words."""
        if kind not in ("volume", "images"):
            raise FinalInferenceError(f"kind is {kind!r}, not 'volume' or 'images'")
        listed = self.card.modality(modality)
        if listed is None:
            raise NotCoveredError(self.card.covers(modality, "") or f"{modality} is not covered")
        check_geometry(spacing, axes)
        check_images(images, listed)
        return Series(images, listed, kind, spacing, axes, window, rendered)
