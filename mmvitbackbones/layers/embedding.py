"""Patch embedding: fewer tokens, other channels."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.layout import as_image, channels_last
from ..ops.windows import pad_to_multiple


class PatchEmbedding(nn.Module):
    """A strided convolution and a LayerNorm over the channels.

    Args:
        in_dims (int): Channels before.
        dims (int): Channels after.
        stride (int): Tokens, or pixels, of a patch along each side.
        kernel (int, optional): Side of the kernel; None: the stride, patches do not overlap.
        padding (int): Zeros on each side. Defaults to 0.
        eps (float): Of the LayerNorm. Defaults to 1e-5.
    """

    def __init__(
        self,
        in_dims: int,
        dims: int,
        stride: int,
        kernel: int | None = None,
        padding: int = 0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dims, dims, kernel or stride, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(dims, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches of a map, with zeros where the last ones reach beyond it.

        Args:
            x (Tensor): (B, H, W, C).

        Returns:
            Tensor: (B, ceil(H / stride), ceil(W / stride), C').
        """
        stride = self.conv.stride[0]
        x = pad_to_multiple(x, stride, stride)
        return self.norm(as_image(lambda image: self.conv(channels_last(image)), x))


class PatchStem(PatchEmbedding):
    """The first patch embedding, of the image itself."""

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """From an image to (B, ceil(H / stride), ceil(W / stride), C)."""
        return (super().forward(image.permute(0, 2, 3, 1)),)
