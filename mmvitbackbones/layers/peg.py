"""Positional encoding generator (Chu et al., "Conditional Positional Encodings")."""

from __future__ import annotations

from torch import Tensor, nn


class PEG(nn.Module):
    """Position encoding by a residual 3x3 depth-wise convolution.

    Args:
        dims (int): Channels of the map.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dims, dims, 3, padding=1, groups=dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add each token's neighbourhood to it.

        Args:
            x (Tensor): Map, (B, H, W, C).

        Returns:
            Tensor: (B, H, W, C).
        """
        return x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
