"""Windows against loops over tokens."""

import pytest
import torch

from mmvitbackbones.ops.cpu.strips import (
    add_strip,
    add_windows,
    read_strip,
    strip_shape,
    view_windows,
)
from mmvitbackbones.ops.windows import Neighbourhood, merge, partition

CASES = [
    ((8, 12), (4, 4), (2, 3)),
    ((7, 5), (3, 3), (3, 2)),
    ((2, 3), (2, 4), (1, 1)),
    ((3, 9), (3, 2), (1, 5)),
]


@pytest.mark.parametrize('size, window, grid', CASES)
def test_partition_and_what_is_on_the_map(size, window, grid):
    x = torch.randn(2, *size, 3)
    windows = partition(x, window)
    valid = Neighbourhood(window).on_map(size, x.device)
    assert windows.shape == (2, *grid, window[0] * window[1], 3)
    all_valid = True
    for row in range(grid[0]):
        for column in range(grid[1]):
            for i in range(window[0] * window[1]):
                y, z = row * window[0] + i // window[1], column * window[1] + i % window[1]
                on_map = y < size[0] and z < size[1]
                all_valid &= on_map
                expected = x[:, y, z] if on_map else torch.zeros(2, 3)
                assert torch.equal(windows[:, row, column, i], expected)
                assert valid[row * grid[1] + column, i] == on_map
    assert Neighbourhood(window).sees_only_the_map(size) == all_valid


@pytest.mark.parametrize('size, window, grid', CASES)
def test_merge_inverts_partition(size, window, grid):
    x = torch.randn(2, *size, 3)
    assert torch.equal(merge(partition(x, window), window, size), x)


# Neighbourhoods: a map's size, and what its windows see.

NEIGHBOURHOODS = {
    'no margins': ((4, 6), Neighbourhood((2, 3))),
    'zeros': ((4, 6), Neighbourhood((2, 3), (1, 2), (3, 1))),
    'wraps': ((4, 6), Neighbourhood((2, 3), (1, 2), (3, 1), wraps=True)),
    'above and to the right': ((6, 4), Neighbourhood((3, 2), (2, 0), (0, 1), wraps=True)),
    'one row of windows': ((2, 8), Neighbourhood((2, 2), (2, 1), (1, 1), wraps=True)),
    'one window': ((2, 3), Neighbourhood((2, 3), (1, 2), (3, 2), wraps=True)),
    'of one token': ((3, 4), Neighbourhood((1, 1), (1, 1), (2, 3))),
    'beyond the whole map': ((2, 2), Neighbourhood((1, 1), (4, 3), (5, 0))),
    'a window on each side': ((6, 4), Neighbourhood((3, 2), (3, 3), (2, 2))),
    'the same round a single one': ((3, 2), Neighbourhood((3, 2), (3, 3), (2, 2))),
    'the window above': ((6, 4), Neighbourhood((3, 2), (3, -3), (0, 0))),
    'the window to the lower right': ((6, 4), Neighbourhood((3, 2), (-3, 3), (-2, 2))),
    'the window to the left of a single one': ((3, 2), Neighbourhood((3, 2), (0, 0), (2, -2))),
    'zeros above': ((4, 6), Neighbourhood((2, 3), (3, 0), (0, 0))),
    'zeros below': ((4, 6), Neighbourhood((2, 3), (0, 5), (0, 0))),
    'zeros to the left': ((4, 6), Neighbourhood((2, 3), (0, 0), (4, 0))),
    'zeros to the right': ((4, 6), Neighbourhood((2, 3), (0, 0), (0, 1))),
}
neighbourhoods = pytest.mark.parametrize(
    'size, neighbourhood', NEIGHBOURHOODS.values(), ids=NEIGHBOURHOODS
)


def windows_of(size, neighbourhood):
    rows, columns = size[0] // neighbourhood.window[0], size[1] // neighbourhood.window[1]
    return [(row, column) for row in range(rows) for column in range(columns)]


def places(size, neighbourhood, row, column):
    """Place on the map of each token that a window sees, row by row; None: beyond the border."""
    height, width = neighbourhood.window
    rows = range(row * height - neighbourhood.rows[0], (row + 1) * height + neighbourhood.rows[1])
    columns = range(
        column * width - neighbourhood.columns[0], (column + 1) * width + neighbourhood.columns[1]
    )
    for y in rows:
        for x in columns:
            if neighbourhood.wraps:
                yield y % size[0], x % size[1]
            else:
                yield (y, x) if y in range(size[0]) and x in range(size[1]) else None


@neighbourhoods
def test_what_windows_see(size, neighbourhood):
    """By look-up, and which of it is on the map; off the map, any token of the map."""
    x = torch.randn(2, *size, 3)
    seen = neighbourhood.gather(x)
    on_map = neighbourhood.on_map(size, x.device)
    windows = windows_of(size, neighbourhood)
    count = neighbourhood.size[0] * neighbourhood.size[1]
    assert seen.shape == (2, len(windows), count, 3)
    assert on_map.shape == (len(windows), count)
    for i, window in enumerate(windows):
        for j, place in enumerate(places(size, neighbourhood, *window)):
            assert on_map[i, j] == (place is not None)
            if place is not None:
                assert torch.equal(seen[:, i, j], x[(slice(None), *place)])
    assert torch.isin(seen, x).all()


@pytest.mark.parametrize('size', [(5, 7), (1, 2), (3, 1), (6, 4), (7, 6)])
@pytest.mark.parametrize(
    'margins',
    [((0, 0), (0, 0)), ((3, 3), (2, 2)), ((1, 4), (0, 3)), ((2, 0), (1, 0)), ((3, -3), (-2, 2))],
)
def test_last_windows_that_reach_beyond_the_map(size, margins):
    """Their own tokens are not all on the map, nor are their margins, from either side."""
    neighbourhood = Neighbourhood((3, 2), *margins)
    found = neighbourhood.on_map(size, torch.device('cpu'))
    padded = size[0] + -size[0] % 3, size[1] + -size[1] % 2
    windows = windows_of(padded, neighbourhood)
    assert found.dtype == torch.bool and len(found) == len(windows)
    for ours, window in zip(found, windows):
        # Counted on the map without padding.
        expected = [place is not None for place in places(size, neighbourhood, *window)]
        assert ours.tolist() == expected


@neighbourhoods
def test_strips_hold_what_a_row_of_windows_sees(size, neighbourhood):
    """Zeros beyond the map."""
    x = torch.randn(2, *size, 3)
    expected = neighbourhood.gather(x)
    expected[:, ~neighbourhood.on_map(size, x.device)] = 0
    columns = size[1] // neighbourhood.window[1]
    for sample in range(2):
        for row in range(size[0] // neighbourhood.window[0]):
            out = torch.full(strip_shape(neighbourhood, x), float('nan'))
            strip = read_strip(neighbourhood, x, sample, row, out)
            assert strip is out
            seen = view_windows(neighbourhood, strip[None])[0, 0].flatten(1, 2)
            assert torch.equal(seen, expected[sample, row * columns : (row + 1) * columns])


@neighbourhoods
def test_adding_strips_is_adjoint_to_reading_them(size, neighbourhood):
    """<read(x), y> = <x, add(y)>, and adding keeps what is there."""
    generator = torch.Generator().manual_seed(0)
    for row in range(size[0] // neighbourhood.window[0]):
        x = torch.randn(2, *size, 3, dtype=torch.float64, generator=generator)
        strip = x.new_empty(strip_shape(neighbourhood, x))
        y = torch.randn(strip.shape, dtype=torch.float64, generator=generator)
        before = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        total = before.clone()
        add_strip(neighbourhood, total, 1, row, y)
        assert torch.equal(total[0], before[0])
        ours = (x * (total - before)).sum()
        expected = (read_strip(neighbourhood, x, 1, row, strip) * y).sum()
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@neighbourhoods
def test_adding_windows_is_adjoint_to_viewing_them(size, neighbourhood):
    """Also for some of a strip's windows, wherever the first of them is."""
    generator = torch.Generator().manual_seed(0)
    shape = strip_shape(neighbourhood, torch.empty(2, *size, 3))
    strip = torch.randn(shape, dtype=torch.float64, generator=generator)
    columns = size[1] // neighbourhood.window[1]
    for first in range(columns):
        for last in range(first + 1, columns + 1):
            seen = view_windows(neighbourhood, strip[None])[0, 0, first:last]
            y = torch.randn(seen.shape, dtype=torch.float64, generator=generator)
            before = torch.randn(shape, dtype=torch.float64, generator=generator)
            total = before.clone()
            add_windows(neighbourhood, total, first, y)
            ours = (strip * (total - before)).sum()
            torch.testing.assert_close(ours, (seen * y).sum(), rtol=1e-12, atol=1e-12)
