"""Windows against loops over tokens."""

import pytest
import torch

from mmvitbackbones.layers.windows import merge, partition, validity

CASES = [((8, 12), 4, (2, 3)), ((7, 5), 3, (3, 2)), ((2, 3), 4, (1, 1)), ((3, 3), 2, (3, 2))]


@pytest.mark.parametrize('size, window, grid', CASES)
def test_partition_and_validity(size, window, grid):
    x = torch.randn(2, *size, 3)
    windows = partition(x, window, grid)
    valid = validity(size, window, grid, x.device)
    assert windows.shape == (2, *grid, window * window, 3)
    all_valid = True
    for row in range(grid[0]):
        for column in range(grid[1]):
            for i in range(window * window):
                y, z = row * window + i // window, column * window + i % window
                on_map = y < size[0] and z < size[1]
                all_valid &= on_map
                expected = x[:, y, z] if on_map else torch.zeros(2, 3)
                assert torch.equal(windows[:, row, column, i], expected)
                if valid is not None:
                    assert valid[row * grid[1] + column, i] == on_map
    assert (valid is None) == all_valid


@pytest.mark.parametrize('size, window, grid', CASES)
def test_merge_inverts_partition(size, window, grid):
    x = torch.randn(2, *size, 3)
    assert torch.equal(merge(partition(x, window, grid), window, size), x)


def test_validity_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        valid = validity((5, 5), 3, (2, 2), torch.device('cpu'))
    x = torch.ones(4, 9, requires_grad=True)
    (x * valid).sum().backward()
    assert torch.equal(x.grad, valid.float())
