"""The feed-forward network against its two lines, or three."""

import pytest
import torch
import torch.nn.functional as F

from mmvitbackbones.layers import FeedForward
from mmvitbackbones.ops.cpu import feed_forward


@pytest.fixture(params=['narrow', 'wide'])
def layer(request, monkeypatch):
    """Several blocks; hidden values kept for the backward pass, or computed again."""
    monkeypatch.setattr(feed_forward, '_BLOCK', 4)
    monkeypatch.setattr(feed_forward, '_NARROW', 3 if request.param == 'narrow' else 0)
    torch.manual_seed(0)
    return FeedForward(3, 6).double()


def test_equals_its_definition(layer, body):
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    expected = layer.fc2(F.gelu(layer.fc1(x)))
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


def test_gradients(layer, body):
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()))


def test_no_tokens(layer, body):
    """As torch's own layers: none out, gradients of zero."""
    y = layer(torch.zeros(0, 5, 3, dtype=torch.float64, requires_grad=True))
    assert y.shape == (0, 5, 3)
    y.sum().backward()
    assert all(not p.grad.any() for p in layer.parameters())


def test_frozen_parameters_and_inputs(layer):
    """What needs no gradient gets none, and the rest gets the right one."""
    layer.fc1.requires_grad_(False)
    x = torch.randn(7, 3, dtype=torch.float64)
    layer(x).square().sum().backward()
    found = layer.fc2.weight.grad.clone()
    layer.zero_grad()
    layer.fc2(F.gelu(layer.fc1(x))).square().sum().backward()
    torch.testing.assert_close(found, layer.fc2.weight.grad)
    assert layer.fc1.weight.grad is None and x.grad is None


@pytest.mark.parametrize('conv', [False, True])
def test_frozen_network(monkeypatch, conv):
    """Only the tokens get a gradient."""
    monkeypatch.setattr(feed_forward, '_BLOCK', 4)
    monkeypatch.setattr(feed_forward, '_BLOCK_WITH_CONV', 8)
    torch.manual_seed(0)
    layer = FeedForward(3, 6, conv=conv).double()
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    layer.requires_grad_(False)
    (found,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_sums_over_strips_are_rounded_once(monkeypatch, dtype):
    """Gradients of weights in half types, over a thousand strips."""
    monkeypatch.setattr(feed_forward, '_BLOCK', 1)
    torch.manual_seed(0)
    layer = FeedForward(3, 6).to(dtype)
    exact = FeedForward(3, 6).double()
    exact.load_state_dict(layer.state_dict())
    x = torch.rand(1000, 3).to(dtype)
    (layer(x).sum() / 16).backward()  # of one sign, so that sums grow
    (exact.fc2(F.gelu(exact.fc1(x.double()))).sum() / 16).backward()
    for parameter, wanted in zip(layer.parameters(), exact.parameters()):
        error = (parameter.grad.double() - wanted.grad).abs().max()
        assert error < 4 * torch.finfo(dtype).eps * wanted.grad.abs().max()


def test_dropout_in_training_only():
    torch.manual_seed(0)
    layer = FeedForward(3, 6, drop=0.5)
    x = torch.randn(4, 3)
    assert not torch.allclose(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x))


# With a convolution between them.


def definition(layer, x):
    """As it is written, by torch's own calls."""
    hidden = F.gelu(F.linear(x, layer.fc1.weight, layer.fc1.bias))
    kernel, bias = layer.conv.weight, layer.conv.bias
    image = hidden.permute(0, 3, 1, 2).contiguous()
    convolved = F.conv2d(image, kernel, bias, padding=1, groups=len(kernel))
    return F.linear(hidden + convolved.permute(0, 2, 3, 1), layer.fc2.weight, layer.fc2.bias)


@pytest.fixture(params=['narrow', 'wide'])
def convolving(request, monkeypatch, poisoned_memory):
    monkeypatch.setattr(feed_forward, '_NARROW', 3 if request.param == 'narrow' else 0)
    torch.manual_seed(0)
    return FeedForward(3, 5, conv=True).double()


def compare(layer, x, inputs):
    """Equal outputs, also without gradients; equal gradients of those inputs, and of no other."""
    ours, expected = layer(x), definition(layer, x)
    torch.testing.assert_close(ours, expected)
    slope = torch.randn_like(expected).movedim(3, 1).contiguous().movedim(1, 3)
    wanted = torch.autograd.grad(expected, inputs, slope)
    ours.backward(slope)
    for value, theirs in zip(inputs, wanted):
        torch.testing.assert_close(value.grad, theirs)
    assert sum(value.grad is not None for value in (x, *layer.parameters())) == len(inputs)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize('rows', [1, 2, 3, 4, 100])
@pytest.mark.parametrize('size', [(9, 4), (8, 3), (7, 1), (1, 6), (2, 5), (3, 3), (1, 1)])
def test_convolution_in_strips(convolving, monkeypatch, size, rows):
    """Of so many rows, but two at least; the map's last strip may be lower."""
    monkeypatch.setattr(feed_forward, '_BLOCK_WITH_CONV', rows * size[1] + size[1] - 1)
    x = torch.randn(2, *size, 3, dtype=torch.float64, requires_grad=True)
    compare(convolving, x, [x, *convolving.parameters()])


def test_strips_are_as_high_as_they_may_be(monkeypatch):
    """And no tensor of hidden values is higher, where nothing is kept for a backward pass."""
    torch.manual_seed(0)
    layer, shapes = FeedForward(3, 5, conv=True), []
    convolve = feed_forward._convolve

    def spy(x, *args):
        shapes.append(tuple(x.shape))
        return convolve(x, *args)

    monkeypatch.setattr(feed_forward, '_convolve', spy)
    monkeypatch.setattr(feed_forward, '_BLOCK_WITH_CONV', 3 * 6 + 5)
    with torch.no_grad():
        layer(torch.randn(2, 8, 6, 3))
    assert shapes == [(5, 6, 5), (5, 6, 5), (4, 6, 5)] * 2  # with the rows beside them


@pytest.mark.parametrize('trained', [['x'], ['fc1'], ['conv'], ['fc2'], ['x', 'fc2']])
def test_convolution_between_frozen_parameters(convolving, monkeypatch, trained):
    monkeypatch.setattr(feed_forward, '_BLOCK_WITH_CONV', 3 * 4)
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64, requires_grad='x' in trained)
    inputs = [x] if 'x' in trained else []
    for name, parameter in convolving.named_parameters():
        parameter.requires_grad_(name.split('.')[0] in trained)
        inputs += [parameter] if parameter.requires_grad else []
    compare(convolving, x, inputs)


@pytest.mark.parametrize('layout', ['channels first', 'columns first', 'one map for all'])
def test_memory_layout_of_the_map_does_not_matter(convolving, layout, body):
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    if layout == 'channels first':
        x = x.movedim(3, 1).contiguous().movedim(1, 3)
    elif layout == 'columns first':
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    else:
        x = x[:1].expand(2, -1, -1, -1)
    x.requires_grad_()
    compare(convolving, x, [x, *convolving.parameters()])
    grads = []
    for y in (convolving(x), definition(convolving, x)):
        grads.append(torch.autograd.grad(y.sum(), (x, *convolving.parameters())))
    for ours, theirs in zip(*grads):
        torch.testing.assert_close(ours, theirs)


def test_convolution_and_dropout():
    """In training on average, in evaluation exactly the definition."""
    torch.manual_seed(0)
    layer = FeedForward(3, 6, drop=0.3, conv=True).double()
    x = torch.randn(1, 4, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        expected = definition(layer, x)
        outs = torch.stack([layer(x) for _ in range(900)])
        error, deviation = outs.mean(0) - expected, outs.std(0)
        assert (outs.eq(0).double().mean() - 0.3).abs() < 0.01  # after the second linear
        assert error.square().mean().sqrt() < 1.5 * deviation.square().mean().sqrt() / 30
        torch.testing.assert_close(layer.eval()(x), expected)


def test_convolution_in_half_type(monkeypatch):
    """The result and the gradients stay within the rounding of bfloat16."""
    monkeypatch.setattr(feed_forward, '_BLOCK_WITH_CONV', 3 * 4)
    torch.manual_seed(0)
    layer, exact = FeedForward(3, 6, conv=True).bfloat16(), FeedForward(3, 6, conv=True).double()
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(2, 7, 4, 3).bfloat16().requires_grad_()
    double = x.detach().double().requires_grad_()
    slope = torch.randn(2, 7, 4, 3).bfloat16()
    ours, expected = layer(x), definition(exact, double)
    found = torch.autograd.grad(ours, (x, *layer.parameters()), slope)
    wanted = torch.autograd.grad(expected, (double, *exact.parameters()), slope.double())
    for value, theirs in zip((ours, *found), (expected, *wanted)):
        assert value.dtype == torch.bfloat16
        assert (value.double() - theirs).abs().max() < 2**-5 * theirs.abs().max()
