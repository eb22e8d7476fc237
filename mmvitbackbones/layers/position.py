"""Learned positions: biases of pairs of tokens, and absolute ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn

from ..ops.tables import interpolate, relative_position_index
from ..ops.windows import crop


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

    def forward(self, size: Sequence[int]) -> Tensor:
        """Resize the table to the offsets of a map of another size, bilinearly.

        Args:
            size (Sequence[int]): Height H and width W of the map in tokens.

        Returns:
            Tensor: (heads, 2H - 1, 2W - 1), for :func:`mmvitbackbones.ops.tables.bias_from`.
        """
        side = 2 * self.window - 1
        grid = self.table.unflatten(1, (side, side))
        return interpolate(interpolate(grid, 1, 2 * size[0] - 1), 2, 2 * size[1] - 1)


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
            crop(interpolate(table, 0, torch.sym_max(side, table.shape[0])), (side,), dim=0)
            for table, side in zip((self.rows, self.columns), size)
        )
        rows, columns = rows[:, None].expand(*size, -1), columns.expand(*size, -1)
        return x + torch.cat([rows, columns], dim=-1)
