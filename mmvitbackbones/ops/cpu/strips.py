"""Strips of a map: what a row of windows sees, in one piece of memory.

Windows beside each other see nearly the same tokens. A strip holds them once; each window's are a
view of it, and their gradients are summed there before they are added to the map.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..windows import Neighbourhood


def strip_shape(seen: Neighbourhood, x: Tensor) -> tuple[int, ...]:
    """Shape of what a row of windows of a map (B, H, W, ...) sees: (size[0], W', ...)."""
    return seen.size[0], x.shape[2] + sum(seen.columns), *x.shape[3:]


def read_strip(seen: Neighbourhood, x: Tensor, sample: int, row: int, out: Tensor) -> Tensor:
    """Copy what a row of windows sees.

    Args:
        seen (Neighbourhood): What a window sees.
        x (Tensor): Map, (B, H, W, ...).
        sample (int): Which of the B.
        row (int): Row of windows.
        out (Tensor): Where to, of :func:`strip_shape`; zeros beyond the map.

    Returns:
        Tensor: ``out``.
    """
    if not seen.wraps:
        above = max(0, seen.rows[0] - row * seen.window[0])
        below = max(0, (row + 1) * seen.window[0] + seen.rows[1] - x.shape[1])
        left, right = (max(0, margin) for margin in seen.columns)
        for beyond in (out[:above], out[len(out) - below :]):
            beyond.zero_()
        for beyond in (out[:, :left], out[:, out.shape[1] - right :]):
            beyond.zero_()
    for there, here in _pieces(seen, x, row):
        out[there] = x[sample][here]
    return out


def add_strip(seen: Neighbourhood, x: Tensor, sample: int, row: int, strip: Tensor) -> None:
    """Add a strip to the map it was read from: the gradient of :func:`read_strip`."""
    for there, here in _pieces(seen, x, row):
        x[sample][here] += strip[there]


def view_windows(seen: Neighbourhood, strips: Tensor) -> Tensor:
    """What each window sees, without a copy.

    Args:
        seen (Neighbourhood): What a window sees.
        strips (Tensor): Strips of B rows of windows, (B, size[0], W', ...); or a map (B, H, W, ...)
            where windows see nothing but themselves.

    Returns:
        Tensor: (B, rows, columns, size[0], size[1], ...), overlapping where there are margins.
    """
    if seen.is_window:
        y = strips.unflatten(2, (-1, seen.window[1])).unflatten(1, (-1, seen.window[0]))
        return y.transpose(2, 3)
    y = strips.unfold(1, seen.size[0], seen.window[0]).unfold(2, seen.size[1], seen.window[1])
    return y.movedim((-2, -1), (3, 4))


def add_windows(seen: Neighbourhood, strip: Tensor, first: int, windows: Tensor) -> None:
    """Add windows beside each other to a strip: the gradient of :func:`view_windows`.

    Args:
        seen (Neighbourhood): What a window sees.
        strip (Tensor): Of :func:`strip_shape`, changed in place.
        first (int): Column of the first window.
        windows (Tensor): (windows, size[0], size[1], ...).
    """
    step = seen.window[1]
    strip = strip[:, first * step :]
    # Pieces no wider than a window: those of different windows do not overlap.
    for start in range(0, seen.size[1], step):
        piece = windows[:, :, start : start + step].transpose(0, 1).movedim(2, -1)
        strip[:, start:].unfold(1, piece.shape[-1], step)[:, : len(windows)] += piece


def _pieces(seen: Neighbourhood, x: Tensor, row: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
    """Places in the strip of a row of windows, and their places on the map."""
    first = row * seen.window[0] - seen.rows[0]
    rows = _intervals(first, seen.size[0], x.shape[1], seen.wraps)
    width = x.shape[2] + sum(seen.columns)
    columns = _intervals(-seen.columns[0], width, x.shape[2], seen.wraps)
    for there_y, here_y in rows:
        for there_x, here_x in columns:
            yield (there_y, there_x), (here_y, here_x)


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
