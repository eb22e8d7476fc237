"""The feed-forward network against its two lines."""

import pytest
import torch
import torch.nn.functional as F

from mmvitbackbones.layers import feed_forward
from mmvitbackbones.layers.feed_forward import FeedForward


@pytest.fixture(params=['narrow', 'wide'])
def layer(request, monkeypatch):
    """Several blocks; hidden values kept for the backward pass, or computed again."""
    monkeypatch.setattr(feed_forward, '_BLOCK', 4)
    monkeypatch.setattr(feed_forward, '_NARROW', 3 if request.param == 'narrow' else 0)
    torch.manual_seed(0)
    return FeedForward(3, 6).double()


def test_equals_its_definition(layer):
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    expected = layer.fc2(F.gelu(layer.fc1(x)))
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


def test_gradients(layer):
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()))


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


def test_dropout_in_training_only():
    torch.manual_seed(0)
    layer = FeedForward(3, 6, drop=0.5)
    x = torch.randn(4, 3)
    assert not torch.allclose(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x))
