"""Steps of descent: they go down, they skip what is not finite, they can be taken up again."""

from __future__ import annotations

import copy

import torch
from torch import nn

from learning.batches import Batch
from learning.descent import Descent, LossParts, Rate

CPU = torch.device("cpu")
NOTHING = Batch(*(torch.zeros(1, 1) for _ in range(6)))


def bowl(net: nn.Linear, height: float = 1.0) -> LossParts:
    loss = height * (net.weight**2).sum() + (net.bias**2).sum()
    return {"total": loss, "half": loss / 2}


def test_it_goes_down_and_tells_the_means() -> None:
    net = nn.Linear(3, 2)
    descent = Descent([Rate(list(net.parameters()), 0.05, 0.0)], lambda _: bowl(net), CPU)
    before = float(bowl(net)["total"].detach())
    for _ in range(60):
        descent.step(NOTHING, 1.0)
    assert float(bowl(net)["total"].detach()) < 0.1 * before
    means = descent.means()
    assert 0 < means["total"] < before
    assert abs(means["half"] - means["total"] / 2) < 1e-6
    assert means["skipped"] == 0


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    net = nn.Linear(3, 2)
    descent = Descent(
        [Rate(list(net.parameters()), 0.05, 0.0)], lambda _: bowl(net, float("nan")), CPU
    )
    before = net.weight.detach().clone()
    descent.step(NOTHING, 1.0)
    assert torch.equal(net.weight.detach(), before)
    assert descent.means()["skipped"] == 1


def test_a_factor_of_zero_changes_nothing_and_matrices_alone_decay() -> None:
    net = nn.Linear(3, 2)
    descent = Descent([Rate(list(net.parameters()), 0.1, 0.5)], lambda _: bowl(net), CPU)
    before = net.weight.detach().clone()
    descent.step(NOTHING, 0.0)
    assert torch.equal(net.weight.detach(), before)
    groups = descent.state()["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]


def test_a_state_is_taken_up_again() -> None:
    net = nn.Linear(3, 2)
    first = Descent([Rate(list(net.parameters()), 0.05, 0.0)], lambda _: bowl(net), CPU)
    first.step(NOTHING, 1.0)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    state = copy.deepcopy(first.state())
    first.step(NOTHING, 0.5)
    other = nn.Linear(3, 2)
    other.load_state_dict(kept)
    second = Descent([Rate(list(other.parameters()), 0.05, 0.0)], lambda _: bowl(other), CPU)
    second.load(state)
    second.step(NOTHING, 0.5)
    assert torch.allclose(net.weight, other.weight)
