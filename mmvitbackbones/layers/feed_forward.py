"""The feed-forward network of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.feed_forward import feed_forward


class FeedForward(nn.Module):
    """Two linears with a GELU between them.

    Args:
        dims (int): Channels of the tokens.
        hidden_dims (int): Channels between the linears.
        drop (float): Dropout after each linear. Defaults to 0.
        conv (bool): A residual 3x3 depth-wise convolution after the GELU. Defaults to False.
    """

    def __init__(self, dims: int, hidden_dims: int, drop: float = 0.0, conv: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims, hidden_dims)
        self.conv = None
        if conv:
            self.conv = nn.Conv2d(hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims)
        self.fc2 = nn.Linear(hidden_dims, dims)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token; (..., C) in and out, with a convolution (B, H, W, C)."""
        return feed_forward(x, self.fc1, self.fc2, self.drop, self.conv)
