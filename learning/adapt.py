"""Fine-tune a checkpoint by the published recipe: LoRA, frozen encoders, words and masks together.

On one device, or on several by ``torchrun --nproc-per-node N -m deploy.cli train ...`` or
``accelerate launch`` (whose configuration may ask for FSDP).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from inference import decoding, prompts
from inference.architecture import UniBiomed
from inference.card import ModelCard, NotListed, write_card
from inference.checkpoints import Checkpoint, load_checkpoint, save_weights
from learning.adaptation_batches import (
    AdaptationBatch,
    DicomReader,
    Examples,
    collate,
    read_sets,
)
from learning.adaptation_losses import language_loss, mask_loss
from learning.adaptation_recipe import Adaptation, Part, is_adaptation, load_adaptation
from learning.examples import Example

__all__ = ["adapt", "is_adaptation"]

_LOG = logging.getLogger(__name__)
DicomOpener = Callable[[ModelCard], DicomReader]
MODEL_FOLDER: Final = "model"
NOT_MEASURED: Final = (
    "the weights were fine-tuned after it was measured; measure it with evaluate --unlisted, and "
    "write a new card"
)


class Adapted(nn.Module):
    """The model with its losses: one forward call a batch, as wrappers of devices need it."""

    def __init__(self, model: UniBiomed, seg: int, recipe: Adaptation) -> None:
        super().__init__()
        self.model = model
        self._seg = seg
        self._settings = recipe.losses

    def forward(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """Return the parts of the loss; ``total`` is what is minimised."""
        model = self.model
        tokens = model.image_tokens(batch.tiles)
        embedded = model.mllm.get_input_embeddings()(batch.ids)
        place = (batch.ids == model.config.language.image_token_id).unsqueeze(-1)
        embedded = embedded.masked_scatter(place, tokens.flatten(0, 1).to(embedded.dtype))
        states = model.mllm.model.language_model(
            inputs_embeds=embedded, use_cache=False
        ).last_hidden_state
        losses = {"language": language_loss(model.mllm.lm_head(states), batch.labels)}
        if batch.pixels.numel():
            losses.update(self._masks(states, batch))
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    def _masks(self, states: Tensor, batch: AdaptationBatch) -> dict[str, Tensor]:
        answered = (batch.ids == self._seg) & (batch.labels != -100)
        first = answered.float().argmax(dim=1)
        rows = torch.arange(states.shape[0], device=states.device)
        vectors = self.model.text_hidden_fcs(states[rows, first])[batch.example]
        features = self.model.grounding.encode(batch.pixels)
        frames = torch.arange(batch.pixels.shape[0], device=states.device)
        decoded = self.model.grounding.decode(features, vectors, frames)
        there = batch.masks.flatten(1).any(dim=1)
        losses: dict[str, Tensor] = {}
        if there.any():
            entropy, dice = mask_loss(
                decoded.logits[there].float(), batch.masks[there], self._settings
            )
            losses.update(mask=entropy, dice=dice)
        if self._settings.presence:
            losses["presence"] = self._settings.presence * (
                nn.functional.binary_cross_entropy_with_logits(
                    decoded.object_score.float(), there.float()
                )
            )
        return losses


def prepare_model(model: UniBiomed, recipe: Adaptation) -> None:
    """Freeze all but the recipe's parts, and put LoRA on the language model's layers, in place."""
    model.requires_grad_(False)
    lora = LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        bias="none",
        target_modules=list(recipe.lora.layers),
    )
    inject_adapter_in_model(lora, model.mllm.model.language_model)
    for part in recipe.trained:
        _part(model, part).requires_grad_(True)


def _part(model: UniBiomed, part: Part) -> nn.Module:
    grounding = model.grounding
    modules: dict[Part, nn.Module] = {
        "projector": model.mllm.model.multi_modal_projector,
        "bridge": model.text_hidden_fcs,
        "prompt_encoder": grounding.sam_prompt_encoder,
        "mask_decoder": grounding.sam_mask_decoder,
        "token_embeddings": model.mllm.get_input_embeddings(),
        "language_head": model.mllm.lm_head,
    }
    return modules[part]


def merge(model: UniBiomed) -> None:
    """Add the LoRA matrices to the weights that they belong to, and take them out, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    model.requires_grad_(False)


def adapt(config: Path, data: Path, out: Path, open_dicom: DicomOpener | None = None) -> Path:
    """Fine-tune by a recipe.

    Parameters
    ----------
    config
        YAML, see `learning.adaptation_recipe.Adaptation`.
    data
        Folder that the recipe's sets are under.
    out
        Folder of the run: resumable checkpoints, TensorBoard's events, and in the end the model
        folder. A run that was stopped goes on where it was.
    open_dicom
        Given the base's card, returns what reads the recipe's DICOM sets.

    Returns
    -------
    Path
        The model folder. Its card lists no target until it has been measured.

    Raises
    ------
    CheckpointError
        When the base cannot be loaded.
    DataError
        When a set cannot be read.
    """
    recipe = load_adaptation(config)
    checkpoint = load_checkpoint(recipe.base)
    read_dicom = None if open_dicom is None else open_dicom(checkpoint.card)
    examples = read_sets(recipe, data, read_dicom)
    run = _Run(recipe, checkpoint, examples, out)
    run.train()
    if run.accelerator.is_main_process:
        _export(run.whole_model(), checkpoint, out / MODEL_FOLDER)
    run.accelerator.wait_for_everyone()
    return out / MODEL_FOLDER


class _Run:
    """One run: what accelerate holds, and how far it is."""

    def __init__(
        self, recipe: Adaptation, checkpoint: Checkpoint, read: list[Example], out: Path
    ) -> None:
        self._recipe, self._out = recipe, out
        self.accelerator = Accelerator(
            mixed_precision=recipe.precision,
            gradient_accumulation_steps=recipe.accumulate,
            project_config=ProjectConfiguration(
                project_dir=str(out), automatic_checkpoint_naming=True, total_limit=recipe.keep
            ),
        )
        set_seed(recipe.seed)
        model = checkpoint.model
        prepare_model(model, recipe)
        examples = Examples(read, checkpoint.tokenizer, model.config, checkpoint.card, recipe)
        loader = DataLoader(examples, recipe.batch, shuffle=True, collate_fn=collate)
        adapted = Adapted(model, decoding.token_id(checkpoint.tokenizer, prompts.SEG), recipe)
        trained = [p for p in adapted.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        batches = math.ceil(len(loader) / self.accelerator.num_processes)
        self._steps_an_epoch = max(1, math.ceil(batches / recipe.accumulate))
        self._steps = self._steps_an_epoch * recipe.epochs
        if recipe.max_steps is not None:
            self._steps = min(self._steps, recipe.max_steps)
        # Accelerate steps the schedule once for each process.
        length = self._steps * self.accelerator.num_processes
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate(step / length, recipe.warm_up)
        )
        self._adapted, self._optimizer, self._loader, self._schedule = self.accelerator.prepare(
            adapted, optimizer, loader, schedule
        )
        self._progress = _Steps()
        self.accelerator.register_for_checkpointing(self._progress)
        self._resume()

    def whole_model(self) -> UniBiomed:
        """Return the model without wrappers, LoRA merged."""
        model: UniBiomed = self.accelerator.unwrap_model(self._adapted).model
        merge(model)
        return model

    def _resume(self) -> None:
        kept = self._out / "checkpoints"
        if kept.is_dir() and any(kept.iterdir()):
            self.accelerator.load_state()
            config = self.accelerator.project_configuration
            config.iteration = 1 + max(int(p.name.rsplit("_", 1)[1]) for p in kept.iterdir())
            _LOG.info("resumed at step %d of %d", self._progress.done, self._steps)

    def train(self) -> None:
        """Take the steps that are left."""
        self._adapted.train()
        main = self.accelerator.is_main_process
        writer = SummaryWriter(str(self._out / "tensorboard")) if main else None
        bar = tqdm(total=self._steps, initial=self._progress.done, disable=not main, unit="step")
        batches = self._batches()
        try:
            while self._progress.done < self._steps:
                losses = self._step(next(batches))
                if losses is None:
                    continue
                self._progress.done += 1
                bar.update()
                bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()})
                if writer is not None:
                    for name, value in losses.items():
                        writer.add_scalar(f"loss/{name}", value, self._progress.done)
                    rate_now = self._schedule.get_last_lr()[0]
                    writer.add_scalar("learning rate", rate_now, self._progress.done)
                if self._progress.done % self._recipe.checkpoint_steps == 0:
                    self.accelerator.save_state()
            if self._progress.done % self._recipe.checkpoint_steps:
                self.accelerator.save_state()
        finally:
            bar.close()
            if writer is not None:
                writer.close()

    def _batches(self) -> Iterator[AdaptationBatch]:
        """Endless batches; a resumed run begins inside the epoch where it was."""
        epoch, within = divmod(self._progress.done, self._steps_an_epoch)
        skipped = within * self._recipe.accumulate
        while True:
            if hasattr(self._loader, "set_epoch"):
                self._loader.set_epoch(epoch)
            yield from self.accelerator.skip_first_batches(self._loader, skipped)
            epoch, skipped = epoch + 1, 0

    def _step(self, batch: AdaptationBatch) -> dict[str, float] | None:
        """Accumulate one batch; return the losses when a whole step was taken."""
        with self.accelerator.accumulate(self._adapted):
            losses = self._adapted(batch)
            self.accelerator.backward(losses["total"])
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self._adapted.parameters(), self._recipe.clip)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
        if not self.accelerator.sync_gradients:
            return None
        return {name: float(value.detach()) for name, value in losses.items()}


class _Steps:
    """How many steps are done; saved with every checkpoint."""

    def __init__(self) -> None:
        self.done = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what accelerate saves."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what accelerate loaded."""
        self.done = int(state["done"])


def rate(fraction: float, warm_up: float) -> float:
    """Learning rate's factor: linear warm-up from 1e-5, then cosine to zero."""
    if fraction < warm_up:
        return 1e-5 + (1.0 - 1e-5) * fraction / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (fraction - warm_up) / (1.0 - warm_up))))


def _export(model: UniBiomed, checkpoint: Checkpoint, folder: Path) -> None:
    """Write the model folder; what the old card listed was measured on other weights."""
    save_weights(model.float().cpu(), checkpoint.tokenizer, folder, torch.float32)
    write_card(unmeasured(checkpoint.card), folder)


def unmeasured(card: ModelCard) -> ModelCard:
    """Return a card that lists none of its targets any more, and speaks no task."""
    moved = tuple(
        NotListed(name=target.name, modality=target.modality, reason=NOT_MEASURED)
        for target in card.targets
    )
    return card.model_copy(
        update={
            "version": f"{card.version} fine-tuned",
            "targets": (),
            "spoken": (),
            "not_listed": (*card.not_listed, *moved),
        }
    )
