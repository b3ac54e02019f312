"""Steps of gradient descent: the same on a CPU, in several processes, and as one CUDA graph.

A small model is bound by the launch of its kernels: on a GPU the whole step, from the forward pass
to the optimiser, is recorded once and replayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from learning.batches import Batch

_WARM_UP_STEPS = 3
"""Steps before a graph is recorded: libraries set themselves up in the first ones."""
_MEMORY = 0.98
"""Of the running means of the log, per step."""

LossParts = dict[str, Tensor]
"""Named parts of a loss, for the log; ``total`` is what is minimised."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Parameters that share a peak learning rate and a weight decay; biases are never decayed."""

    parameters: Sequence[nn.Parameter]
    peak: float
    weight_decay: float


class Descent:
    """AdamW on one loss, at a learning rate that the caller scales step by step.

    Parameters
    ----------
    rates
        What learns, how fast.
    loss
        From a batch to the parts of the loss, with ``total`` among them.
    device
        Of the parameters.
    workers
        Processes that average their gradients before each step.
    """

    def __init__(
        self,
        rates: Sequence[Rate],
        loss: Callable[[Batch], LossParts],
        device: torch.device,
        workers: int = 1,
    ) -> None:
        self._device, self._workers, self._loss = device, workers, loss
        groups: list[dict[str, Any]] = []
        for rate in rates:
            for matrix, decay in ((True, rate.weight_decay), (False, 0.0)):
                chosen = [p for p in rate.parameters if (p.ndim > 1) is matrix]
                if chosen:
                    # A tensor each: a recorded graph reads it anew.
                    lr = torch.zeros((), device=device)
                    groups.append(
                        {"params": chosen, "weight_decay": decay, "peak": rate.peak, "lr": lr}
                    )
        self._parameters = [p for group in groups for p in group["params"]]
        self._optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.98), fused=True, capturable=device.type == "cuda"
        )
        self._means: dict[str, Tensor] = {}
        self._weight = torch.zeros((), device=device)
        self._recorded: tuple[torch.cuda.CUDAGraph, Batch] | None = None
        self._steps = 0

    def step(self, batch: Batch, factor: float) -> None:
        """Take one step at a part of the peak learning rates; nothing waits for a GPU."""
        for group in self._optimizer.param_groups:
            group["lr"].fill_(group["peak"] * factor)
        if self._device.type != "cuda" or self._workers > 1:
            with sdpa_kernel(SDPBackend.MATH):
                self._update(batch)
            return
        if self._recorded is None:
            self._record(batch)
            return
        graph, static = self._recorded
        static.copy_(batch)
        graph.replay()

    def means(self) -> dict[str, float]:
        """Return running means of the parts of the loss; waits for the device."""
        weight = max(float(self._weight), 1e-9)
        return {name: float(value) / weight for name, value in self._means.items()}

    def state(self) -> dict[str, Any]:
        """Return the state of the optimiser, for a checkpoint."""
        return self._optimizer.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self._optimizer.load_state_dict(state)
        for group in self._optimizer.param_groups:
            group["lr"] = torch.zeros((), device=self._device)

    def _update(self, batch: Batch) -> None:
        with torch.autocast(self._device.type, torch.bfloat16):
            parts = self._loss(batch)
        self._optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        if self._workers > 1:
            self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self._parameters, 1.0)
        # As a gradient scaler tells an optimiser: a step whose gradient is not finite is left out.
        bad = (~torch.isfinite(norm)).float()
        self._optimizer.found_inf = bad  # type: ignore[attr-defined]
        self._optimizer.step()
        self._remember({**parts, "skipped": bad})

    def _remember(self, parts: LossParts) -> None:
        with torch.no_grad():
            self._weight.mul_(_MEMORY).add_(1.0 - _MEMORY)
            for name, value in parts.items():
                if name not in self._means:
                    self._means[name] = torch.zeros((), device=self._device)
                known = torch.nan_to_num(value.detach().float())
                self._means[name].mul_(_MEMORY).add_(known, alpha=1.0 - _MEMORY)

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self._workers
        place = 0
        for gradient in gradients:
            gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
            place += gradient.numel()

    def _record(self, batch: Batch) -> None:
        """Take the first steps as they are, then record one as a graph, which runs nothing yet."""
        self._steps += 1
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._update(batch)
        torch.cuda.current_stream().wait_stream(side)
        if self._steps < _WARM_UP_STEPS:
            return
        static, graph = batch.clone(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update(static)
        self._recorded = graph, static


def schedule(fraction: float, warm_up: float = 0.04) -> float:
    """Linear warm-up, then cosine to zero, over 0..1."""
    if fraction < warm_up:
        return 0.02 + 0.98 * fraction / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (fraction - warm_up) / (1.0 - warm_up)))


def common_clock(elapsed: float, workers: int) -> float:
    """Mean of the processes' clocks, so that all end a stage at the same step."""
    if workers == 1:
        return elapsed
    clock = torch.tensor([elapsed])
    dist.all_reduce(clock)
    return float(clock) / workers
