"""Learned tables: look-up and resizing."""

import pytest
import torch
import torch.nn.functional as F

from mmvitbackbones.ops.tables import bias_from, interpolate, resize_table


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


def equal_with_gradients(ours, expected, inputs):
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad(ours, inputs, slope), torch.autograd.grad(expected, inputs, slope)
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


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
