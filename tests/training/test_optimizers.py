"""AdaFactor: that of transformers while the moments fade alike, and the paper's second moment from there on."""

import pytest
import torch
from torch import nn

from muse.training.optimizers import AdaFactor, optimizer_for


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def train(module, optimizer, steps):
    for step in range(steps):
        given = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(given).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_takes_the_steps_of_the_one_in_transformers(weight_decay):
    from transformers.optimization import Adafactor

    ours, theirs = network(), network()
    fixed = {"scale_parameter": False, "relative_step": False, "warmup_init": False, "beta1": 0.9}
    reference = Adafactor(theirs.parameters(), lr=1e-2, weight_decay=weight_decay, **fixed)
    optimizer = AdaFactor(ours.parameters(), lr=1e-2, weight_decay=weight_decay)
    for mine, other in zip(train(ours, optimizer, 30), train(theirs, reference, 30), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_its_second_moment_never_fades_slower_than_the_papers():
    weight = nn.Parameter(torch.ones(3))
    optimizer = AdaFactor([weight], lr=0.0)
    for gradient in [1.0] * 100 + [0.0]:
        weight.grad = torch.full((3,), gradient)
        optimizer.step()
    torch.testing.assert_close(optimizer.state[weight]["squares"], torch.full((3,), 0.96))


def test_its_moments_take_half_of_the_memory_of_adamws():
    sizes = {}
    for name in ("adamw", "adafactor"):
        module = nn.Linear(64, 64)
        optimizer = optimizer_for(module, name, 1e-3, 0.045)
        module(torch.randn(2, 64)).sum().backward()
        optimizer.step()
        sizes[name] = sum(t.numel() for moments in optimizer.state.values() for t in moments.values())
    assert sizes["adafactor"] < 0.55 * sizes["adamw"]


def test_the_papers_weight_decay_reaches_matrices_only():
    optimizer = optimizer_for(nn.Linear(4, 4), "adafactor", 1e-3, 0.045)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.045, 0.0]
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.96)] * 2
