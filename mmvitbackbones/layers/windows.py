"""Windows over channels-last maps, and the tokens round them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def partition(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut a map into windows, with zeros where the last ones reach beyond it.

    Args:
        x (Tensor): Map, (B, H, W, C).
        window (tuple[int, int]): Height and width (h, w) of a window, in tokens.

    Returns:
        Tensor: (B, ceil(H / h), ceil(W / w), h * w, C), each window's tokens in row-major order.
    """
    x = pad_to_multiple(x, *window)
    x = x.unflatten(1, (-1, window[0])).unflatten(3, (-1, window[1]))
    return x.transpose(2, 3).flatten(3, 4)


def merge(windows: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Put windows back into a map: the inverse of :func:`partition`.

    Args:
        windows (Tensor): (B, rows, columns, h * w, C).
        window (tuple[int, int]): Height and width (h, w) of a window, in tokens.
        size (tuple[int, int]): Height and width of the map; what lies beyond is cut off.

    Returns:
        Tensor: (B, size[0], size[1], C).
    """
    x = windows.unflatten(3, window).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : size[0], : size[1]]


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Pad a (B, H, W, C) map with zeros at the bottom and right to ``height`` x ``width``."""
    bottom, right = height - x.shape[1], width - x.shape[2]
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


def pad_to_multiple(x: Tensor, height: int, width: int) -> Tensor:
    """Pad a (B, H, W, C) map as :func:`pad_to`, to multiples of ``height`` and ``width``."""
    return pad_to(x, x.shape[1] + -x.shape[1] % height, x.shape[2] + -x.shape[2] % width)


def place_on_map(tokens: slice, width: int) -> tuple[slice, slice]:
    """Rows and columns of tokens numbered in row-major order: some rows, or a part of one."""
    first, last = tokens.start // width, (tokens.stop - 1) // width + 1
    return slice(first, last), slice(tokens.start - first * width, tokens.stop - (last - 1) * width)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def validity(size: tuple[int, int], window: tuple[int, int], device: torch.device) -> Tensor | None:
    """Say which tokens of the windows of :func:`partition` lie on the map.

    Args:
        size (tuple[int, int]): Height and width of the map.
        window (tuple[int, int]): Height and width (h, w) of a window, in tokens.
        device (torch.device): Where the result is kept.

    Returns:
        Tensor | None: Boolean, (windows, h * w); None where all tokens lie on the map.
    """
    if size[0] % window[0] == size[1] % window[1] == 0:
        return None
    on_map = torch.ones(1, *size, 1, dtype=torch.bool, device=device)
    return partition(on_map, window).flatten(0, 2).squeeze(-1)


@dataclass(frozen=True)
class Neighbourhood:
    """The tokens that a window sees: its own, and a margin of others on each side.

    Windows of one map tile it; the margins of neighbouring windows overlap.

    Args:
        window (tuple[int, int]): Height and width of a window, in tokens.
        rows (tuple[int, int]): Tokens above and below a window that it sees, too. With (n, -n) it
            sees what lies n tokens above it, and not itself.
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
        return not any((*self.rows, *self.columns))

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Windows per column and per row of a map (B, H, W, ...)."""
        return x.shape[1] // self.window[0], x.shape[2] // self.window[1]

    def strip_shape(self, x: Tensor) -> tuple[int, ...]:
        """Shape of what a row of windows of a map (B, H, W, ...) sees: (size[0], W', ...)."""
        return self.size[0], x.shape[2] + sum(self.columns), *x.shape[3:]

    def read_strip(self, x: Tensor, sample: int, row: int, out: Tensor) -> Tensor:
        """Copy what a row of windows sees.

        Args:
            x (Tensor): Map, (B, H, W, ...).
            sample (int): Which of the B.
            row (int): Row of windows.
            out (Tensor): Where to, of :meth:`strip_shape`.

        Returns:
            Tensor: ``out``.
        """
        if not self.wraps:
            above = max(0, self.rows[0] - row * self.window[0])
            below = max(0, (row + 1) * self.window[0] + self.rows[1] - x.shape[1])
            left, right = (max(0, margin) for margin in self.columns)
            for beyond in (out[:above], out[len(out) - below :]):
                beyond.zero_()
            for beyond in (out[:, :left], out[:, out.shape[1] - right :]):
                beyond.zero_()
        for there, here in self._pieces(x, row):
            out[there] = x[sample][here]
        return out

    def add_strip(self, x: Tensor, sample: int, row: int, strip: Tensor) -> None:
        """Add a strip to the map it was read from: the gradient of :meth:`read_strip`."""
        for there, here in self._pieces(x, row):
            x[sample][here] += strip[there]

    def _pieces(self, x: Tensor, row: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
        """Places in the strip of a row of windows, and their places on the map."""
        first = row * self.window[0] - self.rows[0]
        rows = _intervals(first, self.size[0], x.shape[1], self.wraps)
        width = x.shape[2] + sum(self.columns)
        columns = _intervals(-self.columns[0], width, x.shape[2], self.wraps)
        for there_y, here_y in rows:
            for there_x, here_x in columns:
                yield (there_y, there_x), (here_y, here_x)

    def pad(self, x: Tensor) -> Tensor:
        """Add the margins to a map: (B, H, W, ...) to (B, above + H + below, ...)."""
        if self.is_window:
            return x
        if not self.wraps:
            return F.pad(x, (0, 0) * (x.dim() - 3) + self.columns + self.rows)
        for dim, (before, after) in ((1, self.rows), (2, self.columns)):
            tokens = torch.arange(-before, x.shape[dim] + after, device=x.device) % x.shape[dim]
            x = x.index_select(dim, tokens)
        return x

    def view(self, padded: Tensor) -> Tensor:
        """What each window sees, without a copy.

        Args:
            padded (Tensor): Result of :meth:`pad`, (B, H', W', ...); or strips of B rows of
                windows.

        Returns:
            Tensor: (B, rows, columns, size[0], size[1], ...), overlapping where there are margins.
        """
        if self.is_window:
            y = padded.unflatten(2, (-1, self.window[1])).unflatten(1, (-1, self.window[0]))
            return y.transpose(2, 3)
        y = padded.unfold(1, self.size[0], self.window[0]).unfold(2, self.size[1], self.window[1])
        return y.movedim((-2, -1), (3, 4))

    def add_windows(self, strip: Tensor, first: int, windows: Tensor) -> None:
        """Add windows beside each other to a strip: the gradient of :meth:`view`.

        Args:
            strip (Tensor): Of :meth:`strip_shape`, changed in place.
            first (int): Column of the first window.
            windows (Tensor): (windows, size[0], size[1], ...).
        """
        step = self.window[1]
        strip = strip[:, first * step :]
        # Pieces no wider than a window: those of different windows do not overlap.
        for start in range(0, self.size[1], step):
            piece = windows[:, :, start : start + step].transpose(0, 1).movedim(2, -1)
            strip[:, start:].unfold(1, piece.shape[-1], step)[:, : len(windows)] += piece

    def on_map(self, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
        """Say which of the tokens that each window sees lie on the map.

        Args:
            size (tuple[int, int]): Height and width of the map; the last windows may reach
                beyond it.
            device (torch.device, optional): Where the result is kept.

        Returns:
            Tensor: Boolean, (rows * columns, size[0] * size[1]).
        """
        ones = torch.ones(1, *size, 1, dtype=torch.bool, device=device)
        return self.view(self.pad(pad_to_multiple(ones, *self.window))).flatten(0, 2).flatten(1)


def _intervals(first: int, length: int, total: int, wraps: bool) -> list[tuple[slice, slice]]:
    """Cut [first, first + length) where it crosses the ends of [0, total).

    Returns:
        list[tuple[slice, slice]]: Parts of the interval, counted from its beginning, and where
        they lie in [0, total); what lies outside is left out, or wrapped round.
    """
    parts = []
    place = 0
    while place < length:
        begin = first + place
        end = min(first + length, (begin // total + 1) * total)
        if wraps or 0 <= begin < total:
            here = slice(begin % total, begin % total + end - begin)
            parts.append((slice(place, place + end - begin), here))
        place += end - begin
    return parts
