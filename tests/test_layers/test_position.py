"""Positions: tables of relative biases, their look-up and resizing; rotations; decay."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmvitbackbones.layers.position import (
    AbsolutePosition,
    MapPositionBias,
    RelativePositionBias,
    bias_from,
    interpolate,
    log_decay,
    resize_table,
    rotary_embedding,
    rotate,
)

CPU = torch.device('cpu')


@pytest.mark.parametrize('keys', [None, 1, 2, 4])
def test_look_up_by_offset(keys):
    """Of a square of keys as large as that of queries, smaller or larger, from its own corner."""
    window, layer = 3, RelativePositionBias(3, 2, keys)
    keys = 3 if keys is None else keys
    bias, grid = layer(), layer.table.view(2, window + keys - 1, window + keys - 1)
    assert bias.shape == (2, window * window, keys * keys)
    for query in range(window * window):
        for key in range(keys * keys):
            row = key // keys - query // window + window - 1
            column = key % keys - query % window + window - 1
            assert torch.equal(bias[:, query, key], grid[:, row, column])


def test_every_offset_gets_its_gradient():
    layer = RelativePositionBias(3, 1)
    layer().sum().backward()
    # An offset (dy, dx) occurs (3 - |dy|) (3 - |dx|) times among 3 x 3 tokens.
    counts = torch.tensor([1.0, 2, 3, 2, 1])
    torch.testing.assert_close(layer.table.grad.view(5, 5), torch.outer(counts, counts))


def test_every_offset_to_other_keys_gets_its_gradient():
    layer = RelativePositionBias(3, 1, keys=2)
    layer().sum().backward()
    counts = torch.tensor([1.0, 2, 2, 1])
    torch.testing.assert_close(layer.table.grad.view(4, 4), torch.outer(counts, counts))


def test_index_made_in_inference_mode_serves_training():
    layer = RelativePositionBias(6, 1, keys=5)
    with torch.inference_mode():
        layer()
    layer().sum().backward()
    assert layer.table.grad.sum() == 36 * 25


def test_resize_to_the_same_size_changes_nothing():
    table = torch.randn(3, 13 * 13)
    assert torch.equal(resize_table(table, 13), table)


def test_resize_there_and_back_stays_close():
    offsets = torch.arange(-6.0, 7) / 7
    smooth = torch.outer(torch.cos(2 * offsets), torch.exp(-offsets)).flatten()[None]
    there = resize_table(smooth, 27)
    assert there.shape == (1, 27 * 27)
    back = resize_table(there, 13)
    assert (back - smooth).abs().max() < 0.02 * smooth.abs().max()


def test_resize_keeps_the_centre_and_the_order_of_offsets():
    ramp = torch.arange(13.0).repeat(13, 1).flatten()[None]
    wide = resize_table(ramp, 27).view(27, 27)
    torch.testing.assert_close(wide[:, 13], torch.full((27,), 6.0))
    assert (wide[5].diff() >= -1e-4).all()


def test_resize_bilinearly():
    """Between its neighbours, where the bicubic interpolation overshoots."""
    step = (torch.arange(13.0) > 5).float().repeat(13, 1).flatten()[None]
    resized = {mode: resize_table(step, 27, mode) for mode in ('bilinear', 'bicubic')}
    assert resized['bilinear'].min() == 0 and resized['bilinear'].max() == 1
    assert resized['bicubic'].min() < 0 and resized['bicubic'].max() > 1


# Tables of maps.


def equal_with_gradients(ours, expected, inputs):
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad(ours, inputs, slope), torch.autograd.grad(expected, inputs, slope)
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('dim', [0, 1, 2])
@pytest.mark.parametrize(
    'before, after', [(5, 9), (9, 5), (1, 4), (6, 1), (7, 8), (13, 3), (3, 40), (2, 2)]
)
def test_interpolates_as_images_are_resized(before, after, dim):
    torch.manual_seed(0)
    shape = [2, 3, 4]
    shape[dim] = before
    table = draw(*shape)
    lines = table.movedim(dim, -1)
    expected = F.interpolate(lines, after, mode='linear', align_corners=False).movedim(-1, dim)
    equal_with_gradients(interpolate(table, dim, after), expected, [table])


def test_interpolating_to_the_same_length_hands_the_table_on():
    table = draw(3, 5)
    assert interpolate(table, 1, 5) is table


def test_places_made_in_inference_mode_serve_training():
    table = draw(5, 3)
    with torch.inference_mode():
        expected = interpolate(table, 0, 31).clone()
    ours = interpolate(table, 0, 31)
    torch.testing.assert_close(ours.detach(), expected.clone())
    ours.sum().backward()
    assert table.grad.sum() == pytest.approx(31 * 3)


@pytest.mark.parametrize('size', [(4, 4), (5, 7), (4, 9), (2, 3), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize('side', [1, 4])
def test_bias_of_a_map_of_any_size(side, size):
    torch.manual_seed(0)
    layer = MapPositionBias(side, 3).double()
    grid = layer.table.view(1, 3, 2 * side - 1, 2 * side - 1)
    wanted = 2 * size[0] - 1, 2 * size[1] - 1
    expected = F.interpolate(grid, wanted, mode='bilinear', align_corners=False)[0]
    equal_with_gradients(layer(size), expected, [layer.table])


SLICES = [  # size of the map, tokens
    ((3, 4), (0, 12)),
    ((3, 4), (4, 8)),
    ((3, 4), (4, 12)),
    ((3, 4), (5, 7)),
    ((3, 4), (9, 12)),
    ((3, 4), (11, 12)),
    ((1, 5), (1, 4)),
    ((5, 1), (0, 2)),
    ((1, 1), (0, 1)),
]


@pytest.mark.parametrize('size, tokens', SLICES)
def test_bias_of_some_tokens_to_all(size, tokens):
    """Rows, or a part of one, looked up by how far a key is below and to the right."""
    (height, width), first_and_last = size, tokens
    offsets = draw(2, 2 * height - 1, 2 * width - 1)
    expected = torch.stack(
        [
            offsets[:, ky - query // width + height - 1, kx - query % width + width - 1]
            for query in range(*first_and_last)
            for ky in range(height)
            for kx in range(width)
        ],
        dim=1,
    ).view(2, -1, height * width)
    equal_with_gradients(bias_from(offsets, slice(*tokens)), expected, [offsets])


@pytest.mark.parametrize('size', [(5, 5), (3, 4), (1, 1), (9, 13), (2, 11), (6, 5)])
def test_absolute_positions(size):
    """The beginning of a table for a shorter side, a resized table for a longer one."""
    torch.manual_seed(0)
    layer, x = AbsolutePosition(5, 6).double(), draw(2, *size, 6)
    tables = []
    for table, side in zip((layer.rows, layer.columns), size):
        if side > 5:
            table = F.interpolate(table.t()[None], side, mode='linear')[0].t()
        tables.append(table)
    expected = x.clone()
    for row in range(size[0]):
        for column in range(size[1]):
            here = torch.cat([tables[0][row], tables[1][column]])
            expected[:, row, column] = expected[:, row, column] + here
    equal_with_gradients(layer(x), expected, [x, layer.rows, layer.columns])


# Rotary embedding.


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize('dims', [2, 4, 10])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rotations(dims, dtype):
    """By the token's number, times angles that are float32 values; of length 1."""
    rotation = rotary_embedding(3, 5, dims, CPU, dtype)
    assert rotation.shape == (3, 5, 1, dims // 2) and rotation.real.dtype == dtype
    for j in range(dims // 2):
        slope = 10000 ** (-j / (dims / 2 - 1)) if j else 1.0
        angle = math.atan2(rotation[0, 1, 0, j].imag, rotation[0, 1, 0, j].real)
        assert angle == pytest.approx(slope, rel=1e-6)
        if dtype == torch.float64:
            nearest = float(np.float32(angle))
            assert angle == pytest.approx(nearest, rel=1e-14)
            angle = nearest
        for y in range(3):
            for x in range(5):
                total = (5 * y + x) * angle
                expected = torch.tensor([math.cos(total), math.sin(total)], dtype=dtype)
                found = torch.view_as_real(rotation[y, x, 0, j])
                tolerance = 1e-13 if dtype == torch.float64 else 3e-6
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_far_tokens_keep_their_angles_in_float32():
    """Tokens far down a large map: no more error than that of a float32 number of radians."""
    single, double = (
        rotary_embedding(200, 300, 8, CPU, dtype) for dtype in (torch.float32, torch.float64)
    )
    assert (single - double).abs().max() < 2**-24 * 200 * 300


def test_rotates_pairs_of_adjacent_channels():
    """(a, b) to (a cos - b sin, b cos + a sin), queries and keys of all heads alike."""
    torch.manual_seed(0)
    x = draw(2, 3, 5, 2, 3, 4)
    rotation = rotary_embedding(3, 5, 4, CPU, torch.float64)
    cos, sin = rotation.real, rotation.imag
    q, k = rotate(x, rotation)
    assert q.shape == k.shape == (2, 3, 5, 3, 4)
    for part, found in enumerate((q, k)):
        for j in range(2):
            a, b = x[:, :, :, part, :, 2 * j], x[:, :, :, part, :, 2 * j + 1]
            torch.testing.assert_close(found[..., 2 * j], a * cos[..., j] - b * sin[..., j])
            torch.testing.assert_close(found[..., 2 * j + 1], b * cos[..., j] + a * sin[..., j])


def test_products_depend_on_the_difference_of_positions():
    torch.manual_seed(0)
    one = draw(1, 1, 1, 2, 2, 6)
    q, k = rotate(one.expand(1, 4, 6, -1, -1, -1), rotary_embedding(4, 6, 6, CPU, torch.float64))
    q, k = (t.flatten(1, 2)[0].transpose(0, 1) for t in (q, k))
    products = q @ k.mT
    for offset in range(-23, 24):
        line = products.diagonal(offset, 1, 2)
        torch.testing.assert_close(line, line[:, :1].expand_as(line))
    assert products[0, 0].std() > 0.1 * products[0, 0].abs().max()
    expected = (one[0, 0, 0, 0] * one[0, 0, 0, 1]).sum(-1)
    torch.testing.assert_close(products[:, 0, 0], expected)


def test_gradients_of_rotations():
    """Also where only queries, or only keys, are used."""
    torch.manual_seed(0)
    x, rotation = draw(2, 1, 3, 2, 2, 4), rotary_embedding(1, 3, 4, CPU, torch.float64)
    assert torch.autograd.gradcheck(lambda x: rotate(x, rotation), (x,))
    for part in (0, 1):
        (grad,) = torch.autograd.grad(rotate(x, rotation)[part].square().sum(), x)
        torch.testing.assert_close(grad[:, :, :, part], 2 * x[:, :, :, part], rtol=1e-12, atol=0)
        assert not grad[:, :, :, 1 - part].any()


def test_gradients_of_any_memory_layout():
    """As a product with transposed keys leaves them, or a sum."""
    torch.manual_seed(0)
    x, rotation = draw(2, 3, 5, 2, 3, 4), rotary_embedding(3, 5, 4, CPU, torch.float64)
    slopes = [torch.randn(2, 3, 5, 3, 4, dtype=torch.float64) for _ in range(2)]
    (expected,) = torch.autograd.grad(rotate(x, rotation), x, slopes)
    strided = [slope.movedim(1, 4).contiguous().movedim(4, 1) for slope in slopes]
    (found,) = torch.autograd.grad(rotate(x, rotation), x, strided)
    torch.testing.assert_close(found, expected)
    q, k = rotate(x, rotation)
    (found,) = torch.autograd.grad((q + k).sum(), x)
    (expected,) = torch.autograd.grad(rotate(x, rotation), x, [torch.ones_like(q)] * 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_rotations_in_half_types(dtype, autocast):
    """Rounded once, after the rotation; so are the gradients."""
    torch.manual_seed(0)
    x, rotation = draw(1, 40, 50, 2, 2, 8, dtype=dtype), rotary_embedding(40, 50, 8, CPU)
    single = x.detach().float().requires_grad_()
    expected = rotate(single, rotation)
    with torch.autocast('cpu', dtype, enabled=autocast):
        ours = rotate(x, rotation)
    slopes = [torch.randn(1, 40, 50, 2, 8).to(dtype) for _ in ours]
    for found, wanted in zip(ours, expected):
        assert torch.equal(found, wanted.to(dtype))
    (found,) = torch.autograd.grad(ours, x, slopes)
    (wanted,) = torch.autograd.grad(expected, single, [slope.float() for slope in slopes])
    assert torch.equal(found, wanted.to(dtype))


# Decay.


@pytest.mark.parametrize('interval', [(2, 6), (2, 8), (0.5, 1)])
@pytest.mark.parametrize('heads', [1, 3, 4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_decay_with_the_distance(dtype, heads, interval):
    """gamma ** distance of Eq. 8; the logarithm of gamma is a float32 value."""
    found = log_decay(7, heads, interval, CPU, dtype)
    assert found.shape == (heads, 7, 7) and found.dtype == dtype
    a, b = interval
    for n in range(heads):
        gamma = 1 - 2 ** (-a - (b - a) * n / heads)
        one = found[n, 0, 1].item()
        assert one == float(np.float32(one)) == pytest.approx(math.log(gamma), rel=1e-5)
        for i in range(7):
            for j in range(7):
                assert found[n, i, j].item() == pytest.approx(one * abs(i - j), rel=1e-6)
    assert found.diagonal(0, 1, 2).abs().max() == 0
    assert torch.equal(found, found.mT)


def test_decay_of_a_single_token():
    assert torch.equal(log_decay(1, 3, (2, 6), CPU), torch.zeros(3, 1, 1))


def test_rotation_at_an_odd_place_in_memory():
    x = torch.randn(97, dtype=torch.float64)[1:].view(1, 2, 3, 2, 2, 4)
    rotation = rotary_embedding(2, 3, 4, x.device, x.dtype)
    for found, wanted in zip(rotate(x, rotation), rotate(x.clone(), rotation)):
        assert torch.equal(found, wanted)
