"""Depth-wise convolutions of channels-last maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .cpu import on_cpu


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
        x = x.permute(0, 3, 1, 2)
        if on_cpu(x) and self.kernel_size[0] > 3 and torch.is_grad_enabled():
            return _WideConv.apply(x, self.weight, self.bias).permute(0, 2, 3, 1)
        return super().forward(x).permute(0, 2, 3, 1)


class _WideConv(torch.autograd.Function):
    """A depth-wise convolution whose kernel gets its gradient in parts.

    On CPUs the gradient of a kernel wider than 3 takes several times as long as its parts.
    """

    @staticmethod
    def forward(ctx, x, kernel, bias):
        ctx.save_for_backward(x, kernel)
        return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=len(kernel))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, kernel = ctx.saved_tensors
        grad_x = grad_kernel = None
        middle = kernel.shape[-1] // 2
        if ctx.needs_input_grad[0]:
            grad_x, _, _ = depthwise_gradients(grad, x, kernel, (True, False, False))
        if ctx.needs_input_grad[1]:
            width, columns = x.shape[3], []
            for shift in range(-middle, middle + 1):
                if abs(shift) <= 1:
                    continue
                column = torch.zeros_like(kernel[..., :1])
                if abs(shift) < width:
                    # Where a pixel meets the one that lies ``shift`` to its right.
                    there = slice(max(shift, 0), width + min(shift, 0))
                    here = slice(max(-shift, 0), width + min(-shift, 0))
                    _, column, _ = depthwise_gradients(
                        grad[..., here], x[..., there], kernel[..., :1], (False, True, False)
                    )
                columns.append(column)
            _, centre, _ = depthwise_gradients(grad, x, kernel[..., :3], (False, True, False))
            columns.insert(middle - 1, centre)
            grad_kernel = torch.cat(columns, dim=3)
        return grad_x, grad_kernel, grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None


def depthwise_gradients(
    grad: Tensor,
    x: Tensor,
    kernel: Tensor,
    wanted: tuple[bool, bool, bool],
    padding: tuple[int, int] | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a depth-wise convolution's input, kernel and bias.

    Args:
        grad (Tensor): Gradient of its output, (B, C, H, W).
        x (Tensor): Its input.
        kernel (Tensor): (C, 1, h, w).
        wanted (tuple[bool, bool, bool]): Which of the three to compute.
        padding (tuple[int, int], optional): Zeros above and below, and on the left and right;
            None: half the kernel.

    Returns:
        tuple[Tensor | None, ...]: The gradients, None for those not wanted.
    """
    padding = [side // 2 for side in kernel.shape[2:]] if padding is None else list(padding)
    channels, ones, none = len(kernel), [1, 1], [0, 0]
    return torch.ops.aten.convolution_backward(
        grad, x, kernel, [channels], ones, padding, ones, False, none, channels, list(wanted)
    )


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


def residual(kernel: Tensor) -> Tensor:
    """From a depth-wise 3x3 kernel, (C, 1, 3, 3), to one that adds what it is applied to."""
    return kernel + F.pad(kernel.new_ones(1, 1), (1, 1, 1, 1))
