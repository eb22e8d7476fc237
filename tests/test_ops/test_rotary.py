"""Rotary embedding against sines and cosines of single tokens."""

import math

import numpy as np
import pytest
import torch

from mmvitbackbones.ops.rotary import rotary_embedding, rotate

CPU = torch.device('cpu')


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize('dims', [2, 4, 10])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rotations(dims, dtype):
    """By the token's number, times angles that are float32 values; of length 1."""
    cos, sin = rotary_embedding(3, 5, dims, CPU, dtype)
    assert cos.shape == sin.shape == (3, 5, 1, dims // 2) and cos.dtype == sin.dtype == dtype
    for j in range(dims // 2):
        slope = 10000 ** (-j / (dims / 2 - 1)) if j else 1.0
        angle = math.atan2(sin[0, 1, 0, j], cos[0, 1, 0, j])
        assert angle == pytest.approx(slope, rel=1e-6)
        if dtype == torch.float64:
            nearest = float(np.float32(angle))
            assert angle == pytest.approx(nearest, rel=1e-14)
            angle = nearest
        for y in range(3):
            for x in range(5):
                total = (5 * y + x) * angle
                expected = torch.tensor([math.cos(total), math.sin(total)], dtype=dtype)
                found = torch.stack([cos[y, x, 0, j], sin[y, x, 0, j]])
                tolerance = 1e-13 if dtype == torch.float64 else 3e-6
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_far_tokens_keep_their_angles_in_float32():
    """Tokens far down a large map: cosines and sines are rounded once."""
    single, double = (
        rotary_embedding(200, 300, 8, CPU, dtype) for dtype in (torch.float32, torch.float64)
    )
    for ours, exact in zip(single, double):
        assert torch.equal(ours, exact.float())


def test_rotates_pairs_of_adjacent_channels(body):
    """(a, b) to (a cos - b sin, b cos + a sin), queries and keys of all heads alike."""
    torch.manual_seed(0)
    x = draw(2, 3, 5, 2, 3, 4)
    cos, sin = rotary_embedding(3, 5, 4, CPU, torch.float64)
    q, k = rotate(x, cos, sin)
    assert q.shape == k.shape == (2, 3, 5, 3, 4)
    for part, found in enumerate((q, k)):
        for j in range(2):
            a, b = x[:, :, :, part, :, 2 * j], x[:, :, :, part, :, 2 * j + 1]
            torch.testing.assert_close(found[..., 2 * j], a * cos[..., j] - b * sin[..., j])
            torch.testing.assert_close(found[..., 2 * j + 1], b * cos[..., j] + a * sin[..., j])


def test_products_depend_on_the_difference_of_positions():
    torch.manual_seed(0)
    one = draw(1, 1, 1, 2, 2, 6)
    q, k = rotate(one.expand(1, 4, 6, -1, -1, -1), *rotary_embedding(4, 6, 6, CPU, torch.float64))
    q, k = (t.flatten(1, 2)[0].transpose(0, 1) for t in (q, k))
    products = q @ k.mT
    for offset in range(-23, 24):
        line = products.diagonal(offset, 1, 2)
        torch.testing.assert_close(line, line[:, :1].expand_as(line))
    assert products[0, 0].std() > 0.1 * products[0, 0].abs().max()
    expected = (one[0, 0, 0, 0] * one[0, 0, 0, 1]).sum(-1)
    torch.testing.assert_close(products[:, 0, 0], expected)


def test_gradients_of_rotations(body):
    """Also where only queries, or only keys, are used."""
    torch.manual_seed(0)
    x, rotation = draw(2, 1, 3, 2, 2, 4), rotary_embedding(1, 3, 4, CPU, torch.float64)
    assert torch.autograd.gradcheck(lambda x: rotate(x, *rotation), (x,))
    for part in (0, 1):
        (grad,) = torch.autograd.grad(rotate(x, *rotation)[part].square().sum(), x)
        torch.testing.assert_close(grad[:, :, :, part], 2 * x[:, :, :, part], rtol=1e-12, atol=0)
        assert not grad[:, :, :, 1 - part].any()


def test_gradients_of_any_memory_layout(body):
    """As a product with transposed keys leaves them, or a sum."""
    torch.manual_seed(0)
    x, rotation = draw(2, 3, 5, 2, 3, 4), rotary_embedding(3, 5, 4, CPU, torch.float64)
    slopes = [torch.randn(2, 3, 5, 3, 4, dtype=torch.float64) for _ in range(2)]
    (expected,) = torch.autograd.grad(rotate(x, *rotation), x, slopes)
    strided = [slope.movedim(1, 4).contiguous().movedim(4, 1) for slope in slopes]
    (found,) = torch.autograd.grad(rotate(x, *rotation), x, strided)
    torch.testing.assert_close(found, expected)
    q, k = rotate(x, *rotation)
    (found,) = torch.autograd.grad((q + k).sum(), x)
    (expected,) = torch.autograd.grad(rotate(x, *rotation), x, [torch.ones_like(q)] * 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_rotations_in_half_types(dtype, autocast, body):
    """Rounded once, after the rotation; so are the gradients."""
    torch.manual_seed(0)
    x, rotation = draw(1, 40, 50, 2, 2, 8, dtype=dtype), rotary_embedding(40, 50, 8, CPU)
    single = x.detach().float().requires_grad_()
    expected = rotate(single, *rotation)
    with torch.autocast('cpu', dtype, enabled=autocast):
        ours = rotate(x, *rotation)
    slopes = [torch.randn(1, 40, 50, 2, 8).to(dtype) for _ in ours]
    for found, wanted in zip(ours, expected):
        assert torch.equal(found, wanted.to(dtype))
    (found,) = torch.autograd.grad(ours, x, slopes)
    (wanted,) = torch.autograd.grad(expected, single, [slope.float() for slope in slopes])
    assert torch.equal(found, wanted.to(dtype))


def test_rotation_at_an_odd_place_in_memory(body):
    x = torch.randn(97, dtype=torch.float64)[1:].view(1, 2, 3, 2, 2, 4)
    rotation = rotary_embedding(2, 3, 4, x.device, x.dtype)
    for found, wanted in zip(rotate(x, *rotation), rotate(x.clone(), *rotation)):
        assert torch.equal(found, wanted)
