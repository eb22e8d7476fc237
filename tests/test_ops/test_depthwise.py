"""Depth-wise convolutions against torch's own, and one by hand."""

import pytest
import torch
import torch.nn.functional as F

from mmvitbackbones.layers import PEG, DepthwiseConv
from mmvitbackbones.ops.cpu.depthwise import adding

# Also maps narrower and lower than a kernel.
SIZES = [(6, 7), (5, 1), (4, 2), (3, 3), (1, 6), (2, 4), (1, 1)]


def make_map(size, channels=3, dtype=torch.float64):
    return torch.randn(2, *size, channels, dtype=torch.float64).to(dtype).requires_grad_()


def plain(x, weight, bias=None):
    """As torch does it: (B, H, W, C) in and out."""
    padding = weight.shape[-1] // 2
    y = F.conv2d(x.movedim(3, 1).contiguous(), weight, bias, padding=padding, groups=len(weight))
    return y.movedim(1, 3)


def compare(ours, expected, inputs, **tolerance):
    torch.testing.assert_close(ours, expected, **tolerance)
    slope = torch.randn_like(expected)
    found = torch.autograd.grad(ours, inputs, slope)
    for ours, theirs in zip(found, torch.autograd.grad(expected, inputs, slope)):
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_written_out():
    """A kernel's rows and columns reach down and to the right; beyond the map lie zeros."""
    torch.manual_seed(0)
    conv, x = DepthwiseConv(2, 5).double(), make_map((4, 6), channels=2)
    expected = conv.bias.expand(2, 4, 6, 2).clone()
    for y in range(4):
        for z in range(6):
            for i in range(5):
                for j in range(5):
                    if y + i - 2 in range(4) and z + j - 2 in range(6):
                        weight = conv.weight[:, 0, i, j]
                        expected[:, y, z] += weight * x[:, y + i - 2, z + j - 2]
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('kernel', [3, 5, 7])
def test_equals_torch(kernel, bias, size, body):
    torch.manual_seed(0)
    conv, x = DepthwiseConv(3, kernel, bias).double(), make_map(size)
    assert (conv.bias is not None) == bias
    compare(conv(x), plain(x, conv.weight, conv.bias), (x, *conv.parameters()))
    with torch.no_grad():
        torch.testing.assert_close(conv(x), plain(x, conv.weight, conv.bias))


@pytest.mark.parametrize('trained', [['x'], ['weight'], ['bias'], ['x', 'bias'], []])
def test_only_what_needs_a_gradient_gets_one(trained):
    torch.manual_seed(0)
    conv, x = DepthwiseConv(3, 5).double(), make_map((4, 5))
    inputs = dict(x=x, weight=conv.weight, bias=conv.bias)
    for name, value in inputs.items():
        value.requires_grad_(name in trained)
    ours, expected = conv(x), plain(x, conv.weight, conv.bias)
    assert ours.requires_grad == bool(trained)
    if trained:
        compare(ours, expected, [inputs[name] for name in trained])
        conv(x).sum().backward()
    assert [name for name, value in inputs.items() if value.grad is not None] == trained


@pytest.mark.parametrize('kernel', [3, 5])
def test_memory_layout_does_not_matter(kernel, body):
    """Of the map, one for all samples included, and of the gradient that comes in."""
    torch.manual_seed(0)
    conv, x = DepthwiseConv(3, kernel).double(), make_map((4, 6))
    for strided in (
        x.movedim(3, 1).contiguous().movedim(1, 3),
        x.transpose(1, 2).contiguous().transpose(1, 2),
        x[:1].expand(2, -1, -1, -1),
    ):
        compare(conv(strided), plain(strided, conv.weight, conv.bias), (x, *conv.parameters()))
    grads = []
    for y in (conv(x), plain(x, conv.weight, conv.bias)):
        grads.append(torch.autograd.grad(y.sum(), (x, *conv.parameters())))
    for ours, theirs in zip(*grads):
        torch.testing.assert_close(ours, theirs)


def test_gradients_in_half_type():
    torch.manual_seed(0)
    conv, x = DepthwiseConv(3, 5).bfloat16(), make_map((6, 7), dtype=torch.bfloat16)
    exact, double = DepthwiseConv(3, 5).double(), x.detach().double().requires_grad_()
    exact.load_state_dict(conv.state_dict())
    slope = torch.randn(2, 6, 7, 3).bfloat16()
    found = torch.autograd.grad(conv(x), (x, *conv.parameters()), slope)
    wanted = torch.autograd.grad(exact(double), (double, *exact.parameters()), slope.double())
    for ours, theirs in zip(found, wanted):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - theirs).abs().max() < 2**-7 * theirs.abs().max()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('bias', [True, False])
def test_peg(bias, size):
    torch.manual_seed(0)
    peg, x = PEG(3, bias).double(), make_map(size)
    names = {'conv.weight', 'conv.bias'} if bias else {'conv.weight'}
    assert set(peg.state_dict()) == names and peg.conv.weight.shape == (3, 1, 3, 3)
    compare(peg(x), x + plain(x, peg.conv.weight, peg.conv.bias), (x, *peg.parameters()))


def test_residual_kernel_adds_what_it_is_applied_to():
    torch.manual_seed(0)
    conv, x = DepthwiseConv(3, 3).double(), make_map((4, 5))
    expected = x + plain(x, conv.weight)
    before = conv.weight.detach().clone()
    compare(plain(x, adding(conv.weight)), expected, (x, conv.weight))
    assert torch.equal(conv.weight, before)
