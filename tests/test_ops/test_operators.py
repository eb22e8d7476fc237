"""Every kernel as an operator of torch: what compilers and autograd are told is true."""

from inspect import signature

import pytest
import torch

from mmvitbackbones.ops.cpu import attention, feed_forward
from mmvitbackbones.ops.windows import Neighbourhood, as_numbers


def draw(*shape, dtype=torch.float32, trained=True):
    return torch.randn(shape).to(dtype).requires_grad_(trained)


def windows(dtype, biased=True, trained=True):
    seen = (
        Neighbourhood((2, 3), (1, 1), (1, 2), wraps=True),
        Neighbourhood((1, 1), (1, 1), (2, 1)),
    )
    numbers = as_numbers(seen)
    sizes = [(4, 9), (2, 3)]
    maps = [draw(2, *size, 3, 2, 4, dtype=dtype, trained=trained) for size in sizes]
    valid = torch.cat([s.on_map(size, torch.device('cpu')) for s, size in zip(seen, sizes)], dim=1)
    bias = draw(2, 6, valid.shape[1], trained=trained) if biased else None
    return maps, numbers, bias, valid


def network(dtype, conv, keep):
    weights = [(6, 3), (6,), (3, 6), (3,), *([(6, 1, 3, 3), (6,)] if conv else [])]
    weights = [draw(*shape, dtype=dtype) for shape in weights] + ([] if conv else [None, None])
    return draw(2, 5, 4, 3, dtype=dtype), *weights, keep


CASES = {
    'attention': (attention._forward, windows),
    'attention without a bias': (attention._forward, lambda dtype: windows(dtype, biased=False)),
    'feed-forward': (feed_forward._forward, lambda dtype: network(dtype, False, True)),
    'feed-forward, nothing kept': (feed_forward._forward, lambda d: network(d, False, False)),
    'feed-forward with a convolution': (feed_forward._forward, lambda d: network(d, True, True)),
}


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name', CASES)
def test_opcheck(name, dtype):
    """Schema, fake kernel, gradient's registration and a compilation with symbolic sizes."""
    torch.manual_seed(0)
    operator, make = CASES[name]
    tolerance = {}
    if dtype == torch.bfloat16:
        if 'rtol' not in signature(torch.library.opcheck).parameters:
            pytest.skip('this torch checks half types as exactly as float32')
        tolerance = dict(rtol=2e-2, atol=2e-2)
    torch.library.opcheck(operator, make(dtype), **tolerance)


BACKWARD = {
    'attention': lambda: (attention._backward, (draw(2, 4, 9, 8), *windows(torch.float32), True)),
    'feed-forward': lambda: (
        feed_forward._backward,
        (
            draw(2, 5, 4, 3),
            torch.randn(2, 5, 4, 6),
            *(x for i, x in enumerate(network(torch.float32, True, True)[:7]) if i != 4),
            True,
        ),
    ),
}


def detached(arguments, change=lambda x: x):
    """The arguments with each tensor detached and changed, those of lists too."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(detached(one, change) for one in arguments)
    return change(arguments.detach()) if isinstance(arguments, torch.Tensor) else arguments


@pytest.mark.parametrize('name', BACKWARD)
def test_opcheck_of_gradients(name):
    """Of the backward pass itself, which has no gradient of its own."""
    torch.manual_seed(0)
    operator, arguments = BACKWARD[name]()
    torch.library.opcheck(operator, detached(arguments))


@pytest.mark.parametrize('name', [*CASES, *(f'gradient of {name}' for name in BACKWARD)])
def test_any_order_in_memory(name):
    """A compiler may keep a tensor for the backward pass in another order."""
    torch.manual_seed(0)
    if name in CASES:
        operator, make = CASES[name]
        arguments = make(torch.float32)
    else:
        operator, arguments = BACKWARD[name.removeprefix('gradient of ')]()
    arguments = detached(arguments)
    expected = operator(*arguments)
    for order in ((0, 3, 1, 2), (3, 2, 1, 0)):

        def reorder(x, order=order):
            if x.ndim < 4:
                return x
            other = x.movedim(order, (0, 1, 2, 3)).contiguous()
            return other.movedim((0, 1, 2, 3), order)

        torch.testing.assert_close(operator(*detached(arguments, reorder)), expected)


def test_second_derivatives_are_refused():
    """By a message, not by a wrong number."""
    maps, *others = windows(torch.float32)
    y = attention._forward(maps, *others)
    (grad,) = torch.autograd.grad(y.square().sum(), maps[0], create_graph=True)
    message = 'window_attention_backward.* under mmvitbackbones.ops.plain'
    with pytest.raises(RuntimeError, match=message):
        torch.autograd.grad(grad.sum(), maps[0])
