"""Positions: tables of relative biases, rotary embedding, decay."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .windows import place_on_map


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


class MapPositionBias(RelativePositionBias):
    """A learned bias for each head and each offset between two tokens of a map.

    Args:
        side (int): Height and width, in tokens, of the map that the table is stored for.
        num_heads (int): Number of heads.
    """

    def __init__(self, side: int, num_heads: int) -> None:
        super().__init__(side, num_heads)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Resize the table to the offsets of a map of another size, bilinearly.

        Args:
            size (tuple[int, int]): Height H and width W of the map in tokens.

        Returns:
            Tensor: (heads, 2H - 1, 2W - 1), for :func:`bias_from`.
        """
        side = 2 * self.window - 1
        grid = self.table.unflatten(1, (side, side))
        return interpolate(interpolate(grid, 1, 2 * size[0] - 1), 2, 2 * size[1] - 1)


def bias_from(offsets: Tensor, queries: slice) -> Tensor:
    """Look up the bias of some tokens of a map to all of them.

    Args:
        offsets (Tensor): (heads, 2H - 1, 2W - 1), as :class:`MapPositionBias` gives them.
        queries (slice): Tokens of the map, in row-major order: some rows, or a part of one.

    Returns:
        Tensor: (heads, queries, H * W).
    """
    height, width = (offsets.shape[1] + 1) // 2, (offsets.shape[2] + 1) // 2
    rows, columns = place_on_map(queries, width)
    # A query further on sees the offsets from an earlier one on. Sliced before it is unfolded: the
    # gradient of a slice is as large as what it was cut from.
    seen = offsets[
        :,
        height - rows.stop : 2 * height - 1 - rows.start,
        width - columns.stop : 2 * width - 1 - columns.start,
    ]
    seen = seen.unfold(1, height, 1).unfold(2, width, 1)
    return seen.flip(1, 2).flatten(3).flatten(1, 2)


class AbsolutePosition(nn.Module):
    """Learned positions: half of the channels say the row of a token, half its column.

    Args:
        side (int): Height and width, in tokens, of the map that the tables are stored for.
        dims (int): Channels C of the tokens, even.
    """

    def __init__(self, side: int, dims: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(side, dims // 2))
        self.columns = nn.Parameter(torch.zeros(side, dims // 2))
        for table in (self.rows, self.columns):
            trunc_normal_(table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions; (B, H, W, C) in and out.

        A side that is shorter than its table reads the table's beginning, as in the published
        model; for a longer one the table is resized linearly.
        """
        size = x.shape[1:3]
        rows, columns = (
            interpolate(table, 0, max(side, len(table)))[:side]
            for table, side in zip((self.rows, self.columns), size)
        )
        rows, columns = rows[:, None].expand(*size, -1), columns.expand(*size, -1)
        return x + torch.cat([rows, columns], dim=-1)


def interpolate(table: Tensor, dim: int, size: int) -> Tensor:
    """Resize one dimension of a learned table linearly, as images are resized.

    Args:
        table (Tensor): Any shape.
        dim (int): Which dimension.
        size (int): Its new length.

    Returns:
        Tensor: The table itself where the length is right.
    """
    if table.shape[dim] == size:
        return table
    # Where it reads is cached. What it reads is not: weights may change unnoticed, as when averaged
    # ones are swapped in for an evaluation.
    before, after, share = _between(table.shape[dim], size, table.device)
    share = share.to(table.dtype).view(-1, *[1] * (table.dim() - dim - 1))
    return torch.lerp(table.index_select(dim, before), table.index_select(dim, after), share)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
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


def rotary_embedding(
    height: int, width: int, dims: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Rotations by the position of each token of a map (Su et al., "RoFormer").

    Args:
        height (int): Height of the map in tokens.
        width (int): Width of the map in tokens.
        dims (int): Channels d of an attention head, even.
        device (torch.device): Where the result is kept.
        dtype (torch.dtype): Its precision, float32 or float64. Defaults to float32.

    Returns:
        Tensor: Complex numbers of length 1, (height, width, 1, d / 2). The angle of pair j is
        ``10000 ** (-j / (d / 2 - 1))`` times the token's number in row-major order.
    """
    # As published, angles are rounded to float32 in any case.
    angles = 1 / 10000 ** torch.linspace(0, 1, dims // 2, device=device, dtype=torch.float32)
    numbers = torch.arange(height * width, device=device, dtype=dtype)
    angles = (numbers[:, None] * angles.to(dtype)).view(height, width, 1, -1)
    return torch.polar(torch.ones_like(angles), angles)


@torch.compiler.disable  # inductor has no complex numbers
def rotate(x: Tensor, rotation: Tensor) -> tuple[Tensor, ...]:
    """Rotate each pair of adjacent channels.

    Args:
        x (Tensor): Queries and keys, (B, H, W, 2, heads, d).
        rotation (Tensor): Result of :func:`rotary_embedding`.

    Returns:
        tuple[Tensor, ...]: Rotated queries and keys, (B, H, W, heads, d) each; rounded to the type
        of ``x`` after the rotation.
    """
    return _Rotation.apply(x, rotation)


class _Rotation(torch.autograd.Function):
    """A multiplication of complex numbers, whose gradients are not put together but written."""

    @staticmethod
    def forward(ctx, x, rotation):
        ctx.save_for_backward(rotation)
        y = _as_complex(x.to(rotation.real.dtype)) * rotation[:, :, None]
        return torch.view_as_real(y).flatten(-2).to(x.dtype).unbind(3)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        (rotation,) = ctx.saved_tensors
        shape = (*grads[0].shape[:3], len(grads), *grads[0].shape[3:])
        out = grads[0].new_empty(shape, dtype=rotation.real.dtype)
        for part, grad in zip(out.unbind(3), grads):
            grad = _as_complex(grad.to(out.dtype))
            torch.mul(grad, rotation.conj(), out=_as_complex(part))
        return out.to(grads[0].dtype), None


def _as_complex(x: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    *others, last = pairs.stride()
    if last != 1 or any(stride % 2 for stride in (*others, x.storage_offset())):
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(pairs)


def log_decay(
    length: int,
    num_heads: int,
    interval: tuple[float, float],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Logarithm of the decay with the distance of two tokens (RMT, Eq. 3 and 8).

    Head n of N decays by ``gamma = 1 - 2 ** (-a - (b - a) * n / N)`` a token.

    Args:
        length (int): Tokens L beside each other.
        num_heads (int): Number of heads N.
        interval (tuple[float, float]): a and b, which say how far the first heads see, and the
            last ones.
        device (torch.device): Where the result is kept.
        dtype (torch.dtype): Its precision, float32 or float64. Defaults to float32.

    Returns:
        Tensor: (N, L, L).
    """
    first, last = interval
    heads = torch.arange(num_heads, device=device, dtype=torch.float32)
    # As published, rounded to float32 in any case.
    log_gamma = torch.log(1 - 2 ** (-first - (last - first) * heads / num_heads))
    places = torch.arange(length, device=device)
    distance = (places[:, None] - places).abs()
    return log_gamma.to(dtype)[:, None, None] * distance
