"""Learned positions against the entries of their tables."""

import pytest
import torch
import torch.nn.functional as F

from mmvitbackbones.layers import AbsolutePosition, MapPositionBias, RelativePositionBias


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


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


# Tables of maps.


def equal_with_gradients(ours, expected, inputs):
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad(ours, inputs, slope), torch.autograd.grad(expected, inputs, slope)
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('size', [(4, 4), (5, 7), (4, 9), (2, 3), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize('side', [1, 4])
def test_bias_of_a_map_of_any_size(side, size):
    torch.manual_seed(0)
    layer = MapPositionBias(side, 3).double()
    grid = layer.table.view(1, 3, 2 * side - 1, 2 * side - 1)
    wanted = 2 * size[0] - 1, 2 * size[1] - 1
    expected = F.interpolate(grid, wanted, mode='bilinear', align_corners=False)[0]
    equal_with_gradients(layer(size), expected, [layer.table])


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
