"""AdaFactor: that of transformers while the moments fade alike, and the paper's second moment from there on.
Muon: torch's on the matrices of the layers, AdamW on all else, in one optimizer that a checkpoint holds."""

import pytest
import torch
from torch import nn

from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.training.optimizers import AdaFactor, nearest_orthogonal, optimizer_for


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


def transformer():
    torch.manual_seed(0)
    return MaskedTransformer(
        TransformerConfig(num_codes=16, height=2, width=2, dim=16, depth=2, heads=2, mlp_dim=48, text_dim=8)
    )


def train_transformer(network, optimizers, steps):
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(17, (6, 4), generator=generator)
        text, is_word = torch.randn(6, 3, 8, generator=generator), torch.ones(6, 3, dtype=torch.bool)
        for optimizer in optimizers:
            optimizer.zero_grad()
        network(tokens, network.read(text, is_word)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return dict(network.state_dict())


def in_layers(name, parameter):
    return name.startswith("layers.") and parameter.ndim == 2


def test_muon_takes_torchs_steps_in_the_layers_and_adamws_elsewhere():
    ours, theirs = transformer(), transformer()
    matrices = [p for name, p in theirs.named_parameters() if in_layers(name, p)]
    tables = [p for name, p in theirs.named_parameters() if not in_layers(name, p) and p.ndim == 2]
    scales = [p for p in theirs.parameters() if p.ndim == 1]
    groups = [{"params": tables, "weight_decay": 0.045}, {"params": scales, "weight_decay": 0.0}]
    reference = (
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.045, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.96)),
    )
    mine = train_transformer(ours, [optimizer_for(ours, "muon", 1e-2, 0.045)], 8)
    other = train_transformer(theirs, reference, 8)
    start = transformer().state_dict()
    for name, weight in other.items():
        moved = (weight - start[name]).norm()
        assert moved > 0, name
        # bfloat16 rounds the orthogonal steps of the two in other places.
        assert (mine[name] - weight).norm() < 0.08 * moved, name


@pytest.mark.parametrize("shape", [(40, 40), (24, 96), (96, 24)])
def test_the_nearest_orthogonal_matrix_keeps_directions_and_evens_out_their_sizes(shape):
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=generator))
    sizes = torch.linspace(0.1, 1.0, min(shape))
    found = nearest_orthogonal(left * sizes @ right.T)
    assert found.dtype == torch.float32
    along = left.T @ found @ right
    assert along.diagonal().min() > 0.6
    assert along.diagonal().max() < 1.3
    assert (along - along.diagonal().diag()).abs().max() < 0.05


def test_a_matrix_without_a_gradient_of_any_size_does_not_move_to_infinity():
    assert nearest_orthogonal(torch.zeros(4, 6)).eq(0).all()


def test_muon_goes_on_from_its_state():
    unbroken, broken = transformer(), transformer()
    kept, lost = (optimizer_for(each, "muon", 1e-2, 0.045) for each in (unbroken, broken))
    for network, optimizer in ((unbroken, kept), (broken, lost)):
        train_transformer(network, [optimizer], 4)
    found = optimizer_for(broken, "muon", 1e-2, 0.045)
    forgetful = optimizer_for(broken, "muon", 1e-2, 0.045)
    found.load_state_dict(lost.state_dict())
    weights = {name: weight.clone() for name, weight in broken.state_dict().items()}
    train_transformer(unbroken, [kept], 3)
    train_transformer(broken, [found], 3)
    for name, weight in unbroken.state_dict().items():
        torch.testing.assert_close(broken.state_dict()[name], weight, atol=0, rtol=0)
    broken.load_state_dict(weights)
    train_transformer(broken, [forgetful], 3)
    assert not torch.equal(broken.positions.rows, unbroken.positions.rows)
