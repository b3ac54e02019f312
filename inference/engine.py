"""The engine: a loaded model that answers what is asked of one series.

Each slice goes through the vision tower and the grounding encoder once; all targets of a batch of
slices are then answered and decoded together.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference import decoding, intensity, tasks
from inference.card import CardModality, CardTarget, ModelCard
from inference.checkpoints import Checkpoint, load_checkpoint
from inference.errors import (
    CancelledError,
    DeviceLostError,
    FinalInferenceError,
    NotCoveredError,
    RetriableInferenceError,
)
from inference.findings import Finding, Interpretation, Presence
from inference.preparation import prepare
from inference.volumes import Assembled, SliceAnswers, Spacing, assemble

SHIPPED = Path(__file__).parent / "weights" / "nano"
"""The checkpoint that comes with the project."""

_BATCH_PROMPTS = 48
"""Prompts that are decoded together at most; bounds memory, not the answer."""
_BATCH_SLICES = 16
_BATCH_PIXELS = 4 * 1024 * 1024
"""Of the grounding encoder's input: about 1 GB of memory for each of four pictures of 1024."""

Progress = Callable[[int, int], None]
Cancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Question:
    """A checked request."""

    images: NDArray[np.generic]
    modality: CardModality
    kind: str
    targets: tuple[CardTarget, ...]
    prompts: tuple[str, ...]
    spacing: Spacing | None


class Engine:
    """Answers questions with one checkpoint on one device.

    Not safe for use by several threads at once: one engine, one thread.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._device = device

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
        kind: str,
        targets: Sequence[str],
        spacing: Spacing | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Interpretation:
        """Find targets in a series.

        Parameters
        ----------
        images
            Rescaled values (HU, SUV, MR units), ``(frames, rows, columns)``, in spatial order; or
            8-bit RGB ``(frames, rows, columns, 3)``.
        modality
            In the words of the card, e.g. ``"MRI"``.
        kind
            ``"volume"`` (slices of one body) or ``"images"`` (pictures on their own).
        targets
            Names of the card; the findings come in this order.
        spacing
            mm between frames, rows, columns; ``None`` where it is unknown.
        progress
            Called with slices done and slices in all, after each batch.
        cancelled
            Asked before each batch; true ends the work.

        Returns
        -------
        Interpretation
            One finding for each target. An absent target has no mask; masks lie on the grid of
            ``images``, pixel for pixel.

        Raises
        ------
        NotCoveredError
            When the card does not list the modality or one of the targets.
        FinalInferenceError
            When the images or the spacing cannot be what they are said to be.
        RetriableInferenceError
            When memory ran out.
        CancelledError
            When ``cancelled`` answered true.
        """
        steps = self.segment_steps(
            images, modality=modality, kind=kind, targets=targets, spacing=spacing
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

    def segment_steps(
        self,
        images: NDArray[np.generic],
        *,
        modality: str,
        kind: str,
        targets: Sequence[str],
        spacing: Spacing | None = None,
    ) -> Generator[float, None, Interpretation]:
        """Find targets in a series, one batch of slices at a time.

        So that one thread can serve several series in turns: each ``next`` answers one batch.
        Arguments, answer and errors are those of `segment`.

        Yields
        ------
        float
            The fraction of the slices that is done, after each batch.
        """
        question = self._check(images, modality, kind, targets, spacing)
        low, high = intensity.limits(question.images, question.modality.intensity)
        try:
            answers = yield from self._answer(question, low, high)
            findings = tuple(
                self._finding(question, number, answers[number])
                for number in range(len(question.targets))
            )
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
        return Interpretation(
            findings=findings,
            model_name=self.card.name,
            model_version=self.card.version,
            model_digest=self.digest,
            intensity=intensity.describe(question.modality.intensity, low, high),
            frames=int(images.shape[0]),
        )

    def _check(
        self,
        images: NDArray[np.generic],
        modality: str,
        kind: str,
        targets: Sequence[str],
        spacing: Spacing | None,
    ) -> _Question:
        """Refuse what cannot be answered, in words."""
        if kind not in ("volume", "images"):
            raise FinalInferenceError(f"kind is {kind!r}, not 'volume' or 'images'")
        if not targets:
            raise FinalInferenceError("no target was asked for")
        words = [_words(target) for target in targets]
        listed, chosen = self._listed(modality, words)
        if spacing is not None and not all(np.isfinite(mm) and mm > 0 for mm in spacing):
            raise FinalInferenceError(
                f"spacing {spacing} mm is not three positive numbers: pass None where it is unknown"
            )
        return _Question(
            images=_checked_images(images, listed),
            modality=listed,
            kind=kind,
            targets=chosen,
            prompts=tuple(tasks.SegmentationTask(name, modality).prompt for name in words),
            spacing=spacing,
        )

    def _listed(
        self, modality: str, words: Sequence[str]
    ) -> tuple[CardModality, tuple[CardTarget, ...]]:
        """Look the request up on the card."""
        listed = self.card.modality(modality)
        targets: list[CardTarget] = []
        for name in words:
            target = self.card.target(modality, name)
            if listed is None or target is None:
                raise NotCoveredError(self.card.covers(modality, name) or f"{name} is not covered")
            targets.append(target)
        if listed is None:
            raise NotCoveredError(f"{modality} is not covered")
        return listed, tuple(targets)

    def _answer(
        self, question: _Question, low: float, high: float
    ) -> Generator[float, None, list[SliceAnswers]]:
        """Ask every target of every slice; one entry for each target."""
        frames, count = question.images.shape[0], len(question.targets)
        config = self._checkpoint.model.config
        side = config.grounding.image_size // 4
        logits = np.empty((count, frames, side, side), np.float16)
        score = np.empty((count, frames), np.float32)
        iou = np.empty((count, frames), np.float32)
        blank = np.empty(frames, np.bool_)
        for batch in _batches(frames, count, config.grounding.image_size):
            pictures = intensity.to_bytes(question.images[batch], low, high)
            if question.modality.intensity.grey and pictures.ndim == 4:
                pictures = intensity.luminance(pictures)
            flat = pictures.reshape(pictures.shape[0], -1)
            blank[batch] = flat.min(axis=1) == flat.max(axis=1)
            part = self._decode(pictures, question.prompts)
            logits[:, batch], score[:, batch], iou[:, batch] = part
            yield batch.stop / frames
        via = None if config.tiling is None else config.grounding.image_size
        return [SliceAnswers(logits[n], score[n], iou[n], blank, via) for n in range(count)]

    @torch.inference_mode()
    def _decode(
        self, pictures: NDArray[np.uint8], prompts: Sequence[str]
    ) -> tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.float32]]:
        """Decode N prompts on each of B pictures: logits ``(N, B, h, w)``, scores and overlaps."""
        model, count = self._checkpoint.model, len(prompts)
        slices = pictures.shape[0]
        inputs = prepare(pictures, model.config)
        tiles = inputs.tiles.flatten(0, 1).to(self._device)
        tokens = model.image_tokens(tiles).reshape(slices, -1, model.config.language.hidden)
        batch = decoding.encode(self._checkpoint.tokenizer, prompts, tokens.shape[1])
        vectors = model.seg_vectors(
            tokens.repeat(count, 1, 1),
            batch.ids.to(self._device).repeat_interleave(slices, dim=0),
            batch.seg_position.to(self._device).repeat_interleave(slices),
        )
        features = model.grounding.encode(inputs.pixels.to(self._device))
        image = torch.arange(slices, device=self._device).repeat(count)
        decoded = model.grounding.decode(features, vectors, image)
        logits = decoded.logits.clamp(-100, 100)
        return (
            logits.reshape(count, slices, *logits.shape[1:]).to(torch.float16).cpu().numpy(),
            decoded.object_score.float().reshape(count, slices).cpu().numpy(),
            decoded.predicted_iou.float().reshape(count, slices).cpu().numpy(),
        )

    def _finding(self, question: _Question, number: int, answers: SliceAnswers) -> Finding:
        """Put one target's answer into a sentence and a mask."""
        target = question.targets[number]
        rows, columns = question.images.shape[1:3]
        result = assemble(
            answers,
            target,
            kind=question.kind,
            grid=(rows, columns),
            spacing=question.spacing,
        )
        many = question.kind == "volume" or question.images.shape[0] > 1
        text, phrase = _sentence(target, result, "series" if many else "image")
        return Finding(
            target=target.name,
            text=text,
            phrase=phrase,
            prompt=question.prompts[number],
            presence=result.presence,
            confidence=result.confidence,
            mask=result.mask,
            key_frame=result.key_frame,
            predicted_iou=result.predicted_iou,
        )


def _words(target: str) -> str:
    try:
        return tasks.clean_target(target)
    except ValueError as error:
        raise NotCoveredError(str(error)) from error


def _checked_images(images: NDArray[np.generic], modality: CardModality) -> NDArray[np.generic]:
    """Check shape, type and content.

    Raises
    ------
    FinalInferenceError
        Naming what is wrong.
    """
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise FinalInferenceError(
            f"images of shape {images.shape}: (frames, rows, columns) or (..., 3) is needed"
        )
    if 0 in images.shape:
        raise FinalInferenceError(f"images of shape {images.shape} hold no pixel")
    if images.dtype.kind not in "uif":
        raise FinalInferenceError(f"images of type {images.dtype} are not numbers")
    if images.ndim == 4 and modality.intensity.kind != "eight_bit":
        raise FinalInferenceError(
            f"colour images were handed in as {modality.name}, whose values must be rescaled "
            "numbers: a screen capture is no source"
        )
    if images.ndim == 4 and images.dtype != np.uint8:
        raise FinalInferenceError(f"colour images must be 8 bit, not {images.dtype}")
    if images.dtype.kind == "f" and not np.isfinite(images).any():
        raise FinalInferenceError("the images hold no finite number")
    return images


def _batches(frames: int, targets: int, side: int) -> Iterator[slice]:
    """Slices of the frame axis, sized so that a batch's prompts and input pixels stay bounded."""
    size = max(1, min(_BATCH_SLICES, _BATCH_PROMPTS // targets, _BATCH_PIXELS // side**2))
    for start in range(0, frames, size):
        yield slice(start, min(start + size, frames))


def _sentence(target: CardTarget, result: Assembled, kind: str) -> tuple[str, str]:
    """State a finding in a sentence, and name the words in it that the mask speaks of."""
    if result.presence is Presence.ABSENT:
        return tasks.absent_sentence(target.name, kind), target.name
    if result.presence is Presence.UNCERTAIN:
        return tasks.uncertain_sentence(target.name, target.modality, kind), target.name
    text = tasks.present_sentence(target.name, target.modality, kind)
    return text, text[: len(target.name)]
