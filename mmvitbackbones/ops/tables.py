"""Learned tables of offsets and of places: looking entries up, and other sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import cached, known
from .chunked import place_on_map


@cached
def relative_position_index(window: int, keys: int, device: torch.device) -> Tensor:
    """Index of each pair of a query and a key into a flattened table of offsets.

    Args:
        window (int): Side M of the square of queries, in tokens.
        keys (int): Side K of the square of keys.
        device (torch.device): Where the result is kept.

    Returns:
        Tensor: (M * M, K * K), integers; query (qy, qx) and key (ky, kx) read row ky - qy + M - 1
        and column kx - qx + M - 1 of a (M + K - 1) x (M + K - 1) grid.
    """
    side = torch.arange(keys, device=device) - torch.arange(window, device=device)[:, None]
    side = side + window - 1
    index = side[:, None, :, None] * (window + keys - 1) + side[None, :, None, :]
    return index.reshape(window * window, keys * keys)


def bias_from(offsets: Tensor, queries: slice) -> Tensor:
    """Look up the bias of some tokens of a map to all of them.

    Args:
        offsets (Tensor): (heads, 2H - 1, 2W - 1), row by row of offsets.
        queries (slice): Tokens of the map, in row-major order: some rows, or a part of one.

    Returns:
        Tensor: (heads, queries, H * W).
    """
    height, width = (offsets.shape[1] + 1) // 2, (offsets.shape[2] + 1) // 2
    rows, columns = place_on_map(queries, height, width)
    below = _steps(rows, height, offsets.device)
    right = _steps(columns, width, offsets.device)
    # One axis after the other, so that the indices are small.
    bias = offsets.index_select(2, right.flatten()).index_select(1, below.flatten())
    bias = bias.unflatten(2, right.shape).unflatten(1, below.shape)
    return bias.transpose(2, 3).flatten(3).flatten(1, 2)


def _steps(queries: slice, side: int, device: torch.device) -> Tensor:
    """Index of the offset from each of some lines to each of all lines, (queries, side)."""
    numbers = torch.arange(side, device=device)
    return numbers - numbers[queries, None] + side - 1


def interpolate(table: Tensor, dim: int, size: int) -> Tensor:
    """Resize one dimension of a learned table linearly, as images are resized.

    Args:
        table (Tensor): Any shape.
        dim (int): Which dimension.
        size (int): Its new length.

    Returns:
        Tensor: The table itself where the length is right.
    """
    if known(table.shape[dim] == size):
        return table
    # Only the indices are cached; table values may change at any time.
    before, after, share = _between(table.shape[dim], size, table.device)
    share = share.to(table.dtype).view(-1, *[1] * (table.dim() - dim - 1))
    return torch.lerp(table.index_select(dim, before), table.index_select(dim, after), share)


@cached
def _between(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two places between which each new one lies, and its distance from the first."""
    places = (torch.arange(size, device=device, dtype=torch.float64) + 0.5) * length / size - 0.5
    places = places.clamp(0, length - 1)
    before = places.long()
    return before, (before + 1).clamp(max=length - 1), places - before


def resize_table(table: Tensor, size: int, mode: str = 'bicubic') -> Tensor:
    """Resize tables of offsets, so that an offset keeps its meaning relative to the window.

    Args:
        table (Tensor): (heads, S * S), each head's grid in row-major order.
        size (int): New side of the grid.
        mode (str): Interpolation, 'bicubic' or 'bilinear'. Defaults to 'bicubic'.

    Returns:
        Tensor: (heads, size * size).
    """
    side = round(table.shape[1] ** 0.5)
    if side == size:
        return table
    # Not every torch can resize half types.
    grid = table.to(torch.promote_types(table.dtype, torch.float32))
    grid = grid.unflatten(1, (side, side))[None]
    grid = F.interpolate(grid, size=(size, size), mode=mode, align_corners=False)
    return grid[0].flatten(1).to(table.dtype)
