"""Square windows over channels-last maps."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def partition(x: Tensor, window: int, grid: tuple[int, int]) -> Tensor:
    """Cut a map into windows, with zeros where the last ones reach beyond it.

    Args:
        x (Tensor): Map, (B, H, W, C).
        window (int): Side p of a window, in tokens.
        grid (tuple[int, int]): Windows per column and per row; p times them covers the map.

    Returns:
        Tensor: (B, grid[0], grid[1], p * p, C), each window's tokens in row-major order.
    """
    x = pad_to(x, grid[0] * window, grid[1] * window)
    x = x.unflatten(1, (grid[0], window)).unflatten(3, (grid[1], window))
    return x.transpose(2, 3).flatten(3, 4)


def merge(windows: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """Put windows back into a map: the inverse of :func:`partition`.

    Args:
        windows (Tensor): (B, rows, columns, p * p, C).
        window (int): Side p of a window, in tokens.
        size (tuple[int, int]): Height and width of the map; what lies beyond is cut off.

    Returns:
        Tensor: (B, size[0], size[1], C).
    """
    x = windows.unflatten(3, (window, window)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : size[0], : size[1]]


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Pad a (B, H, W, C) map with zeros at the bottom and right to ``height`` x ``width``."""
    bottom, right = height - x.shape[1], width - x.shape[2]
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def validity(
    size: tuple[int, int], window: int, grid: tuple[int, int], device: torch.device
) -> Tensor | None:
    """Say which tokens of the windows of :func:`partition` lie on the map.

    Args:
        size (tuple[int, int]): Height and width of the map.
        window (int): Side p of a window, in tokens.
        grid (tuple[int, int]): Windows per column and per row.
        device (torch.device): Where the result is kept.

    Returns:
        Tensor | None: Boolean, (grid[0] * grid[1], p * p); None where all tokens lie on the map.
    """
    if size == (grid[0] * window, grid[1] * window):
        return None
    on_map = torch.ones(1, *size, 1, dtype=torch.bool, device=device)
    return partition(on_map, window, grid).flatten(0, 2).squeeze(-1)
