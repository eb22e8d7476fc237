"""Relative-position tables: look-up and resizing."""

import pytest
import torch

from mmvitbackbones.layers.position import RelativePositionBias, resize_table


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
