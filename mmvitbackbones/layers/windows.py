"""Windows over channels-last maps, and the tokens round them."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Neighbourhood:
    """The tokens that a window sees: its own, and a margin of others on each side.

    Windows of one map tile it; the margins of neighbouring windows overlap.

    Args:
        window (tuple[int, int]): Height and width of a window, in tokens.
        rows (tuple[int, int]): Tokens above and below a window that it sees, too.
        columns (tuple[int, int]): Tokens to the left and the right of a window.
        wraps (bool): Beyond the map's border lies its opposite border; else zeros.
    """

    window: tuple[int, int]
    rows: tuple[int, int] = (0, 0)
    columns: tuple[int, int] = (0, 0)
    wraps: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what a window sees."""
        return self.window[0] + sum(self.rows), self.window[1] + sum(self.columns)

    @property
    def is_window(self) -> bool:
        """Whether a window sees nothing but itself."""
        return self.size == self.window

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Windows per column and per row of a map (B, H, W, ...)."""
        return x.shape[1] // self.window[0], x.shape[2] // self.window[1]

    def pad(self, x: Tensor) -> Tensor:
        """Add the margins to a map: (B, H, W, ...) to (B, above + H + below, ...)."""
        if self.is_window:
            return x
        (above, below), (left, right) = self.rows, self.columns
        height, width = x.shape[1:3]
        shape = (len(x), above + height + below, left + width + right, *x.shape[3:])
        if not self.wraps:
            padded = x.new_zeros(shape)
            padded[:, above : above + height, left : left + width] = x
            return padded
        padded = x.new_empty(shape)
        inner = padded[:, above : above + height]
        inner[:, :, left : left + width] = x
        inner[:, :, :left] = x[:, :, width - left :]
        inner[:, :, left + width :] = x[:, :, :right]
        padded[:, :above] = padded[:, height : height + above]
        padded[:, above + height :] = padded[:, above : above + below]
        return padded

    def unpad_gradient(self, padded: Tensor) -> Tensor:
        """From the gradient of :meth:`pad`'s result, changed in place, to that of its input."""
        (above, below), (left, right) = self.rows, self.columns
        height, width = padded.shape[1] - above - below, padded.shape[2] - left - right
        if self.wraps:
            padded[:, height : height + above] += padded[:, :above]
            padded[:, above : above + below] += padded[:, above + height :]
            padded[:, :, width : width + left] += padded[:, :, :left]
            padded[:, :, left : left + right] += padded[:, :, left + width :]
        return padded[:, above : above + height, left : left + width]

    def view(self, padded: Tensor) -> Tensor:
        """What each window sees, without a copy.

        Args:
            padded (Tensor): Result of :meth:`pad`, (B, H', W', ...).

        Returns:
            Tensor: (B, rows, columns, size[0], size[1], ...), overlapping where there are margins.
        """
        y = padded.unfold(1, self.size[0], self.window[0]).unfold(2, self.size[1], self.window[1])
        return y.movedim((-2, -1), (3, 4))

    def put_gradient(self, padded: Tensor, block: tuple[int, int, slice], grad: Tensor) -> None:
        """Add gradients of windows beside each other, as of :meth:`view`, to the padded map's.

        Windows without margins share no token: theirs is written instead, whatever was there.

        Args:
            padded (Tensor): Gradient of :meth:`pad`'s result, changed in place.
            block (tuple[int, int, slice]): Sample, row and columns of the windows.
            grad (Tensor): (windows, size[0], size[1], ...).
        """
        if self.is_window:
            self.view(padded)[block] = grad
            return
        sample, row, columns = block
        top, step = row * self.window[0], self.window[1]
        rows = padded[sample, top : top + self.size[0], columns.start * step :]
        # Pieces no wider than a window: those of different windows do not overlap.
        for start in range(0, self.size[1], step):
            piece = grad[:, :, start : start + step].transpose(0, 1).movedim(2, -1)
            rows[:, start:].unfold(1, piece.shape[-1], step)[:, : len(grad)] += piece

    def on_map(self, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
        """Say which of the tokens that each window sees lie on the map.

        Args:
            size (tuple[int, int]): Height and width of the map; the windows tile it.
            device (torch.device, optional): Where the result is kept.

        Returns:
            Tensor: Boolean, (rows * columns, size[0] * size[1]).
        """
        ones = torch.ones(1, *size, dtype=torch.bool, device=device)
        return self.view(self.pad(ones)).flatten(0, 2).flatten(1)
