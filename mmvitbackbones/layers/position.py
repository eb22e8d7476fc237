"""Relative-position biases: index, look-up, resizing."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn


@lru_cache(maxsize=64)
@torch.inference_mode(False)
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


class RelativePositionBias(nn.Module):
    """A learned bias for each head and each offset between a query and a key.

    Args:
        window (int): Side M of the square of queries, in tokens.
        num_heads (int): Number of heads.
        keys (int, optional): Side K of the square of keys; None: that of the queries.
    """

    def __init__(self, window: int, num_heads: int, keys: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.keys = window if keys is None else keys
        self.table = nn.Parameter(torch.zeros(num_heads, (window + self.keys - 1) ** 2))
        trunc_normal_(self.table, std=0.02)

    def forward(self) -> Tensor:
        """Look the bias of all pairs up.

        Returns:
            Tensor: (heads, M * M, K * K), queries in rows, keys in columns.
        """
        index = relative_position_index(self.window, self.keys, self.table.device)
        return self.table.index_select(1, index.flatten()).unflatten(1, index.shape)


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
