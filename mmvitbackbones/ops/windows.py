"""Windows over channels-last maps: cutting, merging, and what a window sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import cached, known, records_one_graph


def partition(x: Tensor, window: Sequence[int]) -> Tensor:
    """Cut a map into windows, with zeros where the last ones reach beyond it.

    Args:
        x (Tensor): Map, (B, H, W, ...).
        window (Sequence[int]): Height and width (h, w) of a window, in tokens.

    Returns:
        Tensor: (B, ceil(H / h), ceil(W / w), h * w, ...), each window's tokens in row-major order.
    """
    rows, columns = grid(x.shape[1:3], window)
    x = pad_to(x, rows * window[0], columns * window[1])
    x = x.unflatten(1, (rows, window[0])).unflatten(3, (columns, window[1]))
    return x.transpose(2, 3).flatten(3, 4)


def merge(windows: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """Put windows back into a map: the inverse of :func:`partition`.

    Args:
        windows (Tensor): (B, rows, columns, h * w, ...).
        window (Sequence[int]): Height and width (h, w) of a window, in tokens.
        size (Sequence[int]): Height and width of the map; what lies beyond is cut off.

    Returns:
        Tensor: (B, size[0], size[1], ...).
    """
    x = windows.unflatten(3, window).transpose(2, 3)
    return crop(x.flatten(3, 4).flatten(1, 2), size)


def crop(x: Tensor, size: Sequence[int], dim: int = 1) -> Tensor:
    """Cut off what lies beyond a size.

    Args:
        x (Tensor): A map, (B, H, W, ...), or any other tensor.
        size (Sequence[int]): Lengths of ``dim`` and the dimensions after it.
        dim (int): The first dimension that is cut. Defaults to 1, a map's height.

    Returns:
        Tensor: A view, but in graphs for many sizes a copy.
    """
    for i, length in enumerate(size, start=dim):
        if known(x.shape[i] == length):
            continue
        if records_one_graph():
            # A slice would bind the graph to sizes that need no padding.
            x = x.index_select(i, torch.arange(length, device=x.device))
        else:
            x = x.narrow(i, 0, length)
    return x


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Pad a (B, H, W, ...) map with zeros at the bottom and right to ``height`` x ``width``."""
    bottom, right = height - x.shape[1], width - x.shape[2]
    if known(bottom == 0) and known(right == 0):
        return x
    return F.pad(x, (0, 0) * (x.dim() - 3) + (0, right, 0, bottom))


def pad_to_multiple(x: Tensor, height: int, width: int) -> Tensor:
    """Pad a (B, H, W, ...) map as :func:`pad_to`, to multiples of ``height`` and ``width``."""
    rows, columns = grid(x.shape[1:3], (height, width))
    return pad_to(x, rows * height, columns * width)


def grid(size: Sequence[int], window: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of windows that cover a map of a size."""
    rows, columns = (
        1 if known(side == step) else (side + step - 1) // step for side, step in zip(size, window)
    )
    return rows, columns


def at_most(length: int, side: int) -> int:
    """A length, or a map's side where that is known to be shorter."""
    return side if known(side < length) else length


@dataclass(frozen=True)
class Neighbourhood:
    """The tokens that a window sees: its own, and a margin of others on each side.

    Windows of one map tile it; the margins of neighbouring windows overlap.

    Args:
        window (tuple[int, int]): Height and width of a window, in tokens.
        rows (tuple[int, int]): Tokens above and below a window that it sees, too. With (n, -n) it
            sees what lies n tokens above it, and not itself.
        columns (tuple[int, int]): Tokens to the left and the right of a window.
        wraps (bool): Whether windows see the opposite border beyond the map's border, with margins
            up to the map's side. If not, what lies beyond is masked.
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

    def gather(self, x: Tensor) -> Tensor:
        """Look up what each window sees.

        Args:
            x (Tensor): Map, (B, H, W, ...), of whole windows.

        Returns:
            Tensor: (B, windows, size[0] * size[1], ...), any token for what is not on the map.
        """
        if self.is_window:
            return partition(x, self.window).flatten(1, 2)
        places = self.places(x.shape[1:3], x.device)
        tokens = x.flatten(1, 2).index_select(1, places.flatten())
        return tokens.unflatten(1, places.shape)

    def places(self, size: Sequence[int], device: torch.device) -> Tensor:
        """Place of each token that a window sees, in the row-major order of the map.

        Args:
            size (Sequence[int]): Height and width of the map.
            device (torch.device): Where the result is kept.

        Returns:
            Tensor: (windows, size[0] * size[1]), integers; the nearest token on the map for what
            lies beyond it.
        """
        return _places(self, tuple(size), device)

    def on_map(self, size: Sequence[int], device: torch.device) -> Tensor:
        """Say which of the tokens that each window sees lie on the map.

        Args:
            size (Sequence[int]): Height and width of the map; the last windows may reach
                beyond it.
            device (torch.device): Where the result is kept.

        Returns:
            Tensor: Boolean, (windows, size[0] * size[1]).
        """
        return _on_map(self, tuple(size), device)

    def sees_only_the_map(self, size: Sequence[int]) -> bool:
        """Whether no window sees anything beyond a map of a size."""
        if self.wraps or not self.is_window:
            return self.wraps
        return all(known(side % step == 0) for side, step in zip(size, self.window))

    def lines(
        self, size: Sequence[int], device: torch.device
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Numbers of the rows, and of the columns, that windows see.

        Returns:
            tuple: For rows, then columns, (windows, tokens) each: numbers on the map, and whether
            they lie on it.
        """
        found = []
        for side, step, before, length, count in zip(
            size, self.window, (self.rows[0], self.columns[0]), self.size, grid(size, self.window)
        ):
            first = torch.arange(count, device=device) * step - before
            numbers = first[:, None] + torch.arange(length, device=device)
            if self.wraps:
                numbers = torch.where(numbers < 0, numbers + side, numbers)
                numbers = torch.where(numbers >= side, numbers - side, numbers)
            inside = (numbers >= 0) & (numbers < side)
            found.append((numbers.clamp(0, side - 1), inside))
        rows, columns = found
        return rows, columns


def as_numbers(seen: Sequence[Neighbourhood]) -> list[int]:
    """What windows see on each map, as the numbers that operators of ``torch.library`` take."""
    return [n for one in seen for n in (*one.window, *one.rows, *one.columns, int(one.wraps))]


def from_numbers(numbers: Sequence[int]) -> list[Neighbourhood]:
    """Undo :func:`as_numbers`."""
    each = (numbers[i : i + 7] for i in range(0, len(numbers), 7))
    return [
        Neighbourhood((h, w), (above, below), (left, right), bool(wraps))
        for h, w, above, below, left, right, wraps in each
    ]


@cached
def _places(seen: Neighbourhood, size: tuple[int, ...], device: torch.device) -> Tensor:
    (rows, _), (columns, _) = seen.lines(size, device)
    places = rows[:, None, :, None] * size[1] + columns[:, None]
    return places.flatten(2).flatten(0, 1)


@cached
def _on_map(seen: Neighbourhood, size: tuple[int, ...], device: torch.device) -> Tensor:
    (_, rows), (_, columns) = seen.lines(size, device)
    return (rows[:, None, :, None] & columns[:, None]).flatten(2).flatten(0, 1)
