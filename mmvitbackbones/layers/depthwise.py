"""Depth-wise convolutions of channels-last maps."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.layout import as_image


class DepthwiseConv(nn.Conv2d):
    """A depth-wise convolution that keeps the size of the map.

    Args:
        dims (int): Channels of the map.
        kernel (int): Side of the kernel, odd.
        bias (bool): Whether there is a bias. Defaults to True.
    """

    def __init__(self, dims: int, kernel: int, bias: bool = True) -> None:
        super().__init__(dims, dims, kernel, padding=kernel // 2, groups=dims, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; (B, H, W, C) in and out."""
        return as_image(super().forward, x)


class PEG(nn.Module):
    """Positional encoding generator (Chu et al., "Conditional Positional Encodings").

    Args:
        dims (int): Channels of the map.
        bias (bool): Whether the convolution has a bias. Defaults to False.
    """

    def __init__(self, dims: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = DepthwiseConv(dims, 3, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add each token's 3x3 neighbourhood to it; (B, H, W, C) in and out."""
        return x + self.conv(x)
