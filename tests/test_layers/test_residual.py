"""Residual connections against their definition."""

import pytest
import torch

from mmvitbackbones.layers import Residual

SHAPE = (3, 4, 5, 6)


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


def make(drop_prob, scaled):
    torch.manual_seed(0)
    layer = Residual(drop_prob, 6, 1e-6 if scaled else None).double()
    if scaled:
        torch.nn.init.normal_(layer.scale)
    return layer, draw(*SHAPE), draw(*SHAPE)


@pytest.mark.parametrize('shape', [SHAPE, (3, 6), (1, 4, 6)])
@pytest.mark.parametrize('drop_prob, mode', [(0.0, True), (0.0, False), (0.7, False)])
@pytest.mark.parametrize('scaled', [False, True])
def test_adds_the_branch(scaled, drop_prob, mode, shape):
    layer, _, _ = make(drop_prob, scaled)
    layer.train(mode)
    x, y = draw(*shape), draw(*shape)
    expected = x + y * (layer.scale if scaled else 1)
    ours, inputs = layer(x, y), (x, y, *layer.parameters())
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad(ours, inputs, slope), torch.autograd.grad(expected, inputs, slope)
    ):
        torch.testing.assert_close(found, wanted)


def test_scale_starts_where_it_is_told():
    assert torch.equal(Residual(0.0, 6, 1e-6).scale, torch.full((6,), 1e-6))
    assert not list(Residual(0.0, 6).parameters())


@pytest.mark.parametrize('scaled', [False, True])
def test_drops_whole_samples_in_training(scaled):
    """And what is kept is enlarged, so that the mean stays; gradients go the same way."""
    layer, x, y = make(0.75, scaled)
    branch = y * layer.scale if scaled else y
    kept = []
    for _ in range(200):
        ours = layer(x, y)
        with torch.no_grad():
            changed = [not torch.equal(a, b) for a, b in zip(ours, x)]
            for i, (found, keeps) in enumerate(zip(ours, changed)):
                expected = x[i] + 4 * branch[i] if keeps else x[i]
                torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        kept += changed
    # 600 draws: a standard deviation is 0.018.
    assert abs(sum(kept) / len(kept) - 0.25) < 0.06
    assert len({tuple(kept[i : i + 3]) for i in range(0, 600, 3)}) > 3  # each on its own

    keep = 4 * torch.tensor(changed, dtype=torch.float64)[:, None, None, None]
    inputs, slope = (x, y, *layer.parameters()), torch.randn(SHAPE, dtype=torch.float64)
    found = torch.autograd.grad(ours, inputs, slope)
    for ours, wanted in zip(found, torch.autograd.grad(x + keep * branch, inputs, slope)):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize('drop_prob', [0.0, 0.3])
@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_branch_in_half_type(dtype, scaled, drop_prob):
    """As autocast leaves it: the sum keeps the precision of ``x``."""
    torch.manual_seed(0)
    layer = Residual(drop_prob, 6, 0.3 if scaled else None)
    x, y = draw(*SHAPE, dtype=torch.float32), draw(*SHAPE, dtype=dtype)
    with torch.autocast('cpu', dtype):
        ours = layer(x, y)
    assert ours.dtype == torch.float32
    branch = y.detach().float() * (0.3 if scaled else 1)
    for i in range(len(x)):
        if not torch.equal(ours[i], x[i]):
            torch.testing.assert_close(ours[i], x[i] + branch[i] / (1 - drop_prob))
    ours.sum().backward()
    assert x.grad.dtype == torch.float32 and y.grad.dtype == dtype
    assert not scaled or layer.scale.grad.dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_a_scale_keeps_half_types(dtype):
    layer = Residual(0.3, 6, 0.3)
    x, y = draw(*SHAPE, dtype=dtype), draw(*SHAPE, dtype=dtype)
    ours = layer(x, y)
    assert ours.dtype == dtype
    ours.sum().backward()
    assert layer.scale.grad.dtype == torch.float32


@pytest.mark.parametrize('scaled', [False, True])
def test_branches_of_the_same_samples_are_dropped_together(scaled):
    """Whatever their shapes; what has no branch is left out."""
    layer, _, _ = make(0.5, scaled)
    shapes = [(8, 3, 4, 6), (8, 2, 6), (8, 6)]
    xs, ys = ([draw(*shape) for shape in shapes] for _ in range(2))
    patterns = set()
    for _ in range(20):
        outs = layer.each(xs, ys[:2])
        assert [out.shape for out in outs] == shapes[:2]
        keeps = [[not torch.equal(a, b) for a, b in zip(*pair)] for pair in zip(outs, xs)]
        assert keeps[0] == keeps[1]
        patterns.add(tuple(keeps[0]))
        for out, x, y in zip(outs, xs, ys):
            branch = 2 * (y * layer.scale if scaled else y)
            kept = torch.tensor(keeps[0], dtype=y.dtype).view(-1, *[1] * (y.dim() - 1))
            torch.testing.assert_close(out, x + kept * branch, rtol=1e-12, atol=1e-12)
    assert len(patterns) > 10
    for out, x, y in zip(layer.eval().each(xs, ys), xs, ys):
        torch.testing.assert_close(out, x + (y * layer.scale if scaled else y))
